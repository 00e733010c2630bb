import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.qmix_cql import QMIXCQL, Config

SEEDS = (3, 5)
ROWS = 7  # of a window; an episode of make_data has six, the last of which starts no transition


@pytest.fixture
def build(make_spec, make_data):
    def make(**over):
        config = Config(**{"hidden": (16,), "horizon": ROWS, "mixer_width": 8, "cql_actions": 4, **over})
        algorithm = QMIXCQL(make_spec(), config, SEEDS)
        data = make_data(algorithm.spec, episodes=8, length=5)
        data.legal[:] = torch.rand(data.legal.shape) < 0.5
        data.legal[..., 1] |= ~data.legal.any(-1)
        data.legal[data.rows] |= torch.nn.functional.one_hot(data.actions, 4).bool()
        algorithm.prepare(data)
        return algorithm

    return make


def test_the_targets_action_is_each_agents_best_legal_one_by_its_own_critic(build, make_batch):
    """Double Q-learning by hand; what is not legal is worth a million and is never taken."""
    algorithm = build(discount=0.9)
    steps = algorithm.windows.at(make_batch(algorithm.spec).number)
    with torch.no_grad():
        for parameter in algorithm.nets["target_critic"].parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        q = algorithm.along("critic", steps)
        best = q.masked_fill(~steps.legal, -torch.inf).argmax(-1, keepdim=True)
        target_q = algorithm.along("target_critic", steps)
        assert (target_q.argmax(-1, keepdim=True) != best).any()
        following = algorithm.team("target_mixer", target_q.gather(-1, best)[..., 0], steps.state)
        value = torch.randn(2, 8, ROWS)
        target = steps.rewards.mean(-1)[..., :-1] + 0.9 * (1 - steps.done[..., :-1]) * following[..., 1:]
        error = [0.5 * (value[s, :, :-1] - target[s])[steps.followed[s]].square().mean() for s in range(2)]
        tempting = q.masked_fill(~steps.legal, 1e6)
        for given in (q, tempting):
            assert_close(algorithm.critic_loss(steps, given, value), torch.stack(error), rtol=1e-4, atol=1e-5)


def test_the_conservative_term_is_that_of_the_drawn_joint_actions_and_the_datas(build, make_batch, monkeypatch):
    algorithm = build(cql_weight=2.0)
    steps = algorithm.windows.at(make_batch(algorithm.spec).number)
    drawn = torch.randint(4, (2, 8, ROWS, 3, 4))
    monkeypatch.setattr(algorithm, "draws", lambda q, legal: drawn)
    q = algorithm.along("critic", steps)
    value = algorithm.team("mixer", q.gather(-1, steps.actions[..., None])[..., 0], steps.state)
    every = [value]
    for k in range(4):
        every.append(algorithm.team("mixer", q.gather(-1, drawn[..., k : k + 1])[..., 0], steps.state))
    excess = torch.stack(every).logsumexp(0) - value
    expected = torch.stack([2.0 * excess[s][steps.taken[s]].mean() for s in range(2)])
    assert_close(algorithm.conservative_loss(steps, q, value), expected)


def test_equal_values_are_held_down_by_the_number_of_joint_actions(build, make_batch):
    """Log-sum-exp of K + 1 equal values is log(K + 1) above them, whatever the number of agents."""
    algorithm = build(cql_weight=1.0)
    steps = algorithm.windows.at(make_batch(algorithm.spec).number)
    q = torch.zeros(2, 8, ROWS, 3, 4)
    value = algorithm.team("mixer", q[..., 0], steps.state)
    assert_close(algorithm.conservative_loss(steps, q, value), torch.full((2,), math.log(5)))


def test_random_actions_are_legal_and_uniform(build):
    algorithm, q = build(cql_actions=20_000), torch.zeros(2, 1, 2, 3, 4)
    legal = torch.rand(q.shape) < 0.5
    legal[0, 0, 0, 0] = torch.tensor([False, False, False, True])  # a dead unit
    legal[..., 1] |= ~legal.any(-1)
    shares = torch.nn.functional.one_hot(algorithm.draws(q, legal), 4).float().mean(-2)
    assert not shares[~legal].any()
    assert_close(shares, legal / legal.sum(-1, keepdim=True), rtol=0, atol=0.02)  # over five deviations
    assert_close(torch.nn.functional.one_hot(algorithm.draws(q, None), 4).float().mean(-2), q + 0.25, rtol=0, atol=0.02)


def test_released_draws_take_probabilities_for_logits(build):
    """With k of A actions legal, (A - k) / (A - k + k exp(1/k)) of the draws are not."""
    algorithm, q = build(cql_legal_only=False, cql_actions=20_000), torch.zeros(2, 1, 1, 3, 4)
    legal = torch.tensor([True, False, True, False]).expand(q.shape)
    drawn = algorithm.draws(q, legal)
    illegal = (drawn % 2 == 1).float().mean()
    assert abs(illegal - 2 / (2 + 2 * math.exp(0.5))) < 0.01


def test_targets_are_copied_now_and_then_or_follow_slowly(build, make_batch):
    for period, rates in ((2, [0, 1, 0, 1]), (0, [0.005] * 4)):
        algorithm = build(target_period=period)
        for rate in rates:
            before = [p.clone() for p in algorithm.nets["target_mixer"].parameters()]
            algorithm.update(make_batch(algorithm.spec))
            after, now = (algorithm.nets[n].parameters() for n in ("target_mixer", "mixer"))
            for old, new, source in zip(before, after, now):
                assert_close(new, torch.lerp(old, source.detach(), rate))


def test_exploring_plays_samples_of_the_values_softmax(build, look):
    algorithm = build()
    obs, legal = look(algorithm.spec)
    with algorithm.exploring(algorithm.streams):
        one, other = (algorithm.act(obs, legal)[0] for _ in range(2))
    assert not torch.equal(one, other) and torch.equal(*(algorithm.act(obs, legal)[0] for _ in range(2)))


def test_explored_actions_have_the_shares_of_the_values_softmax(build, monkeypatch):
    algorithm = build()
    values = torch.tensor([2.0, 0.0, 1.0, -3.0]).expand(2, 20_000, 3, 4)
    legal = torch.tensor([True, True, True, False]).expand(values.shape)
    monkeypatch.setattr(algorithm, "step", lambda net, obs, memory: (values, memory))
    with algorithm.exploring(algorithm.streams):
        chosen = algorithm.act(torch.zeros(2, 20_000, 3, 5), legal)[0]
    shares = torch.nn.functional.one_hot(chosen, 4).float().mean((0, 1))
    odds = torch.tensor([2.0, 0.0, 1.0]).softmax(0)
    assert_close(shares, torch.cat([odds, torch.zeros(1)]).expand(3, -1), rtol=0, atol=0.015)  # over five deviations


@pytest.mark.parametrize("legal_only", [True, False])
def test_draws_at_the_ends_of_the_unit_interval_are_actions(build, monkeypatch, legal_only):
    """Zero is drawn now and then, and a number next to one may be rounded to it."""
    algorithm, q = build(cql_legal_only=legal_only), torch.zeros(2, 1, 1, 3, 4)
    legal = torch.tensor([False, True, False, True]).expand(q.shape)
    for end in (0.0, 1.0):
        monkeypatch.setattr(algorithm.streams, "uniform", lambda *shape, end=end: torch.full((2, *shape), end))
        drawn = algorithm.draws(q, legal)
        assert (drawn < 4).all() and (not legal_only or legal.gather(-1, drawn).all())
