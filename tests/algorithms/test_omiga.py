import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.omiga import BOUND, OMIGA, Config
from offmarl.algorithms.parts.gaussian import tanh_gaussian

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(**over):
        return OMIGA(make_spec("continuous"), Config(**{"hidden": (16, 16), **over}), SEEDS)

    return make


@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 1.0), (10.0, 1.0), (0.5, 2.0)])
def test_the_values_gradient_vanishes_at_the_fixed_point_of_a_bandit(alpha, weight):
    """Two equally frequent actions worth 1 and -0.5: E[exp(z)] = 1 at the soft value."""
    q = torch.tensor([1.0, -0.5], dtype=torch.float64)
    soft = alpha / weight * math.log(sum(math.exp(weight * v / alpha) for v in q.tolist()) / 2)

    def slope(value):
        v = torch.full((1, 2, 1), value, dtype=torch.float64, requires_grad=True)
        residual = weight * (q.view(1, 2, 1) - v) / alpha
        return torch.autograd.grad(OMIGA.value_loss(residual, weight * v / alpha).sum(), v)[0].sum().item()

    assert abs(slope(soft)) < 1e-12
    assert slope(soft - 0.1) < 0 < slope(soft + 0.1)


def test_the_values_loss_does_not_overflow():
    residual = torch.full((2, 4, 3), BOUND, requires_grad=True)
    loss = OMIGA.value_loss(residual, torch.ones(2, 4, 3))
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), residual)[0].isfinite().all()


def test_weights_respect_the_clip(build, make_batch):
    algorithm = build(max_weight=5.0)
    batch = make_batch(algorithm.spec)
    one, clipped, free = (
        algorithm.policy_loss(batch, torch.full((2, 8, 3), z)).detach() for z in (0.0, 7.0, math.log(3.0))
    )
    assert_close(clipped, 5.0 * one)
    assert_close(free, 3.0 * one)


