import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.comadice import ComaDICE, Config, conjugate, ramp
from offmarl.algorithms.parts.gaussian import tanh_gaussian

SEEDS = (3, 5)
DIVERGENCES = ["soft_chi_square", "chi_square", "kl"]


@pytest.fixture
def build(make_spec, make_data):
    def make(space="continuous", **over):
        algorithm = ComaDICE(make_spec(space), Config(**{"hidden": (16, 16), **over}), SEEDS)
        algorithm.prepare(make_data(algorithm.spec))
        return algorithm

    return make


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_values_loss_integrates_x_times_the_ramps_slope_or_the_ramp(build, divergence):
    x = torch.linspace(-3, 3, 61, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(ramp(x, divergence).sum(), x)
    for value_loss, expected in {"code": x * slope, "text": ramp(x, divergence)}.items():
        algorithm = build(divergence=divergence, value_loss=value_loss, alpha=0.5)
        (found,) = torch.autograd.grad(algorithm.value_loss(x.view(1, -1, 1)).sum(), x)
        assert_close(found, 0.5 * expected.detach() / 61)
    (found,) = torch.autograd.grad(conjugate(x, divergence).sum(), x)
    assert_close(found, ramp(x, divergence).detach())


def test_ratios_of_far_residuals_stay_finite(build, make_batch):
    algorithm = build(divergence="kl", alpha=1e-6)
    for k in (0, 1):
        residual = algorithm.residual(make_batch(algorithm.spec), k)
        assert residual.amax() == 10 and ramp(residual, "kl").isfinite().all()


@pytest.mark.parametrize("edge", [0.0, 1.0, 1.5, -0.5, math.nan])
def test_an_edge_outside_the_actions_is_refused(edge):
    with pytest.raises(ValueError, match="edge="):
        Config(edge=edge)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_ratios_are_never_negative_rise_with_the_advantage_and_jump_nowhere(divergence):
    x = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    ratio = ramp(x, divergence)
    assert (ratio >= 0).all() and (ratio.diff() >= 0).all() and ratio.diff().max() < 0.3
    assert ramp(torch.tensor(0.0), divergence) == pytest.approx(math.exp(-1) if divergence == "kl" else 1.0)
    assert (ramp(torch.tensor([-1.0, -1.5]), divergence) == 0).all() == (divergence == "chi_square")
    area = conjugate(x, divergence).diff() / x.diff()  # of the ramp, which its integral follows without a jump
    assert_close(area, (ratio[1:] + ratio[:-1]) / 2, rtol=0, atol=1e-3 * float(ratio.max()))


@pytest.mark.parametrize(("value_loss", "meets"), [("code", True), ("text", False)])
def test_the_multiplier_of_a_bandit_lies_between_its_rewards_and_above_their_mean(build, value_loss, meets):
    """By the code's gradient; that of the text only raises it."""
    q, alpha = torch.tensor([1.0, -0.5], dtype=torch.float64), 0.5
    algorithm = build(value_loss=value_loss, alpha=alpha)

    def slope(value):
        v = torch.full((1, 2, 1), value, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(algorithm.value_loss((q.view(1, 2, 1) - v) / alpha).sum(), v)[0].sum().item()

    assert slope(0.25) < 0
    assert (slope(1.0) > 0) == meets


@pytest.mark.parametrize("ratio_of", ["team", "agent"])
def test_advantages_are_the_weighted_gaps_and_reach_the_multiplier_alone(build, make_batch, ratio_of):
    algorithm = build(ratio_of=ratio_of, alpha=2.0)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    found = 2.0 * algorithm.residual(batch, 0)
    weights, _ = nets["mixer"](batch.state)
    gaps = weights * (nets["critic"](batch.obs, batch.actions)[..., 0] - nets["value"](batch.obs)[..., 0])
    assert_close(found, gaps if ratio_of == "agent" else gaps.sum(-1, keepdim=True))
    found.sum().backward()
    moved = {name for name, net in nets.items() if any(p.grad is not None for p in net.parameters())}
    assert moved == {"value"}


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_with_a_large_alpha_every_sample_weighs_the_same(build, make_batch, space):
    algorithm = build(space, alpha=1e9)
    batch, seen = make_batch(algorithm.spec), []
    algorithm.policy_loss = lambda batch, residual: seen.append(residual) or torch.zeros(2)
    algorithm.losses(batch)
    assert_close(ramp(seen[0], "soft_chi_square"), torch.ones(2, 8, 1))


def test_the_agents_ramps_are_added_in_the_released_code(build, make_batch):
    algorithm = build(**ComaDICE.variants["released"])
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    shift = torch.tensor([[0.2, 0.5], [0.3, -1.0]])
    with torch.no_grad():
        nets.get_parameter("normaliser.0").copy_(shift)
        gaps = nets["target_critic"](batch.obs, batch.actions)[..., 0] - nets["value"](batch.obs)[..., 0]
        advantage = nets["target_mixer"](batch.state)[0] * gaps - shift[:, 1, None, None]
    losses = algorithm.losses(batch)
    ratio = ramp(advantage / 10, "soft_chi_square").sum(-1, keepdim=True)
    density = tanh_gaussian(nets["policy"](batch.obs)).log_density(batch.actions, 0.99)
    assert_close(losses["policy"], -(ratio * density).mean((1, 2)))
    assert losses.keys() == {"critic", "value", "policy", "normaliser"}


def test_a_normaliser_rests_where_the_mean_ratio_and_the_pull_of_the_multiplier_agree(build):
    """Its slope is 1 - E[R + x R'], as in the code."""
    algorithm = build(normaliser=True)
    x = torch.randn(2, 8, 1, dtype=torch.float64)
    shift = algorithm.nets.get_parameter("normaliser.0")
    residual = x - shift[:, 0, None, None] / 10.0
    loss = algorithm.value_loss(residual) + algorithm.normaliser_term(residual.detach(), x)
    (found,) = torch.autograd.grad(loss.sum(), shift)
    y = x.requires_grad_()
    (slope,) = torch.autograd.grad(ramp(y, "soft_chi_square").sum(), y)
    expected = 1.0 - torch.stack([(ramp(y, "soft_chi_square") + k * y * slope).mean((1, 2)) for k in (1, 0)], 1)
    assert_close(found, expected.detach().float())


def test_first_states_alone_enter_the_last_term(build, make_batch):
    algorithm = build(discount=0.9)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    first = batch.number % 5 == 0  # episodes of the data have five transitions
    assert 0 < first.sum() < first.numel()
    weights, _ = nets["mixer"](batch.state)
    value = (weights * nets["value"](batch.obs)[..., 0]).sum(-1)
    expected = [0.1 * v[f].mean() if f.any() else torch.zeros(()) for v, f in zip(value, first)]
    assert_close(algorithm.first_values(batch), torch.stack(expected))


def test_the_first_transitions_of_the_data_are_those_after_a_last_one(build, make_batch):
    algorithm = build()
    assert torch.equal(algorithm.first, (torch.arange(40) % 5 == 0).float())
    batch = make_batch(algorithm.spec)
    batch = batch._replace(number=torch.tensor([[5, 6, 7, 8, 9, 11, 12, 13], [1, 2, 3, 4, 6, 7, 8, 9]]))
    weights, _ = algorithm.nets["mixer"](batch.state)
    value = (weights * algorithm.nets["value"](batch.obs)[..., 0]).sum(-1)
    assert_close(algorithm.first_values(batch), torch.stack([0.01 * value[0, 0], torch.zeros(())]))


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_every_term_of_the_losses_in_its_place(build, make_batch, space):
    algorithm = build(space, normaliser=True, alpha=1.0)
    with torch.no_grad():
        for parameter in [*algorithm.nets["target_critic"].parameters(), *algorithm.nets["target_mixer"].parameters()]:
            parameter += 0.3 * torch.randn_like(parameter)
    batch = make_batch(algorithm.spec)
    residuals, losses = [algorithm.residual(batch, k).detach() for k in (0, 1)], algorithm.losses(batch)
    assert not torch.allclose(*residuals)
    assert_close(losses["critic"], algorithm.critic_loss(batch))
    assert_close(losses["value"], algorithm.value_loss(residuals[0]) + algorithm.first_values(batch))
    assert_close(losses["policy"], algorithm.policy_loss(batch, residuals[1]))
    assert_close(losses["normaliser"], algorithm.normaliser_term(*residuals))
    value = list(algorithm.nets["value"].parameters())
    assert not any(torch.autograd.grad(losses["normaliser"].sum(), value, allow_unused=True))


def test_discrete_policies_clone_the_legal_log_probabilities_by_the_ratio(build, make_batch):
    algorithm = build("discrete")
    batch, residual = make_batch(algorithm.spec), torch.randn(2, 8, 1)
    out = algorithm.nets["policy"](batch.obs)
    assert out.shape[-1] == 4
    odds = out.exp() * batch.legal
    density = (odds.gather(-1, batch.actions[..., None])[..., 0] / odds.sum(-1)).log()
    ratio = torch.where(residual < 0, residual.exp(), residual + 1)
    assert_close(algorithm.policy_loss(batch, residual), -(ratio * density).sum((1, 2)) / 24)


def test_a_discrete_critic_is_asked_for_the_datas_actions(build, make_batch):
    algorithm = build("discrete")
    batch = make_batch(algorithm.spec)
    q = algorithm.nets["critic"](batch.obs)
    for s, b, i in ((0, 0, 0), (1, 3, 2), (1, 7, 1)):
        assert algorithm.values(batch, "critic")[s, b, i] == q[s, b, i, batch.actions[s, b, i]]


def test_critics_learn_the_mixed_multiplier_of_what_follows(build, make_batch, set_value):
    algorithm = build(discount=0.9)
    set_value(algorithm.nets["target_value"], torch.full((1, 1), 2.0))
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    with torch.no_grad():
        weights, bias = nets["target_mixer"](batch.next_state)
        y = batch.rewards.mean(-1) + 0.9 * (1 - batch.done) * (2.0 * weights.sum(-1) + bias)
        weights, bias = nets["mixer"](batch.state)
        q = (weights * nets["critic"](batch.obs, batch.actions)[..., 0]).sum(-1) + bias
    assert_close(algorithm.critic_loss(batch), (q - y).square().mean(1))
    assert_close(algorithm.mean_value(batch), q.mean(1))
