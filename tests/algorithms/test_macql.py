import io

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.macql import MACQL, Config

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(seeds=SEEDS, **over):
        return MACQL(make_spec(), Config(**{"hidden": (16, 16), **over}), seeds)

    return make


@pytest.fixture
def hand_set(build, set_value):
    """Known values of each member and action, the same everywhere: (method, online [2,4], target [2,4])."""

    def make(**over):
        algorithm = build(**over)
        online = torch.tensor([[0.0, 5.0, 1.0, 2.0], [1.0, 0.0, 2.0, 7.0]])  # mean: 0.5, 2.5, 1.5, 4.5
        target = torch.tensor([[3.0, -1.0, 4.0, 0.5], [2.0, 6.0, -2.0, 1.5]])  # least: 2, -1, -2, 0.5
        set_value(algorithm.nets["critic"], online.repeat(2, 1))
        set_value(algorithm.nets["target_critic"], target.repeat(2, 1))
        return algorithm, online, target

    return make


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def same(one, other):
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("mixer", ["none", "mean"])
def test_td_loss_follows_double_q_learning_over_legal_actions(hand_set, make_batch, mixer):
    algorithm, online, target = hand_set(mixer=mixer, discount=0.9)
    batch = make_batch(algorithm.spec, size=32)
    assert batch.done.unique().tolist() == [0.0, 1.0]
    expected, unmasked = torch.zeros(2), 0
    for s in range(2):
        for b in range(32):
            chosen, aims = torch.zeros(2, 3), torch.zeros(3)
            for i in range(3):
                legal = batch.next_legal[s, b, i].nonzero().flatten().tolist()
                best = max(legal, key=lambda a: online[:, a].mean())  # the online network selects,
                unmasked += best != 3
                value = target[:, best].min()  # the target network values
                aims[i] = batch.rewards[s, b, i] + 0.9 * (1 - batch.done[s, b]) * value
                chosen[:, i] = online[:, batch.actions[s, b, i]]
            if mixer == "mean":
                chosen, aims = chosen.mean(1, keepdim=True), aims.mean(0, keepdim=True)
            expected[s] += 0.5 * (chosen - aims).pow(2).mean(1).sum() / 32
    assert unmasked > 20  # the mask decides often
    assert_close(algorithm.losses(batch)["critic"].detach(), expected, rtol=1e-4, atol=1e-5)


def test_td_loss_values_each_observation_with_its_own_network(build, make_batch):
    """As above, where values depend on the observation."""
    algorithm = build(discount=0.9)
    critic, target = algorithm.nets["critic"], algorithm.nets["target_critic"]
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.normal_()
    batch = make_batch(algorithm.spec)
    with torch.no_grad():
        selected = critic(batch.next_obs).mean(1).masked_fill(~batch.next_legal, -1e9).argmax(-1)
        worth = target(batch.next_obs).amin(1).gather(-1, selected[..., None])[..., 0]
        aims = batch.rewards + 0.9 * (1 - batch.done)[..., None] * worth
        chosen = critic(batch.obs)[
            torch.arange(2)[:, None, None], :, torch.arange(8)[:, None], torch.arange(3), batch.actions
        ]
    expected = 0.5 * (chosen - aims[..., None]).pow(2).mean((1, 2)).sum(1)
    assert_close(algorithm.losses(batch)["critic"].detach(), expected)


def test_the_next_observation_counts_until_the_end(build, make_batch):
    algorithm = build()
    batch, other = make_batch(algorithm.spec), make_batch(algorithm.spec, draw=1)
    for done in (0.0, 1.0):
        here = batch._replace(done=torch.full_like(batch.done, done))
        elsewhere = here._replace(next_obs=other.next_obs, next_legal=other.next_legal)
        one, changed = (algorithm.losses(each)["critic"] for each in (here, elsewhere))
        assert ((one == changed) == (done == 1.0)).all()


@pytest.mark.parametrize("legal_only", [False, True])
def test_conservative_loss_is_the_soft_maximum_less_the_datas_value(hand_set, make_batch, legal_only):
    algorithm, online, _ = hand_set(cql_legal_only=legal_only, cql_weight=2.0)
    batch = make_batch(algorithm.spec)
    expected = torch.zeros(2)
    for s in range(2):
        for b in range(8):
            for i in range(3):
                within = batch.legal[s, b, i] if legal_only else torch.ones(4, dtype=torch.bool)
                for q in online:
                    gap = q[within].exp().sum().log() - q[batch.actions[s, b, i]]
                    expected[s] += 2.0 * gap / 24
    assert_close(algorithm.losses(batch)["conservative"].detach(), expected)


