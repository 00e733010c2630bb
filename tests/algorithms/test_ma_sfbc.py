import copy
import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms import ma_sfbc
from offmarl.algorithms.ma_sfbc import Config, MASfBC, gumbel
from offmarl.algorithms.parts.batch import Batch, TaskSpec
from offmarl.experiments.training.curve import discounted_return

TINY = {
    "hidden": (16, 16),
    "widths": (16, 8, 8),
    "solver_calls": 3,
    "candidates": 4,
    "plan_candidates": 2,
}


@pytest.fixture
def data(make_spec, make_data):
    return make_data(make_spec("continuous"))


@pytest.fixture
def build(make_spec, data):
    def make(seeds=(3, 5), data=data, **over):
        algorithm = MASfBC(make_spec("continuous"), Config(**TINY | over), seeds)
        algorithm.prepare(data)
        return algorithm

    return make


def count(module):
    return sum(p.numel() for p in module.parameters())


def value(obs, actions):
    """A critic that is known; no two corners of the box are worth the same."""
    return actions @ torch.tensor([[1.0], [-0.5], [0.3], [0.1]])


def test_the_score_network_is_as_large_as_the_official_one():
    """Counted by hand from the official layers for 17 observations and 6 actions (halfcheetah)."""
    one, two = (MASfBC(TaskSpec(agents, 17, 1, 6, False), Config(), [0]).nets["score"] for agents in (1, 2))
    assert count(one) == 1_634_278 and count(two) == 2 * count(one)


def test_an_agents_score_network_gives_the_same_alone(build):
    together = build().nets["score"]
    alone = MASfBC(TaskSpec(1, 5, 7, 4, False), Config(**TINY), (3, 5)).nets["score"]
    obs, noisy, time = torch.randn(2, 6, 3, 5), torch.randn(2, 6, 3, 4), torch.rand(2, 6, 3)
    out = together(obs, noisy, time)
    for i in range(3):
        alone.load_state_dict({n: v.unflatten(0, (2, 3))[:, i] for n, v in together.state_dict().items()})
        assert_close(alone(*(x[:, :, i : i + 1] for x in (obs, noisy, time)))[:, :, 0], out[:, :, i])


@pytest.mark.parametrize("share", [True, False])
def test_candidates_share_what_is_made_of_their_observation(build, share):
    net = build(share_parameters=share).nets["score"]
    obs, noisy, time = torch.randn(2, 6, 3, 5), torch.randn(2, 24, 3, 4), torch.rand(2, 6, 3)
    assert_close(net(obs, noisy, time), net(*(x.repeat_interleave(k, 1) for x, k in ((obs, 4), (noisy, 1), (time, 4)))))


def test_the_loss_is_the_squared_error_of_the_noise_summed_over_coordinates(build, make_batch):
    algorithm = build()
    algorithm.nets["score"].forward = lambda obs, noisy, time: torch.zeros_like(noisy)
    loss = algorithm.score_loss(make_batch(algorithm.spec, size=2000))
    assert_close(loss, torch.full((2,), float(algorithm.spec.actions)), rtol=0.05, atol=0)


def test_the_score_network_recovers_two_modes_and_their_shares():
    """70 % of the data near 0.7, 30 % near -0.7."""
    updates, config = 1500, {"widths": (32, 32, 16), "hidden": (8,), "candidates": 1, "learning_rate": 5e-3}
    algorithm = MASfBC(TaskSpec(1, 1, 1, 1, False), Config(decay_steps=updates, **config), [0])
    algorithm.targets = torch.zeros(1, 1, 1)
    g = torch.Generator().manual_seed(0)
    zero = torch.zeros(1, 256, 1, 1)
    known = (zero[..., 0], zero, zero[..., 0, 0], None, None, zero, zero, zero, torch.zeros(1, 256, dtype=torch.int64))
    for _ in range(updates):
        high = torch.rand(1, 256, 1, 1, generator=g) < 0.7
        actions = torch.where(high, 0.7, -0.7) + 0.05 * torch.randn(1, 256, 1, 1, generator=g)
        algorithm.update(Batch(zero, actions, *known))
    ends = algorithm.act(torch.zeros(1, 4000, 1, 1))[0].flatten()
    shares = [((ends - centre).abs() < 0.25).float().mean().item() for centre in (0.7, -0.7)]
    assert shares == [pytest.approx(0.7, rel=0.15), pytest.approx(0.3, rel=0.15)]


