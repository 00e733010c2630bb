import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.macql import MACQL, Config
from offmarl.algorithms.parts.gaussian import tanh_gaussian

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(**over):
        config = Config(**{"hidden": (16, 16), "cql_actions": 4, **over})
        return MACQL(make_spec("continuous", actions=2), config, SEEDS)

    return make


def test_the_conservative_term_is_importance_sampled(build, make_batch, set_value):
    """A constant critic: the soft maximum is the logarithm of the sum of inverse densities, all of which are known."""
    algorithm = build(cql_weight=2.0)
    set_value(algorithm.nets["critic"], torch.full((4, 1), 1.5))
    out = torch.cat([torch.zeros(2, 2), torch.full((2, 2), -5.0)], -1)  # a policy that hardly moves: density at 0
    set_value(algorithm.nets["policy"], out)
    loss = algorithm.losses(make_batch(algorithm.spec, size=512))["conservative"].detach()
    peak = 2 * (5 - 0.5 * math.log(2 * math.pi))  # largest log-density of the policy
    rare = 8 * math.exp(-peak) * 4  # E of the inverse density over eight draws, exp(noise^2 / 2) apart, is not finite
    assert (loss / 4 - math.log(4 * 4)).abs().max() < 0.1 + rare


@pytest.mark.parametrize("mixer", ["by_space", "none"])
def test_td_takes_the_lesser_twin_at_the_policys_next_action(build, make_batch, mixer):
    algorithm = build(mixer=mixer, discount=0.9)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    with torch.no_grad():
        for parameter in nets["target_critic"].parameters():
            parameter.normal_()
        bias = nets["policy"].mlp.layers[-1].bias
        bias[..., 2:] = -1e3  # hardly any deviation
        next_actions = tanh_gaussian(nets["policy"](batch.next_obs)).mode()
        next_q = nets["target_critic"](batch.next_obs, next_actions)[..., 0].amin(1)
        q = nets["critic"](batch.obs, batch.actions)[..., 0]
        rewards = batch.rewards
        if mixer == "by_space":  # continuous: the team's mean
            q, next_q, rewards = q.mean(-1, True), next_q.mean(-1, True), rewards.mean(-1, True)
        y = rewards + 0.9 * (1 - batch.done)[..., None] * next_q
        expected = sum(0.5 * (q[:, k] - y).pow(2).mean((1, 2)) for k in range(2))
    assert_close(algorithm.losses(batch)["critic"].detach(), expected, rtol=0.05, atol=0.02)


def test_the_gap_between_the_datas_actions_and_others_grows(build, make_batch):
    """The data lie near (0.5, 0.5); the critic learns to value other actions less."""

    def gap(weight):
        algorithm = build(cql_weight=weight, learning_rate=3e-3, discount=0.5)
        for draw in range(150):
            batch = make_batch(algorithm.spec, size=32, draw=draw)
            algorithm.update(batch._replace(actions=0.5 + 0.1 * batch.actions))
        batch = make_batch(algorithm.spec, size=64, draw=999)
        with torch.no_grad():
            inside = algorithm.nets["critic"](batch.obs, 0.5 + 0.1 * batch.actions).mean((1, 2, 3, 4))
            outside = algorithm.nets["critic"](batch.obs, -0.5 + 0.1 * batch.actions).mean((1, 2, 3, 4))
        return inside - outside

    without, much = gap(0.0), gap(3.0)
    assert (much > without + 1).all()


def test_the_weight_of_the_entropy_moves_towards_its_target(build, make_batch, set_value):
    """A policy that is too certain raises it, one that is too random lowers it."""
    for log_std, rises in ((-5.0, True), (0.0, False)):
        algorithm = build(learning_rate=1e-2)
        set_value(algorithm.nets["policy"], torch.tensor([0.0, 0.0, log_std, log_std]).expand(2, 4))
        algorithm.update(make_batch(algorithm.spec, size=64))
        assert ((algorithm.nets.get_parameter("temperature.0") > 0) == rises).all()


