import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.mabcq import MABCQ, Config
from offmarl.algorithms.parts.nets import index_of_both

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(seeds=SEEDS, **over):
        return MABCQ(make_spec(), Config(**{"hidden": (16, 16), **over}), seeds)

    return make


@pytest.fixture
def hand_set(build, set_value):
    """Known probabilities of four actions and values of each member, the same everywhere."""

    def make(**over):
        algorithm = build(**over)
        set_value(algorithm.nets["policy"], torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(2, 1))
        set_value(algorithm.nets["critic"], torch.tensor([[0.0, 1.0, 4.0, 9.0], [0.0, 3.0, 2.0, 9.0]]).repeat(2, 1))
        target = torch.tensor([[3.0, -1.0, 4.0, 0.5], [2.0, 6.0, -2.0, 1.5]])
        set_value(algorithm.nets["target_critic"], target.repeat(2, 1))
        return algorithm, target

    return make


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.4, 0.9, 1.0])
def test_no_action_below_the_threshold_is_ever_taken(build, make_batch, threshold):
    algorithm = build(threshold=threshold)
    batch = make_batch(algorithm.spec, size=256)
    with torch.no_grad():
        likely = (3 * algorithm.nets["policy"](batch.obs)).masked_fill(~batch.legal, -torch.inf)
        for p in algorithm.nets["policy"].mlp.layers[-1].parameters():
            p.mul_(3)  # decided enough for the threshold to bind
        ratio = likely.softmax(-1) / likely.softmax(-1).amax(-1, keepdim=True)
    actions, _ = algorithm.act(batch.obs, batch.legal)
    assert (ratio.gather(-1, actions[..., None]) >= threshold - 1e-6).all()
    free, _ = build(threshold=threshold, eval_mask=False).act(batch.obs, batch.legal)
    assert threshold < 0.4 or (ratio.gather(-1, free[..., None]) < threshold).any()  # the mask matters


def test_agents_take_the_best_of_the_admissible_actions(hand_set):
    algorithm, _ = hand_set()
    obs, legal = torch.randn(2, 6, 3, 5), torch.ones(2, 6, 3, 4, dtype=torch.bool)
    assert (algorithm.act(obs, legal)[0] == 1).all()  # action 3 is best and 2 second, but 0.15 < 0.4 * 0.5
    legal[..., 0] = False  # then action 1 is likeliest, and 0.15 >= 0.4 * 0.3
    assert (algorithm.act(obs, legal)[0] == 2).all()
    assert (hand_set(eval_mask=False)[0].act(obs, legal)[0] == 3).all()
    only = torch.zeros_like(legal)
    only[..., 3] = True
    assert (algorithm.act(obs, only)[0] == 3).all()  # a fallen agent has no choice


@pytest.mark.parametrize("mixer", ["mean", "none"])
def test_td_loss_follows_the_best_admissible_action(hand_set, make_batch, mixer):
    algorithm, target = hand_set(mixer=mixer, discount=0.9)
    online = torch.tensor([[0.0, 1.0, 4.0, 9.0], [0.0, 3.0, 2.0, 9.0]])
    likely = torch.tensor([0.5, 0.3, 0.15, 0.05])
    batch = make_batch(algorithm.spec, size=32)
    expected = torch.zeros(2)
    for s in range(2):
        for b in range(32):
            chosen, following = torch.zeros(2, 3), torch.zeros(2, 3)
            for i in range(3):
                legal = batch.next_legal[s, b, i].nonzero().flatten().tolist()
                most = max(likely[a] for a in legal)
                allowed = [a for a in legal if likely[a] >= 0.4 * most]
                best = max(allowed, key=lambda a: online[:, a].mean())
                following[:, i] = target[:, best]
                chosen[:, i] = online[:, batch.actions[s, b, i]]
            rewards, live = batch.rewards[s, b], 1 - batch.done[s, b]
            if mixer == "mean":
                chosen, following = chosen.mean(1, keepdim=True), following.mean(1, keepdim=True)
                rewards = rewards.mean(0, keepdim=True)
            aims = rewards + 0.9 * live * following.amin(0)
            expected[s] += 0.5 * (chosen - aims).pow(2).mean(1).sum() / 32
    assert_close(algorithm.losses(batch)["critic"].detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_policy_learns_the_datas_frequencies(build, make_batch):
    algorithm = build(learning_rate=1e-2)
    batch = make_batch(algorithm.spec, size=64)
    for _ in range(100):
        algorithm.update(batch._replace(actions=torch.where(batch.actions == 3, 3, 1)))
    likely = algorithm.nets["policy"](make_batch(algorithm.spec, draw=9).obs).softmax(-1)
    assert likely[..., [0, 2]].max() < 0.02


def test_the_mixer_of_the_target_is_copied_with_its_critic(build, make_batch):
    algorithm = build(mixer="monotonic", target_period=3, learning_rate=1e-2)
    for update in range(1, 7):
        algorithm.update(make_batch(algorithm.spec, draw=update))
        for name in ("critic", "mixer"):
            pairs = zip(algorithm.nets[name].parameters(), algorithm.nets[f"target_{name}"].parameters())
            assert all(torch.equal(p, q) for p, q in pairs) == (update % 3 == 0)


@pytest.mark.parametrize("mixer", ["monotonic", "mean", "none"])
def test_its_value_is_the_teams_as_td_errors_have_it(build, make_batch, mixer):
    algorithm = build(mixer=mixer)
    batch = make_batch(algorithm.spec)
    q = algorithm.nets["critic"](batch.obs).gather(-1, index_of_both(batch.actions))[..., 0]
    team = algorithm.nets["mixer"](q, batch.state) if mixer == "monotonic" else q
    assert_close(algorithm.mean_value(batch), team.mean((1, 2, 3)))


def test_cloning_is_the_mean_cross_entropy(build, make_batch):
    algorithm = build()
    batch = make_batch(algorithm.spec)
    likely = algorithm.nets["policy"](batch.obs).log_softmax(-1).gather(-1, batch.actions[..., None])
    assert_close(algorithm.losses(batch)["policy"], -likely.mean((1, 2, 3)))


def test_the_admissible_actions_cost_a_call_of_the_policy(build):
    assert (build().nfe(), build(eval_mask=False).nfe()) == (2, 1)