def test_the_first_targets_are_the_datas_returns_and_targets_are_normalised(build, data):
    algorithm = build(discount=0.9)
    total = torch.zeros_like(data.rewards)
    for k in reversed(range(len(total))):
        total[k] = data.rewards[k] + (0 if data.last[k] else 0.9 * total[k + 1])
    assert_close(algorithm.targets, ((total - total.mean(0)) / total.std(0, correction=0)).expand(2, -1, -1))
    for plan in (False, True):
        if plan:
            algorithm.plan()
        assert_close(algorithm.targets.mean(1), torch.zeros(2, 3), atol=1e-5, rtol=0)
        assert_close(algorithm.targets.std(1, correction=0), torch.ones(2, 3))


def test_its_values_are_compared_with_returns_that_end_at_the_clock(build, data):
    """Elsewhere what follows a time-out has the mean value of the data's states, and these returns are lower."""
    cut = data._replace(done=0 * data.done)
    prepared = build().prepare(cut)
    assert torch.equal(prepared.done.bool(), data.last)
    total = torch.zeros_like(data.rewards)
    for k in reversed(range(len(total))):
        total[k] = data.rewards[k] + (0 if data.last[k] else 0.9 * total[k + 1])
    assert discounted_return(prepared, 0.9) == pytest.approx(float(total.mean()), rel=1e-5)
    assert discounted_return(cut, 0.9) != pytest.approx(float(total.mean()), rel=0.1)


def test_returns_that_hardly_differ_are_not_blown_up(build, data):
    algorithm = build(data=data._replace(rewards=1e-3 * data.rewards))
    assert algorithm.targets.abs().max() < 0.1
    assert (build(data=data._replace(rewards=0 * data.rewards)).targets == 0).all()


def test_planning_is_the_recursion_of_the_paper(build, data, monkeypatch):
    """One state and one transition at a time, from the same noise."""
    monkeypatch.setattr(ma_sfbc, "PLANNED_ROWS", 21)  # seven states at once, so the last lot is smaller
    algorithm = build(discount=0.9, plan_candidates=3)
    drawn, (mean, std), count = algorithm.streams.state_dict(), map(torch.clone, algorithm.scale), len(data.rows)
    algorithm.plan()
    algorithm.streams.load_state_dict(drawn)
    noise = torch.cat([algorithm.streams.normal(len(lot), 3, 3, 4) for lot in data.rows.split(7)], 1)
    values = torch.zeros(2, count, 3)
    for k, row in enumerate(data.rows):
        with torch.no_grad():
            _, q = algorithm.propose(data.obs[row].expand(2, 1, 3, 5), noise[:, k : k + 1])
        odds = (20 * (q[:, 0] - q[:, 0].amax(1, keepdim=True))).exp()
        values[:, k] = (odds * q[:, 0]).sum(1) / odds.sum(1) * std[:, 0] + mean[:, 0]
    total, raised = data.rewards.repeat(2, 1, 1), 0
    for k in reversed(range(count)):
        if not data.last[k]:
            raised += (values[:, k + 1] > total[:, k + 1]).sum().item()
            total[:, k] += 0.9 * torch.maximum(total[:, k + 1], values[:, k + 1])
    assert 20 < raised < 200  # of 2 x 32 x 3: both sides of the maximum
    assert_close(algorithm.scale[0], total.mean(1, keepdim=True), rtol=1e-4, atol=1e-4)
    expected = (total - total.mean(1, keepdim=True)) / total.std(1, correction=0, keepdim=True)
    assert_close(algorithm.targets, expected, rtol=1e-3, atol=1e-3)


