import math
from contextlib import nullcontext

import pytest
import torch
from torch.distributions import Categorical, Normal, TanhTransform, TransformedDistribution
from torch.testing import assert_close

from offmarl.algorithms.cfcql import CFCQL, SMOOTH, Config

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(space="discrete", agents=3, **over):
        config = Config(**{"hidden": (16, 16), "cql_actions": 4, **over})
        return CFCQL(make_spec(space, agents=agents, actions=4 if space == "discrete" else 2), config, SEEDS)

    return make


def add_up(algorithm):
    """A team's value is the sum of its agents': easy to write out."""
    for name in ("mixer", "target_mixer"):
        algorithm.nets[name].forward = lambda values, state: values.sum(-1, keepdim=True)
    return algorithm


def probabilities(scores, legal):
    return scores.masked_fill(~legal, -torch.inf).softmax(-1)


@pytest.mark.parametrize("agents", [1, 2, 5])
def test_the_penalty_of_equal_values_does_not_grow_with_the_team(build, make_batch, set_value, agents):
    """log A for any number of agents, where all joint actions have A^I."""
    algorithm = build(agents=agents, cql_weight=2.0)
    set_value(algorithm.nets["critic"], torch.zeros(4, 4))
    batch = make_batch(algorithm.spec)._replace(legal=None)
    assert_close(algorithm.losses(batch)["conservative"].detach(), torch.full((2,), 2 * 2 * math.log(4)))


@pytest.mark.parametrize("weights", ["equal", "divergence"])
def test_the_discrete_losses_written_out(build, make_batch, weights):
    algorithm = build(weights=weights, cql_weight=2.0, discount=0.9, temperature=3.0)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    with torch.no_grad():
        for parameter in (
            *nets["target_critic"].parameters(),
            *nets["behaviour" if "behaviour" in nets else "mixer"].parameters(),
        ):
            parameter.normal_()
        q, next_q = nets["critic"](batch.obs), nets["critic"](batch.next_obs)
        pick = lambda values, actions: values.gather(-1, actions[:, None, ..., None].expand(-1, 2, -1, -1, -1))[..., 0]  # noqa: E731
        data = nets["mixer"](pick(q, batch.actions), batch.state)[..., 0]  # [S, 2, B]
        selected = next_q.mean(1).masked_fill(~batch.next_legal, -1e9).argmax(-1)
        target = nets["target_mixer"](pick(nets["target_critic"](batch.next_obs), selected), batch.next_state)
        y = batch.rewards.mean(-1) + 0.9 * (1 - batch.done) * target[..., 0].amin(1)
        values = torch.empty(2, 2, 8, 3, 4)
        for i in range(3):
            for a in range(4):
                actions = batch.actions.clone()
                actions[..., i] = a
                values[:, :, :, i, a] = nets["mixer"](pick(q, actions), batch.state)[..., 0]
        values = values.masked_fill(~batch.legal[:, None], -torch.inf)
        shares = torch.full((2, 2, 8, 3), 1 / 3)
        if weights == "divergence":
            own, beta = values.softmax(-1), probabilities(nets["behaviour"](batch.obs), batch.legal)[:, None]
            shares = (3 * ((own + SMOOTH) * ((own + SMOOTH) / (beta + SMOOTH)).log()).sum(-1)).softmax(-1)
        penalty = (shares * values.logsumexp(-1)).sum(-1) - data
    losses = algorithm.losses(batch)
    assert_close(losses["critic"].detach(), 0.5 * (data - y[:, None]).square().mean(2).sum(1))
    assert_close(losses["conservative"].detach(), 2 * penalty.mean(2).sum(1))
    assert losses.keys() == {"critic", "conservative", *(["cloning"] if weights == "divergence" else [])}


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_behaviour_is_cloned_by_the_likelihood_of_the_datas_actions(build, make_batch, space):
    """In the discrete case among legal ones, otherwise of actions that are moved off the edges."""
    algorithm = build(space, weights="divergence")
    batch, behaviour = make_batch(algorithm.spec), algorithm.nets["behaviour"]
    with torch.no_grad():
        for parameter in behaviour.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    if space == "discrete":
        law = Categorical(logits=behaviour(batch.obs).masked_fill(~batch.legal, -torch.inf))
        density = law.log_prob(batch.actions)
    else:
        batch.actions[0, 0, 0, 0], batch.actions[1, 2, 1, 1] = 1.0, -1.0
        mean, log_std = behaviour(batch.obs).split(2, -1)
        law = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
        density = law.log_prob(batch.actions.clip(-0.99, 0.99)).sum(-1)
    expected = -torch.stack([one.mean() for one in density])
    losses = algorithm.losses(batch)
    assert_close(losses["cloning"], expected)
    weights = list(behaviour.parameters())
    slopes, right = (torch.autograd.grad(loss.sum(), weights) for loss in (losses["cloning"], expected))
    assert_close(slopes, right)


