import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.maicq import MAICQ, Config, weights

SEEDS = (3, 5)
ROWS = 7  # of a window; an episode of make_data has six, the last of which starts no transition


@pytest.fixture
def build(make_spec, make_data):
    def make(**over):
        algorithm = MAICQ(make_spec(), Config(**{"hidden": (16,), "horizon": ROWS, "mixer_width": 8, **over}), SEEDS)
        data = make_data(algorithm.spec, episodes=8, length=5)
        data.legal[:] = torch.rand(data.legal.shape) < 0.6
        data.legal[data.rows] |= torch.nn.functional.one_hot(data.actions, 4).bool()
        algorithm.prepare(data._replace(done=data.done * (torch.arange(40) < 20)))  # later episodes end by the clock
        return algorithm

    return make


def test_weights_have_mean_one_over_the_windows_that_count():
    scores, counts = 10 * torch.randn(2, 64, 5), torch.rand(2, 64, 5) < 0.5
    counts[:, :, 4] = False
    found = weights(scores, counts)
    assert not found[~counts].any() and found.isfinite().all()
    assert_close(found.sum(1), counts.sum(1).float())
    inside = counts[0, :, 0]
    assert_close(found[0, inside, 0], int(inside.sum()) * scores[0, inside, 0].softmax(0))


def test_agents_shares_are_the_slopes_of_the_mixer_where_it_is_linear(build):
    """ELU is the identity above zero; there Q_tot grows by |w_1| |w_2| with each agent's value."""
    algorithm, state = build(), torch.randn(2, 4, ROWS, 7)
    values = torch.full((2, 4, ROWS, 3), 100.0, requires_grad=True)
    slopes = torch.autograd.grad(algorithm.team("mixer", values, state).sum(), values)[0]
    assert_close(algorithm.shares(state), slopes / slopes.sum(-1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_the_target_is_the_datas_next_value_by_its_share_of_the_batch(build, make_batch):
    """By hand, also where a time-out is valued: there the next row starts no transition."""
    algorithm = build(value_beta=2.0, discount=0.9)
    steps = algorithm.windows.at(make_batch(algorithm.spec).number)
    with torch.no_grad():
        for parameter in algorithm.nets["target_mixer"].parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        q, target = (algorithm.along(net, steps) for net in ("critic", "target_critic"))
        taken = [x.gather(-1, steps.actions[..., None])[..., 0] for x in (q, target)]
        team, following = (algorithm.team(f"{w}mixer", x, steps.state) for w, x in zip(("", "target_"), taken))
    for s in range(2):
        total, count = 0.0, 0
        for t in range(ROWS - 1):
            inside = [b for b in range(8) if steps.taken[s, b, t]]
            odds = torch.stack([following[s, b, t + 1] / 2.0 for b in inside]).softmax(0)
            for weight, b in zip(len(inside) * odds, inside):
                value = (1 - steps.done[s, b, t]) * weight * following[s, b, t + 1]
                total += 0.5 * (team[s, b, t] - steps.rewards[s, b, t].mean() - 0.9 * value) ** 2
                count += 1
        assert_close(algorithm.critic_loss(steps, q)[s].detach(), total / count, rtol=1e-4, atol=1e-5)


def test_the_policys_loss_is_weighted_likelihood(build, make_batch):
    algorithm = build(policy_beta=0.5)
    steps = algorithm.windows.at(make_batch(algorithm.spec).number)
    with torch.no_grad():
        q = algorithm.along("critic", steps)
        law = torch.distributions.Categorical(
            logits=algorithm.along("policy", steps).masked_fill(~steps.legal, -torch.inf), validate_args=False
        )
        advantage = q.gather(-1, steps.actions[..., None])[..., 0] - (law.probs * q).sum(-1)
        shares = algorithm.shares(steps.state)
    out = algorithm.along("policy", steps).masked_fill(~steps.legal, -torch.inf)
    density = (out - out.logsumexp(-1, keepdim=True)).gather(-1, steps.actions[..., None])[..., 0]
    expected = []
    for s in range(2):
        terms = []
        for t in range(ROWS):
            inside = steps.taken[s, :, t]
            weight = int(inside.sum()) * (advantage[s, inside, t] / 0.5).softmax(0)
            terms.append(-(shares[s, inside, t] * weight * density[s, inside, t]))
        expected.append(torch.cat(terms).mean())
    found = algorithm.policy_loss(steps, q)
    assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    weights = list(algorithm.nets["policy"].parameters())  # the advantage is a number, without a gradient
    slopes = (torch.autograd.grad(loss.sum(), weights) for loss in (found, torch.stack(expected)))
    for one, other in zip(*slopes):
        assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("detach", [True, False])
def test_the_policys_loss_moves_the_mixer_only_as_released(build, make_batch, detach):
    algorithm = build(detach_shares=detach)
    loss = algorithm.losses(make_batch(algorithm.spec))["policy"].sum()
    trained = {n: p for n, p in algorithm.nets.named_parameters() if p.requires_grad}
    grads = dict(zip(trained, torch.autograd.grad(loss, trained.values(), allow_unused=True)))
    moved = {name.partition(".")[0] for name, g in grads.items() if g is not None and g.any()}
    assert moved == ({"policy"} if detach else {"policy", "mixer"})
    assert all(g is None or g.isfinite().all() for g in grads.values())