def test_targets_are_planned_between_rounds_and_at_no_other_time(build, make_batch):
    algorithm, planned = build(rounds=3, round_updates=2), []
    for draw in range(9):
        before = algorithm.targets.clone()
        algorithm.update(make_batch(algorithm.spec, draw=draw))
        planned += [] if torch.equal(algorithm.targets, before) else [algorithm.updates]
    assert planned == [3, 5]  # at the start of these updates


@pytest.mark.parametrize("saved", [2, 4, 5])
def test_a_run_resumed_before_and_after_planning_is_the_same(build, make_batch, saved):
    whole, resumed = build(round_updates=4), build(round_updates=4)
    batches = [make_batch(whole.spec, draw=draw) for draw in range(8)]
    for batch in batches[:saved]:
        whole.update(batch)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for batch in batches[saved:]:
        losses, again = whole.update(batch), resumed.update(batch)
        assert all(torch.equal(losses[name], again[name]) for name in losses)
    assert torch.equal(whole.targets, resumed.targets)
    for one, other in zip(whole.nets.parameters(), resumed.nets.parameters()):
        assert torch.equal(one, other)


def test_a_trained_network_acts_without_the_data(build, make_spec):
    trained, alone = build([3]), MASfBC(make_spec("continuous"), Config(**TINY), [3])
    alone.load_nets(trained.seed_state(0))
    assert alone.act(torch.zeros(1, 2, 3, 5))[0].shape == (1, 2, 3, 4)


@pytest.mark.parametrize("select", [1, 3])
def test_the_best_candidates_are_taken_and_averaged(build, select):
    algorithm = build(candidates=16, select=select, act_weight=1e6)
    algorithm.play = "fixed"
    algorithm.nets["critic"].forward = value
    obs = torch.randn(2, 5, 3, 5)
    candidates, q = algorithm.propose(obs, algorithm.acting_noise(5, 16, 3, 4))
    assert_close(q, value(obs, candidates)[..., 0])
    best = q.argsort(2, descending=True)[:, :, :select, :, None].expand(-1, -1, -1, -1, 4)
    assert_close(algorithm.act(obs)[0], candidates.gather(2, best).mean(2))


def test_without_weight_every_candidate_may_be_taken(build):
    algorithm = build(act_weight=0.0)
    low, high = (torch.full((1, 4000, 3, 4), x) for x in (-1.0, 1.0))
    candidates = torch.stack([low, high, high, high], 2).expand(2, -1, -1, -1, -1)
    algorithm.propose = lambda obs, noise: (candidates, value(obs, candidates)[..., 0])
    share = (algorithm.act(torch.zeros(2, 4000, 3, 5))[0] > 0).float().mean((1, 3))
    assert_close(share, torch.full((2, 3), 0.75), atol=0.03, rtol=0)


def test_gumbel_noise_turns_logits_into_draws_of_their_softmax():
    logits = torch.tensor([1.0, 0.0, -2.0])
    draws = (logits + gumbel(torch.randn(50_000, 3))).argmax(1)
    assert_close(draws.bincount() / 50_000, logits.softmax(0), atol=0.01, rtol=0)
    assert gumbel(torch.tensor([-10.0, 0.0, 10.0])).isfinite().all()


def test_no_more_can_be_selected_than_is_drawn():
    for select in (0, 5):
        with pytest.raises(ValueError, match=f"select={select}"):
            Config(candidates=4, select=select)


def test_a_decision_takes_fifteen_calls_of_the_score_network_and_one_of_the_critic(build):
    algorithm = MASfBC(build().spec, Config(widths=(16, 8, 8), hidden=(16, 16)), (3, 5))
    rows = {"score": [], "critic": []}
    for name, seen in rows.items():
        algorithm.nets[name].register_forward_hook(lambda net, inputs, out, seen=seen: seen.append(out.shape[1]))
    algorithm.act(torch.zeros(2, 6, 3, 5))
    assert rows == {"score": [6 * 32] * 15, "critic": [6 * 32]} and algorithm.nfe() == 16


