import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.recipe import Config, Recipe, spread

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(space="discrete", **over):
        return Recipe(make_spec(space), Config(**{"hidden": (16, 16), "mixer_hidden": 16, **over}), SEEDS)

    return make


def critic_loss(algorithm, batch, q, target):
    """Of these team values [S,2,B,1] and targets [S,B,1]."""
    algorithm.chosen, algorithm.team, algorithm.target = (lambda *args: q), (lambda q, *args: q), (lambda batch: target)
    return algorithm.critic_loss(batch)


@pytest.mark.parametrize(
    ("values", "mixer", "extraction", "svn", "space"),
    [
        *itertools.product(
            ["td", "sarsa", "iql"],
            ["state", "none", "mean", "sum"],
            ["brac", "awr"],
            [True, False],
            ["discrete", "continuous"],
        )
    ],
)
def test_every_choice_has_finite_losses_and_moves_what_it_has(build, make_batch, values, mixer, extraction, svn, space):
    algorithm = build(space, values=values, mixer=mixer, extraction=extraction, svn=svn)
    before = {name: [p.clone() for p in net.parameters()] for name, net in algorithm.nets.items()}
    losses = algorithm.update(make_batch(algorithm.spec))
    assert all(value.isfinite().all() for value in losses.values()), losses
    moved = {n for n, old in before.items() if any((a != b).any() for a, b in zip(old, algorithm.nets[n].parameters()))}
    expected = {"policy", "critic", *(["value"] if values == "iql" else []), *(["mixer"] if mixer == "state" else [])}
    assert expected <= moved