def test_leaving_illegal_actions_out_matters_only_where_there_are_any(build, make_batch):
    everything, legal_only = build(), build(cql_legal_only=True)
    batch = make_batch(everything.spec)
    free = batch._replace(legal=torch.ones_like(batch.legal))
    for one in (free, batch._replace(legal=None)):
        assert torch.equal(*(m.losses(one)["conservative"] for m in (everything, legal_only)))
    wide, narrow = (m.losses(batch)["conservative"] for m in (everything, legal_only))
    assert (wide > narrow).all()


def test_the_conservative_term_lowers_unseen_actions_against_the_datas(build, make_batch):
    """Only actions 0 and 1 occur; what the others are worth is for the conservative term to say."""

    def gap(weight):
        algorithm = build(cql_weight=weight, learning_rate=3e-3, target_period=20, discount=0.5)
        for draw in range(150):
            batch = make_batch(algorithm.spec, size=32, draw=draw)
            algorithm.update(batch._replace(actions=batch.actions % 2))
        q = algorithm.nets["critic"](make_batch(algorithm.spec, size=64, draw=999).obs).detach().mean((1, 2, 3))
        return q[:, 2:].mean(1) - q[:, :2].mean(1)  # [S]

    without, little, much = gap(0.0), gap(0.1), gap(3.0)
    assert (little < without - 1).all() and (much < little - 0.5).all()


def test_without_the_conservative_term_values_approach_the_rewards(build, make_batch):
    algorithm = build(cql_weight=0.0, learning_rate=1e-2, discount=0.0)
    for draw in range(150):
        batch = make_batch(algorithm.spec, size=64, draw=draw)
        algorithm.update(batch._replace(rewards=batch.actions.float()))
    q = algorithm.nets["critic"](make_batch(algorithm.spec, draw=999).obs).detach()
    assert (q - torch.arange(4.0)).abs().mean() < 0.15


def test_the_target_is_copied_exactly_every_period_and_rests_between(build, make_batch):
    algorithm = build(target_period=3, learning_rate=1e-2)
    critic, target = algorithm.nets["critic"], algorithm.nets["target_critic"]
    expected = weights(target)
    for update in range(1, 8):
        algorithm.update(make_batch(algorithm.spec, draw=update))
        if update % 3 == 0:
            expected = weights(critic)
        assert same(weights(target), expected)
        assert same(weights(target), weights(critic)) == (update % 3 == 0)


def test_the_count_towards_the_next_copy_survives_saving(build, make_batch):
    algorithm, resumed = build(target_period=3), build(target_period=3)
    batches = [make_batch(algorithm.spec, draw=draw) for draw in range(3)]
    for batch in batches[:2]:
        algorithm.update(batch)
    file = io.BytesIO()
    torch.save(algorithm.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed.update(batches[2])
    assert same(weights(resumed.nets["target_critic"]), weights(resumed.nets["critic"]))


def test_the_default_period_is_200_updates(build, make_batch):
    algorithm = build([0])
    batch = make_batch(algorithm.spec, [0])
    for _ in range(199):
        algorithm.update(batch)
    critic, target = algorithm.nets["critic"], algorithm.nets["target_critic"]
    assert same(weights(target), weights(build([0]).nets["critic"]))
    algorithm.update(batch)
    assert same(weights(target), weights(critic))


def test_agents_take_the_legal_action_of_highest_mean_value(hand_set):
    algorithm, online, _ = hand_set()
    obs = torch.randn(2, 6, 3, 5)
    assert (algorithm.act(obs)[0] == online.mean(0).argmax()).all()
    legal = torch.tensor([True, True, True, False]).expand(2, 6, 3, 4)
    assert (algorithm.act(obs, legal)[0] == 1).all()


def test_exploring_takes_legal_actions_by_the_softmax_of_their_mean_values(hand_set):
    algorithm, online, _ = hand_set()
    legal = torch.tensor([True, True, True, False]).expand(2, 4000, 3, 4)
    with algorithm.exploring(algorithm.streams):
        actions, _ = algorithm.act(torch.randn(2, 4000, 3, 5), legal)
    shares = torch.nn.functional.one_hot(actions, 4).float().mean((1, 2))
    expected = torch.cat([online.mean(0)[:3].softmax(0), torch.zeros(1)])
    assert_close(shares, expected.expand(2, 4), atol=0.03, rtol=0)