@pytest.mark.parametrize(("variant", "edge"), [("paper", 0.99), ("released", 1 - 1e-7)])
def test_the_policy_clones_actions_at_the_bounds_as_far_as_its_edge(build, make_batch, variant, edge):
    """For a normal of mean 0 and deviation 1 in one dimension: -log N(atanh(e)) + log(1 - e^2)."""
    algorithm = build(**{k: v for k, v in OMIGA.variants.get(variant, {}).items() if k == "edge"})
    batch = make_batch(algorithm.spec)
    batch = batch._replace(actions=batch.actions.sign())
    algorithm.nets["policy"].forward = lambda obs: torch.zeros(*obs.shape[:-1], 8)
    x = math.atanh(float(torch.tensor(edge)))  # in single precision, like the data
    expected = 4 * (0.5 * x**2 + 0.5 * math.log(2 * math.pi) + math.log(1 - math.tanh(x) ** 2))
    found = algorithm.policy_loss(batch, torch.zeros(2, 8, 3))
    assert_close(found, torch.full((2,), expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("edge", [0.0, 1.0, 1.5, -0.5, math.nan])
def test_an_edge_outside_the_actions_is_refused(edge):
    with pytest.raises(ValueError, match="edge="):
        Config(edge=edge)


def test_residuals_are_bounded(build, make_batch, set_value):
    algorithm = build(alpha=1e-3, max_weight=1e9)
    set_value(algorithm.nets["target_critic"], torch.full((4, 1), 100.0))
    batch, seen = make_batch(algorithm.spec), []
    algorithm.policy_loss = lambda batch, residual: seen.append(residual) or torch.zeros(2)
    algorithm.losses(batch)
    assert seen[0].max() == BOUND


@pytest.mark.parametrize("twin", [True, False])
def test_critics_learn_the_mixed_value_of_what_follows(build, make_batch, twin):
    algorithm = build(twin=twin, discount=0.9)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    with torch.no_grad():
        for name in ("target_value", "target_mixer"):
            for parameter in nets[name].parameters():
                parameter.normal_()
        weights, bias = nets["target_mixer"](batch.next_state)
        following = (weights * nets["target_value"](batch.next_obs)[..., 0]).sum(-1) + bias
        y = batch.rewards.mean(-1) + 0.9 * (1 - batch.done) * following
        weights, bias = nets["mixer"](batch.state)
        q = nets["critic"](batch.obs, batch.actions)[..., 0]
        errors = [((weights * q[:, k]).sum(-1) + bias - y).pow(2).mean(1) for k in range(2)]
    assert_close(algorithm.losses(batch)["critic"].detach(), errors[0] + errors[1] if twin else errors[0])


def test_gradients_are_clipped(build, make_batch):
    algorithm = build()
    algorithm.update(make_batch(algorithm.spec)._replace(rewards=torch.full((2, 8, 3), 1e4)))
    for name, net in algorithm.nets.items():
        squares = [
            p.grad.unflatten(0, (2, -1)).flatten(1).pow(2).sum(1) for p in net.parameters() if p.grad is not None
        ]
        assert not squares or torch.stack(squares).sum(0).sqrt().max() <= 1 + 1e-4, name


@pytest.mark.parametrize("twin", [True, False])
def test_the_residual_is_the_weighted_advantage_over_alpha(build, make_batch, twin):
    """z = w (Q - V) / alpha with the lesser target critic and the target mixer's weights (Eq. 11)."""
    algorithm = build(alpha=2.0, twin=twin)
    batch, nets, seen = make_batch(algorithm.spec), algorithm.nets, {}
    with torch.no_grad():
        for name in ("target_critic", "target_mixer", "mixer"):
            for parameter in nets[name].parameters():
                parameter.copy_(0.4 * torch.randn_like(parameter))
        weights, _ = nets["target_mixer"](batch.state)
        q = nets["target_critic"](batch.obs, batch.actions)[..., 0]
        q = torch.minimum(q[:, 0], q[:, 1]) if twin else q[:, 0]
        v = nets["value"](batch.obs)[..., 0]
    algorithm.value_loss = lambda residual, value: seen.update(value=(residual, value)) or torch.zeros(2)
    algorithm.policy_loss = lambda batch, residual: seen.update(policy=residual) or torch.zeros(2)
    algorithm.losses(batch)
    residual, value = seen["value"]
    expected = (weights * (q - v) / 2).clamp(-BOUND, BOUND)
    assert expected.abs().min() < BOUND and residual.requires_grad and value.requires_grad
    assert_close(residual.detach(), expected)
    assert_close(value.detach(), weights * v / 2)
    assert torch.equal(seen["policy"], residual) and not seen["policy"].requires_grad


@pytest.mark.parametrize(("shift", "scale"), [(0.0, None), (-8.0, math.e)])
def test_the_values_loss_is_eq_12_up_to_its_scale(shift, scale):
    """E[exp(z) + w V / alpha] times exp(-max z) of each seed, by e at most."""
    residual, value = 2 * torch.rand(2, 4, 3) + shift, torch.randn(2, 4, 3)
    factor = torch.full((2,), scale) if scale else (-residual.amax((1, 2))).exp()
    assert_close(OMIGA.value_loss(residual, value), factor * (residual.exp() + value).mean((1, 2)))


def test_the_policy_clones_by_the_weights_of_each_sample(build, make_batch):
    algorithm = build()
    batch, residual = make_batch(algorithm.spec), torch.randn(2, 8, 3)
    policy = tanh_gaussian(algorithm.nets["policy"](batch.obs))
    expected = -(residual.exp() * policy.log_density(batch.actions, 0.99)).mean((1, 2))
    assert_close(algorithm.policy_loss(batch, residual), expected)
    assert torch.equal(algorithm.act(batch.obs)[0], policy.mean.tanh())


def test_the_teams_value_is_mixed_from_the_twins_mean(build, make_batch):
    algorithm = build()
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    with torch.no_grad():
        weights, bias = nets["mixer"](batch.state)
        q = nets["critic"](batch.obs, batch.actions)[..., 0].mean(1)
        expected = ((weights * q).sum(-1) + bias).mean(1)
    assert_close(algorithm.mean_value(batch), expected)


def test_the_value_is_one_normalised_network_of_the_observation(build):
    nets = build().nets
    assert nets["value"].mlp.norms is not None and nets["critic"].mlp.norms is not None
    assert nets["value"](torch.randn(2, 8, 3, 5)).shape == (2, 8, 3, 1)