def test_svn_counts_td_errors_in_units_of_the_values_spread(build, make_batch):
    algorithm, q, target = build(), torch.randn(2, 2, 8, 1, requires_grad=True), torch.randn(2, 8, 1)
    batch = make_batch(algorithm.spec)
    loss = critic_loss(algorithm, batch, q, target)
    lesser = q.amin(1)
    unit = (lesser - lesser.mean(1, keepdim=True)).abs().mean(1, keepdim=True)
    assert_close(loss, (0.5 * ((lesser - target) / unit).square()).mean((1, 2)))
    (slope,) = torch.autograd.grad(loss.sum(), q)
    bigger, shifted = (100 * q).detach().requires_grad_(), (q + 50).detach().requires_grad_()
    scaled = critic_loss(algorithm, batch, bigger, 100 * target)
    assert_close(scaled, loss, rtol=1e-4, atol=1e-4)
    assert_close(torch.autograd.grad(scaled.sum(), bigger)[0], slope / 100, rtol=1e-3, atol=1e-6)
    moved = critic_loss(algorithm, batch, shifted, target + 50)
    assert_close(torch.autograd.grad(moved.sum(), shifted)[0], slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("svn", [True, False])
def test_the_fixed_point_of_the_bellman_equation_stays(build, make_batch, svn):
    algorithm, q = build(svn=svn), torch.randn(2, 2, 8, 1, requires_grad=True)
    target = q.detach().amin(1) if svn else q.detach()[:, 0]
    found = torch.autograd.grad(critic_loss(algorithm, make_batch(algorithm.spec), q, target).sum(), q)[0]
    assert_close((found if svn else found[:, 0]), torch.zeros_like(found if svn else found[:, 0]))


@pytest.mark.parametrize(("mixer_gradients", "moves"), [(True, True), (False, False)])
def test_the_mixer_learns_but_in_the_released_code(build, make_batch, mixer_gradients, moves):
    algorithm = build(mixer_gradients=mixer_gradients)
    before = [p.clone() for p in algorithm.nets["mixer"].parameters()]
    algorithm.update(make_batch(algorithm.spec))
    assert any(not torch.equal(a, b) for a, b in zip(before, algorithm.nets["mixer"].parameters())) == moves


def test_targets_are_of_the_team_and_by_the_lesser_twin(build, make_batch):
    algorithm = build(values="sarsa", mixer="sum", discount=0.9)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    q = nets["target_critic"](batch.next_obs).gather(
        -1, batch.next_actions[:, None, ..., None].expand(-1, 2, -1, -1, -1)
    )
    following = q[..., 0].amin(1).sum(-1, keepdim=True)
    expected = batch.rewards.sum(-1, keepdim=True) + 0.9 * (1 - batch.done)[..., None] * following
    assert_close(algorithm.target(batch), expected.detach())


def test_the_mixer_joins_the_twins_before_the_lesser_is_taken(build, make_batch):
    algorithm = build(values="td", discount=0.9)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    with torch.no_grad():
        best = nets["policy"](batch.next_obs).masked_fill(~batch.next_legal, -torch.inf).argmax(-1)
        q = nets["target_critic"](batch.next_obs).gather(-1, best[:, None, ..., None].expand(-1, 2, -1, -1, -1))[..., 0]
        following = nets["target_mixer"](q, batch.next_state).amin(1)
    expected = batch.rewards.sum(-1, keepdim=True) + 0.9 * (1 - batch.done)[..., None] * following
    assert_close(algorithm.target(batch), expected)


def test_iqls_value_is_an_expectile_of_the_critic(build, make_batch):
    algorithm = build(**Recipe.variants["iql"])
    batch, q = make_batch(algorithm.spec), torch.tensor([1.0, -1.0]).repeat(4)
    algorithm.chosen = lambda *args: q.view(1, 1, 8, 1).expand(2, 2, 8, 3)

    def slope(value):
        v = torch.full((2, 8, 1), value, requires_grad=True)
        algorithm.team_value = lambda batch, which: v
        return torch.autograd.grad(algorithm.value_loss(batch).sum(), v)[0].sum().item()

    assert slope(0.8) == pytest.approx(0.0, abs=1e-6)  # .9 (1 - v) = .1 (v + 1)
    assert slope(0.7) < 0 < slope(0.9)


def test_awr_clones_by_standardised_advantages_within_bounds(build, make_batch):
    algorithm = build("continuous", values="sarsa", mixer="none", extraction="awr", inverse_temperature=2.0)
    batch = make_batch(algorithm.spec)
    algorithm.chosen = lambda net, obs, actions: (actions if actions is batch.actions else 0 * actions).sum(-1)[:, None]
    advantage = batch.actions.sum(-1)
    centred = advantage - advantage.mean((1, 2), keepdim=True)
    z = centred / centred.square().mean((1, 2), keepdim=True).sqrt()
    assert_close(algorithm.weights(batch), (2 * z).exp().clamp(max=100.0), rtol=1e-4, atol=1e-5)
    distance = 0.5 * (batch.actions - algorithm.nets["policy"](batch.obs)).square().sum(-1)
    assert_close(algorithm.policy_losses(batch)["policy"], (algorithm.weights(batch) * distance).mean((1, 2)))


def test_brac_maximises_the_lesser_value_in_units_of_its_magnitude_and_clones(build, make_batch):
    algorithm = build(bc_weight=0.5)
    batch = make_batch(algorithm.spec)
    odds = algorithm.nets["policy"](batch.obs).masked_fill(~batch.legal, -torch.inf).softmax(-1)
    value = (odds * algorithm.nets["critic"](batch.obs).amin(1)).sum(-1)
    losses = algorithm.policy_losses(batch)
    assert_close(losses["q"], -value.mean((1, 2)) / value.abs().mean((1, 2)), rtol=1e-4, atol=1e-5)
    likelihood = odds.gather(-1, batch.actions[..., None]).log().mean((1, 2, 3))
    assert_close(losses["cloning"], -0.5 * likelihood)
    sum(losses.values()).sum().backward()
    assert {n for n, net in algorithm.nets.items() if any(p.grad is not None for p in net.parameters())} == {"policy"}


def test_a_policy_keeps_the_datas_actions_where_others_seem_a_fifth_better(build, make_batch, set_value):
    """As they do on SMAC, where no data contradict a critic."""
    algorithm = build()
    batch = make_batch(algorithm.spec)
    batch = batch._replace(actions=torch.zeros_like(batch.actions), legal=None)
    set_value(algorithm.nets["critic"], torch.tensor([1.0] + [1.2] * (algorithm.spec.actions - 1)))
    steps = torch.optim.Adam(algorithm.nets["policy"].parameters(), 0.01)
    for _ in range(100):
        steps.zero_grad()
        sum(algorithm.policy_losses(batch).values()).sum().backward()
        steps.step()
    assert (algorithm.mode(batch.obs, None) == 0).all()


def test_the_spread_is_the_mean_absolute_deviation_of_each_seed():
    values = torch.tensor([[1.0, 3.0], [0.0, 0.0]])[..., None]
    assert spread(values).flatten().tolist() == pytest.approx([1.0, 1e-6], rel=1e-3)


@pytest.mark.parametrize(("mixer", "count"), [("sum", 3), ("mean", 1), ("none", 1)])
def test_the_mean_value_is_a_teams_return(build, make_batch, mixer, count):
    algorithm = build(mixer=mixer)
    algorithm.chosen = lambda *args: torch.full((2, 2, 8, 3), 7.0)
    assert algorithm.mean_value(make_batch(algorithm.spec)).tolist() == [7.0, 7.0]
    assert math.isclose(algorithm.team(torch.full((2, 1, 8, 3), 7.0), torch.zeros(2, 8, 7)).max().item(), 7.0 * count)
