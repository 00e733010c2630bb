import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.omar import OMAR, Config, best_of

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(**over):
        return OMAR(make_spec("continuous", actions=2), Config(**{"hidden": (16, 16), **over}), SEEDS)

    return make


@pytest.mark.parametrize("how", ["elites", "softmax"])
def test_the_searchs_action_is_never_worse_than_the_policys(build, make_batch, how):
    algorithm = build(search=how)
    obs = make_batch(algorithm.spec, size=128).obs
    with torch.no_grad():
        for parameter in algorithm.nets["critic"].mlp.layers[-1].parameters():
            parameter.mul_(5)
        actions = algorithm.nets["policy"](obs).tanh()
        found = algorithm.search(obs, actions)
        own, best = (algorithm.nets["critic"](obs, a)[:, 0, ..., 0] for a in (actions, found))
    assert (best >= own - 1e-6).all() and (best > own).float().mean() > 0.5
    assert found.abs().max() <= 1


@pytest.mark.parametrize("how", ["elites", "softmax"])
def test_the_search_finds_the_top_of_a_hill(build, how):
    """A critic that is known: Q = -|a - (0.4, -0.7)|^2."""
    algorithm = build(search=how, search_steps=8, search_actions=40, search_elites=8)
    top = torch.tensor([0.4, -0.7])
    algorithm.each = lambda obs, actions: -20 * (actions - top).pow(2).sum(-1)[:, None].expand(-1, 2, -1, -1, -1)
    algorithm.nets["critic"].forward = lambda obs, a: (
        -20 * (a - top).pow(2).sum(-1)[:, None, ..., None].expand(-1, 2, -1, -1, 1)
    )
    found = algorithm.search(torch.zeros(2, 5, 3, 5), torch.zeros(2, 5, 3, 2))
    assert (found - top).abs().mean() < 0.1 and (found - top).abs().max() < 0.5  # random actions: 0.7 on average


def test_the_best_are_the_best():
    actions, q = torch.randn(2, 6, 4, 3, 2), torch.randn(2, 6, 4, 3)
    kept, values = best_of(actions, q, 2)
    for s in range(2):
        for b in range(4):
            for i in range(3):
                order = q[s, :, b, i].argsort(descending=True)[:2]
                assert torch.equal(kept[s, :, b, i], actions[s, order, b, i])
                assert torch.equal(values[s, :, b, i], q[s, order, b, i])