def test_agents_learn_and_plan_apart(build, data, make_batch):
    """Nothing of another agent's reaches an agent's gradients and targets."""
    batch, grads, targets = make_batch(build().spec), [], []
    shift = torch.tensor([0.0, 0.0, 0.5])
    for k in (0, 1):
        moved = data._replace(rewards=data.rewards * (1 + k * shift), obs=data.obs + k * shift[:, None])
        algorithm = build(data=moved)
        algorithm.plan()
        targets.append(algorithm.targets)
        other = batch._replace(obs=batch.obs + k * shift[:, None], actions=batch.actions * (1 - k * shift[:, None]))
        sum(algorithm.losses(other).values()).sum().backward()
        grads.append([p.grad.unflatten(0, (2, 3)) for p in algorithm.nets.parameters() if p.requires_grad])
    assert torch.equal(targets[0][..., :2], targets[1][..., :2])
    assert not torch.equal(targets[0][..., 2], targets[1][..., 2])
    for one, two in zip(*grads):
        assert torch.equal(one[:, :2], two[:, :2])
        assert not torch.equal(one[:, 2], two[:, 2])


# Equations, written out.


def test_the_critics_loss_is_the_squared_error_of_the_normalised_return(build, make_batch):
    algorithm = build()
    batch = make_batch(algorithm.spec)
    target = torch.stack([algorithm.targets[s, batch.number[s]] for s in range(2)])
    with torch.no_grad():
        values = algorithm.nets["critic"](batch.obs, batch.actions)[..., 0]
        assert_close(algorithm.losses(batch)["critic"], (values - target).pow(2).mean((1, 2)))
        returns = algorithm.unscaled(values)
    assert_close(algorithm.mean_value(batch), returns.mean((1, 2)))


def test_the_score_network_learns_the_noise_at_any_time_but_the_first_instant(build, make_batch):
    """x_t = sqrt(abar) a + sqrt(1 - abar) e with log abar = -0.1 t - 9.95 t^2, at t of each agent from 1e-5 to 1."""
    algorithm, seen = build(), []
    batch, draws = make_batch(algorithm.spec), torch.rand(2, 8, 3)
    draws[:, 0], draws[:, 1] = 0.0, 1.0
    noise = torch.randn_like(batch.actions)
    algorithm.streams.uniform, algorithm.streams.normal = lambda *shape: draws, lambda *shape: noise
    algorithm.nets["score"].register_forward_hook(lambda net, inputs, out: seen.append((*inputs, out)))
    loss = algorithm.score_loss(batch)
    obs, noisy, time, out = seen[0]
    assert time[:, 0].unique().item() == pytest.approx(1e-5) and (time[:, 1] == 1).all()
    assert_close(time[:, 2:], draws[:, 2:], atol=2e-5, rtol=0)
    a = torch.exp(-0.1 * time - 9.95 * time**2)[..., None]
    assert_close(noisy, a.sqrt() * batch.actions + (1 - a).sqrt() * noise)
    assert torch.equal(obs, batch.obs)
    assert_close(loss, (out - noise).pow(2).sum(-1).mean((1, 2)))


def test_time_is_seen_through_random_waves_of_standard_deviation_30():
    net, seen = MASfBC(TaskSpec(40, 5, 1, 4, False), Config(**TINY), [0]).nets["score"], []
    net.time.register_forward_hook(lambda net, inputs, out: seen.append(inputs[0]))
    time = torch.rand(1, 6, 40)
    net(torch.randn(1, 6, 40, 5), torch.randn(1, 6, 40, 4), time)
    angle = 2 * math.pi * time[0].T[..., None] * net.frequencies
    assert_close(seen[0], torch.cat([angle.sin(), angle.cos()], -1))
    assert net.frequencies.std().item() == pytest.approx(30, rel=0.1)