def test_an_agent_leaves_the_data_alone(build, make_batch):
    """No gradient reaches a value of an agent outside the data from the soft maximum of another one."""
    algorithm = build()
    batch = make_batch(algorithm.spec)
    q = torch.randn(2, 2, 8, 3, 4, requires_grad=True)
    index = batch.actions[:, None, ..., None].expand(-1, 2, -1, -1, -1)
    values = algorithm.counterfactual(q, q.gather(-1, index)[..., 0], batch.state)
    (slope,) = torch.autograd.grad(values[..., 0, :].logsumexp(-1).sum(), q)
    outside = torch.ones_like(q, dtype=torch.bool).scatter(-1, index, False)
    assert (slope[..., 1:, :][outside[..., 1:, :]] == 0).all() and (slope[..., 0, :] != 0).all()


@pytest.mark.parametrize(("temperature", "expected"), [(0.0, [1 / 3, 1 / 3, 1 / 3]), (1e4, [0.0, 1.0, 0.0])])
def test_weights_are_equal_without_temperature_and_all_the_strangest_agents_with_a_large_one(
    build, make_batch, set_value, temperature, expected
):
    algorithm = build(temperature=temperature)
    set_value(algorithm.nets["behaviour"], torch.zeros(2, 4))
    batch = make_batch(algorithm.spec)._replace(legal=None)
    values = torch.zeros(2, 2, 8, 3, 4)
    values[..., 1, 0] = 5.0  # agent 1 prefers an action, and the behaviour none
    assert_close(algorithm.weights(batch, values), torch.tensor(expected).expand(2, 2, 8, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_behaviour_learns_from_the_data_alone_and_weighs_without_a_gradient(build, make_batch, space):
    algorithm = build(space, weights="divergence")
    losses = algorithm.losses(make_batch(algorithm.spec))
    losses.pop("cloning").sum().backward(retain_graph=True)
    assert {n for n, net in algorithm.nets.items() if any(p.grad is not None for p in net.parameters())} == {
        "behaviour"
    }
    clone = list(algorithm.nets["behaviour"].parameters())
    assert not any(torch.autograd.grad(sum(losses.values()).sum(), clone, allow_unused=True))


def test_one_agent_without_a_mixer_has_cqls_penalty_over_legal_actions(build, make_batch):
    algorithm = add_up(build(agents=1))
    batch = make_batch(algorithm.spec)
    q = algorithm.nets["critic"](batch.obs)
    best = q.masked_fill(~batch.legal[:, None], -torch.inf).logsumexp(-1)
    data = q.gather(-1, batch.actions[:, None, ..., None].expand(-1, 2, -1, -1, -1))[..., 0]
    assert_close(algorithm.losses(batch)["conservative"], (best - data).mean((2, 3)).sum(1))


@pytest.mark.parametrize("policy", [False, True])
@pytest.mark.parametrize("weights", ["by_space", "divergence"])
def test_the_continuous_losses_written_out(build, make_batch, policy, weights):
    algorithm = build("continuous", cql_policy=policy, cql_weight=2.0, discount=0.9, weights=weights)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    draws, noise = torch.rand(2, 4, 8, 3, 2), torch.randn(2, 4, 8, 3, 2)
    algorithm.streams.uniform = lambda *shape: draws
    algorithm.streams.normal = lambda *shape: noise if len(shape) == 4 else noise[:, 0]
    with torch.no_grad():
        for name in ("target_critic", "target_policy", "policy"):
            for parameter in nets[name].parameters():
                parameter.normal_()
        value = lambda net, obs, actions: nets[net](obs, actions)[..., 0, 0]  # noqa: E731
        proposals = [(2 * draws[:, n] - 1, torch.tensor(-2 * math.log(2))) for n in range(4)]
        for obs in (batch.obs, batch.next_obs) if policy else ():
            mode = nets["policy"](obs).tanh()
            for n in range(4):
                density = (-0.5 * noise[:, n] ** 2 - math.log(0.2) - 0.5 * math.log(2 * math.pi)).sum(-1)
                proposals.append(((mode + 0.2 * noise[:, n]).clamp(-1, 1), density))
        soft = []
        for i in range(3):
            odds = []
            for actions, density in proposals:
                joint = batch.actions.clone()
                joint[:, :, i] = actions[:, :, i]
                odds.append(value("critic", batch.obs, joint) - density.expand(2, 8, 3)[:, None, :, i])
            soft.append(torch.stack(odds).logsumexp(0))
        shares = torch.full((2, 1, 8, 3), 1 / 3)
        if weights == "divergence":
            from offmarl.algorithms.parts.gaussian import tanh_gaussian

            far = -tanh_gaussian(nets["behaviour"](batch.obs)).log_density(nets["policy"](batch.obs).tanh(), 0.99)
            shares = (0.5 * far).softmax(-1)[:, None]
        data = value("critic", batch.obs, batch.actions)
        penalty = (shares * torch.stack(soft, -1)).sum(-1) - data
        following = (nets["target_policy"](batch.next_obs).tanh() + 0.05 * noise[:, 0]).clamp(-1, 1)
        y = batch.rewards.mean(-1) + 0.9 * (1 - batch.done) * value("target_critic", batch.next_obs, following).amin(1)
    losses = algorithm.losses(batch)
    assert_close(losses["conservative"].detach(), 2 * penalty.mean(2).sum(1), rtol=1e-4, atol=1e-4)
    assert_close(losses["critic"].detach(), 0.5 * (data - y[:, None]).square().mean(2).sum(1), rtol=1e-4, atol=1e-4)


def test_the_policy_maximises_the_first_critic_among_the_datas_teammates(build, make_batch):
    algorithm = build("continuous")
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    actions = nets["policy"](batch.obs).tanh()
    expected = 0.0
    for i in range(3):
        joint = batch.actions.clone()
        joint[:, :, i] = actions[:, :, i]
        expected -= nets["critic"](batch.obs, joint)[:, 0].mean((1, 2, 3)) / 3
    losses = algorithm.policy_losses(batch)
    assert_close(losses["policy"], expected)
    assert_close(losses["penalty"], 1e-3 * actions.square().mean((1, 3)).sum(1))
    sum(losses.values()).sum().backward()
    assert {n for n, net in nets.items() if any(p.grad is not None for p in net.parameters())} == {"policy"}


def test_the_targets_are_copied_now_and_then_or_follow(build, make_batch):
    discrete, continuous = build(target_period=2, learning_rate=1e-2), build("continuous", polyak=0.1)
    for algorithm, follows in ((discrete, [False, True]), (continuous, [False, False])):
        names = [name for name in algorithm.nets if name.startswith("target_")]
        assert set(names) == {"target_critic", "target_mixer" if algorithm is discrete else "target_policy"}
        before = [p.clone() for name in names for p in algorithm.nets[name].parameters()]
        for same in follows:
            algorithm.update(make_batch(algorithm.spec))
            now = [p for name in names for p in algorithm.nets[name].parameters()]
            own = [p for name in names for p in algorithm.nets[name.removeprefix("target_")].parameters()]
            assert all(map(torch.equal, now, own)) == same
        assert not all(map(torch.equal, before, now))


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_mean_value_is_the_teams(build, make_batch, space):
    algorithm = build(space)
    batch = make_batch(algorithm.spec)
    values = algorithm.discrete_values(batch) if space == "discrete" else algorithm.continuous_values(batch)
    assert_close(algorithm.mean_value(batch), values[0].mean((1, 2)))


@pytest.mark.parametrize("explores", [True, False])
def test_agents_take_the_legal_action_of_highest_mean_value_and_explore_by_the_values_softmax(
    build, set_value, explores
):
    algorithm, count = build(), 5000
    twins = torch.tensor([[3.0, 0.5, 1.0, 7.0], [-2.0, 0.1, 1.0, 5.0]])  # together the third's is best, but for illegal
    set_value(algorithm.nets["critic"], twins.repeat(2, 1))
    legal = torch.tensor([True, True, True, False]).expand(2, count, 3, 4)
    with algorithm.exploring(algorithm.streams) if explores else nullcontext():
        actions, memory = algorithm.act(torch.randn(2, count, 3, 5), legal)
    assert memory is None
    odds = [math.exp(0.5), math.exp(0.3), math.exp(1.0), 0.0] if explores else [0.0, 0.0, 1.0, 0.0]
    shares = torch.nn.functional.one_hot(actions, 4).float().mean(1)  # of every agent of every seed
    expected = torch.tensor([o / sum(odds) for o in odds]).expand(2, 3, 4)
    assert_close(shares, expected, rtol=0, atol=0.03 if explores else 0)  # over four deviations