@pytest.mark.parametrize("policy", [False, True])
def test_the_conservative_term_is_importance_sampled(build, make_batch, set_value, policy):
    """A constant critic: logsumexp over N proposals of minus their log-densities."""
    algorithm = build(cql_actions=4, cql_policy=policy, cql_weight=2.0)
    set_value(algorithm.nets["critic"], 1.5)
    batch, seen = make_batch(algorithm.spec), []
    propose = algorithm.propose
    algorithm.propose = lambda batch: seen.append(propose(batch)) or seen[0]
    loss = algorithm.losses(batch)["conservative"].detach()
    actions, density = seen[0]
    assert actions.shape == (2, 12 if policy else 4, 8, 3, 2) and actions.abs().max() <= 1
    assert_close(density[:, :4], torch.full_like(density[:, :4], -2 * math.log(2)))
    assert_close(loss, 2 * 2 * (-density).logsumexp(1).mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_the_coefficient_chooses_between_imitation_and_the_critic(build, make_batch):
    for coefficient, silent in ((1.0, "q"), (0.0, "imitation")):
        algorithm = build(coefficient=coefficient)
        assert (algorithm.losses(make_batch(algorithm.spec))[silent] == 0).all()


def test_td_learns_from_every_agents_own_reward_and_the_target_policy(build, make_batch):
    algorithm = build(discount=0.9)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    with torch.no_grad():
        for name in ("target_critic", "target_policy"):
            for parameter in nets[name].parameters():
                parameter.normal_()
        next_q = nets["target_critic"](batch.next_obs, nets["target_policy"](batch.next_obs).tanh())[..., 0].amin(1)
        y = batch.rewards + 0.9 * (1 - batch.done)[..., None] * next_q
        q = nets["critic"](batch.obs, batch.actions)[..., 0]
    expected = sum((q[:, k] - y).pow(2).mean((1, 2)) for k in range(2))
    assert_close(algorithm.losses(batch)["critic"].detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_imitated_action_is_the_best_of_the_elites_too(build, make_batch):
    """An elite of an early iteration may be better than every later sample."""
    algorithm = build(search_steps=3, search_actions=4, search_elites=4)
    obs = make_batch(algorithm.spec, size=64).obs
    with torch.no_grad():
        for parameter in algorithm.nets["critic"].mlp.layers[-1].parameters():
            parameter.mul_(50)  # a rugged hill
        actions, seen, values = algorithm.nets["policy"](obs).tanh(), [], algorithm.values

        def watch(obs, samples):
            seen.append(values(obs, samples))
            return seen[-1]

        algorithm.values = watch
        found = values(obs, algorithm.search(obs, actions)[:, None])[:, 0, 0]
        own = values(obs, actions[:, None])[:, 0]
    best = torch.cat([*(q[:, 0] for q in seen), own], 1).amax(1)
    assert len(seen) == 3 and (seen[-1][:, 0].amax(1) < best).any()
    assert_close(found, best, rtol=1e-5, atol=1e-5)


def test_the_softmax_searchs_deviation_weighs_every_sample_alike(build):
    """Two iterations: the second draws around the softmax mean, with the plain deviation from it (OMAR's code)."""
    algorithm = build(search="softmax", search_steps=2, search_actions=3)
    drawn, scored = [], []
    normal = algorithm.streams.normal
    algorithm.streams.normal = lambda *shape: drawn.append(0.1 * normal(*shape)) or drawn[-1]  # within the bounds
    algorithm.values = lambda obs, a: scored.append(a) or 3 * a.sum(-1)[:, None].expand(-1, 2, -1, -1, -1)
    algorithm.search(torch.zeros(2, 5, 3, 5), torch.zeros(2, 5, 3, 2))
    first, second = scored
    assert_close(first, 2.0 * drawn[0])  # around zero, with the deviation of the first iteration
    mean = ((3 * first.sum(-1)).softmax(1)[..., None] * first).sum(1, keepdim=True)
    deviation = (first - mean).square().mean(1, keepdim=True).sqrt()
    assert_close(second, (mean + deviation * drawn[1]).clamp(-1, 1))


def test_the_policys_losses_written_out(build, make_batch):
    """c |a - a*|^2 - (1 - c) Q_1(a), and a penalty on |a|^2; means over agents and coordinates."""
    algorithm = build(coefficient=0.7, penalty=0.01)
    batch = make_batch(algorithm.spec)
    best = torch.rand_like(batch.actions)
    algorithm.search = lambda obs, actions: best
    with torch.no_grad():
        actions = algorithm.nets["policy"](batch.obs).tanh()
        value = algorithm.nets["critic"](batch.obs, actions)[:, 0]
    losses = algorithm.policy_losses(batch)
    assert_close(losses["imitation"].detach(), 0.7 * (actions - best).pow(2).mean((1, 2, 3)))
    assert_close(losses["q"].detach(), -0.3 * value.mean((1, 2, 3)))
    assert_close(losses["penalty"].detach(), 0.01 * actions.pow(2).mean((1, 2, 3)))
    assert torch.equal(algorithm.act(batch.obs)[0], actions)


def test_the_search_starts_from_what_the_policy_does_and_learns_from_a_copy(build, make_batch):
    algorithm, seen = build(), []
    batch = make_batch(algorithm.spec)
    algorithm.search = lambda obs, actions: seen.append((obs, actions)) or actions
    algorithm.policy_losses(batch)
    obs, actions = seen[0]
    assert torch.equal(obs, batch.obs) and torch.equal(actions, algorithm.act(obs)[0]) and not actions.requires_grad


def test_the_conservative_term_compares_each_twin_with_itself(build, make_batch):
    """log sum exp(Q - log density) over the proposals, less Q of the data: both twins in sum, means over agents."""
    algorithm = build(cql_actions=4, cql_policy=True, cql_weight=2.0)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    proposed, density = algorithm.propose(batch)
    algorithm.propose = lambda batch: (proposed, density)
    expected = torch.zeros(2)
    with torch.no_grad():
        data = nets["critic"](batch.obs, batch.actions)[..., 0]
        for k in range(2):
            q = torch.stack([nets["critic"](batch.obs, proposed[:, n])[:, k, ..., 0] for n in range(12)], 1)
            expected += 2.0 * ((q - density).logsumexp(1) - data[:, k]).mean((1, 2))
    assert_close(algorithm.losses(batch)["conservative"].detach(), expected)


def test_proposals_are_uniform_and_around_the_policy_with_their_densities(build, make_batch):
    algorithm = build(cql_actions=200, cql_policy=True, cql_deviation=0.3)
    batch, noise, draws = make_batch(algorithm.spec), torch.randn(2, 200, 8, 3, 2), torch.rand(2, 200, 8, 3, 2)
    algorithm.streams.normal, algorithm.streams.uniform = lambda *shape: noise, lambda *shape: draws
    actions, density = (part.detach().split(200, 1) for part in algorithm.propose(batch))
    assert_close(actions[0], 2 * draws - 1)
    assert_close(density[0], torch.full_like(density[0], 2 * math.log(0.5)))
    for obs, near, log_density in zip((batch.obs, batch.next_obs), actions[1:], density[1:]):
        centre = algorithm.act(obs)[0][:, None]
        assert_close(near, (centre + 0.3 * noise).clamp(-1, 1))
        law = torch.distributions.Normal(torch.zeros(()), 0.3)
        assert_close(log_density, law.log_prob(0.3 * noise).sum(-1), rtol=1e-4, atol=1e-4)


def test_the_cross_entropy_method_draws_around_its_elites(build):
    """First around zero with the given deviation, then with the elites' mean and deviation; elites are kept."""
    algorithm = build(search_steps=3, search_actions=4, search_elites=3, search_deviation=0.5)
    drawn, scored = [], []
    normal = algorithm.streams.normal
    algorithm.streams.normal = lambda *shape: drawn.append(0.3 * normal(*shape)) or drawn[-1]  # within the bounds
    algorithm.values = lambda obs, a: scored.append(a) or a.sum(-1)[:, None].expand(-1, 2, -1, -1, -1)
    algorithm.search(torch.zeros(2, 5, 3, 5), torch.full((2, 5, 3, 2), 0.9))
    pool, mean, deviation = torch.zeros(2, 0, 5, 3, 2), torch.zeros(2, 1, 5, 3, 2), torch.full((2, 1, 5, 3, 2), 0.5)
    for noise, samples in zip(drawn, scored, strict=True):
        assert_close(samples, (mean + deviation * noise).clamp(-1, 1))
        pool = torch.cat([pool, samples], 1)
        order = pool.sum(-1).argsort(1, descending=True)[:, :3, ..., None].expand(-1, -1, -1, -1, 2)
        pool = pool.gather(1, order)
        mean, deviation = pool.mean(1, keepdim=True), pool.var(1, correction=0, keepdim=True).sqrt()