def test_the_score_network_goes_down_and_up_with_what_it_passed_on_the_way(build):
    """One agent, its layers one by one."""
    net = MASfBC(TaskSpec(1, 5, 7, 4, False), Config(**TINY), [0]).nets["score"]
    obs, noisy, time = torch.randn(1, 6, 1, 5), torch.randn(1, 6, 1, 4), torch.rand(1, 6, 1)
    silu, flat = torch.nn.functional.silu, (x.transpose(1, 2).flatten(0, 1) for x in (obs, noisy, time[..., None]))

    def block(part, x):
        return silu(part.second(silu(part.first(x)) + part.condition(condition))) + part.residual(x)

    obs_, x, t = flat
    angle = 2 * math.pi * t * net.frequencies
    known = torch.cat([silu(net.obs(obs_)), net.time(torch.cat([angle.sin(), angle.cos()], -1))], -1)
    condition = silu(net.condition[1](silu(net.condition[0](known))))
    passed = []
    for part in net.down:
        x = block(part, x)
        passed.append(x)
    x = block(net.middle, x)
    for part, skip in zip(net.up, passed[:0:-1], strict=True):
        x = block(part, torch.cat([skip, x], -1))
    expected = net.head(torch.cat([passed[0], x], -1))
    assert_close(net(obs, noisy, time)[:, :, 0], expected)


@pytest.mark.parametrize("share", [True, False])
def test_an_agent_kept_alone_decides_as_in_the_team(build, share):
    team, alone = (build(share_parameters=share, solver_calls=4) for _ in range(2))
    alone.load_nets(team.nets.state_dict())
    alone.keep_agent(1)
    obs, noise = torch.randn(2, 6, 3, 5), torch.randn(2, 6, 4, 3, 4)
    together, own = team.propose(obs, noise), alone.propose(obs[:, :, 1:2], noise[..., 1:2, :])
    assert_close(own[0], together[0][..., 1:2, :])
    assert_close(own[1], together[1][..., 1:2])


def test_a_candidate_is_drawn_from_the_softmax_of_the_weighted_values(build):
    algorithm, q = build(act_weight=2.0), torch.tensor([0.0, 0.5, 1.0])
    candidates = torch.tensor([-0.5, 0.1, 0.7]).view(1, 1, 3, 1, 1).expand(2, 8000, 3, 3, 4)
    algorithm.propose = lambda obs, noise: (candidates, q.view(1, 1, 3, 1).expand(2, 8000, 3, 3))
    algorithm.acting_noise = lambda *shape, call=0: torch.randn(2, 8000, 3, 3)
    taken = algorithm.act(torch.zeros(2, 8000, 3, 5))[0][..., 0]
    shares = torch.stack([(taken - a).abs().lt(1e-6).float().mean((1, 2)) for a in (-0.5, 0.1, 0.7)], -1)
    assert_close(shares, (2 * q).softmax(0).expand(2, 3), atol=0.012, rtol=0)


def test_the_critic_has_one_value_and_a_rate_of_its_own(build):
    algorithm, same = build(), build(critic_learning_rate=0.0, share_parameters=True)
    assert algorithm.nets["critic"](torch.randn(2, 8, 3, 5), torch.randn(2, 8, 3, 4)).shape == (2, 8, 3, 1)
    assert algorithm.learning_rates() == {"critic": 1e-3} and same.learning_rates() == {"critic": 1e-4}
    groups = [{len(p) for p in each.nets["score"].parameters()} for each in (algorithm, same)]
    assert groups == [{2 * 3}, {2}]


def test_a_trained_policy_keeps_the_scale_of_its_last_round(build, data, make_batch):
    """Its values are returns also where another one loads its networks, as a selector does."""
    algorithm = build(discount=0.9)
    algorithm.set_targets(3.0 * torch.randn(2, len(data.rows), 3) - 50.0)
    other = build(discount=0.9)
    batch = make_batch(algorithm.spec)
    assert not torch.allclose(algorithm.mean_value(batch), other.mean_value(batch), rtol=0.1)
    other.load_nets(algorithm.nets.state_dict())
    assert_close(algorithm.mean_value(batch), other.mean_value(batch))