def test_the_policys_gradient_does_not_reach_the_critic_nor_the_conservative_terms_the_policy(build, make_batch):
    algorithm = build()
    losses = algorithm.losses(make_batch(algorithm.spec))
    critic, policy = (list(algorithm.nets[name].parameters()) for name in ("critic", "policy"))
    for names, nets in ((("policy", "temperature"), critic), (("critic", "conservative"), policy)):
        loss = sum(losses[name].sum() for name in names)
        assert all(g is None for g in torch.autograd.grad(loss, nets, retain_graph=True, allow_unused=True))


def test_the_values_of_the_conservative_term_written_out(build, make_batch):
    """log sum exp(Q - log density) over N uniform actions and N of the policy here and there, each twin for itself."""
    algorithm = build(cql_weight=2.0)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    draws, noise = torch.rand(2, 4, 8, 3, 2), torch.randn(2, 4, 8, 3, 2)
    algorithm.streams.uniform = lambda *shape: draws
    algorithm.streams.normal = lambda *shape: noise if len(shape) == 4 else noise[:, 0]
    expected = torch.zeros(2)
    with torch.no_grad():
        proposals = [(2 * draws[:, n] - 1, torch.full((2, 8, 3), 2 * math.log(0.5))) for n in range(4)]
        for obs in (batch.obs, batch.next_obs):
            proposals += [tanh_gaussian(nets["policy"](obs)).sample(noise[:, n]) for n in range(4)]
        data = nets["critic"](batch.obs, batch.actions)[..., 0]
        for k in range(2):
            odds = [nets["critic"](batch.obs, actions)[:, k, ..., 0] - density for actions, density in proposals]
            expected += 2.0 * (torch.stack(odds).logsumexp(0) - data[:, k]).mean((1, 2))
    assert_close(algorithm.losses(batch)["conservative"].detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("entropy", [True, False])
def test_the_policys_losses_are_those_of_soft_actor_critic(build, make_batch, entropy):
    """alpha E[log pi] - E[min Q], and -log alpha (E[log pi] - A) for a target entropy of -A."""
    algorithm = build(act_entropy=entropy)
    batch, noise = make_batch(algorithm.spec), torch.randn(2, 8, 3, 2)
    algorithm.streams.normal = lambda *shape: noise
    with torch.no_grad():
        policy = tanh_gaussian(algorithm.nets["policy"](batch.obs))
        actions, density = policy.sample(noise)
        q = algorithm.nets["critic"](batch.obs, actions)[..., 0]
        least = torch.minimum(q[:, 0], q[:, 1]).mean((1, 2))
        if entropy:
            algorithm.nets.get_parameter("temperature.0").copy_(torch.tensor([0.5, -1.0]))
    losses = {name: loss.detach() for name, loss in algorithm.policy_losses(batch, policy).items()}
    if entropy:
        log_weight, negative = torch.tensor([0.5, -1.0]), density.mean((1, 2))
        assert_close(losses["policy"], log_weight.exp() * negative - least)
        assert_close(losses["temperature"], -log_weight * (negative - 2))
    else:
        assert list(losses) == ["policy"]
        assert_close(losses["policy"], -least)
    assert torch.equal(algorithm.act(batch.obs)[0], policy.mean.tanh())


def test_the_entropys_weight_is_no_way_for_the_policy_to_gain(build, make_batch):
    algorithm = build()
    losses = algorithm.losses(make_batch(algorithm.spec))
    weight, policy = [algorithm.nets.get_parameter("temperature.0")], list(algorithm.nets["policy"].parameters())
    for name, parameters in (("policy", weight), ("temperature", policy)):
        grads = torch.autograd.grad(losses[name].sum(), parameters, retain_graph=True, allow_unused=True)
        assert all(g is None for g in grads)


def test_the_target_follows_in_every_update(build, make_batch):
    algorithm = build(polyak=0.1, learning_rate=1e-2)
    before = [p.clone() for p in algorithm.nets["target_critic"].parameters()]
    algorithm.update(make_batch(algorithm.spec))
    nets = algorithm.nets["target_critic"].parameters(), algorithm.nets["critic"].parameters()
    for old, new, now in zip(before, *nets):
        assert_close(new, torch.lerp(old, now, 0.1))
