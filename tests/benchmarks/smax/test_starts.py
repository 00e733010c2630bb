"""Who begins where: the groups of SMAC's maps, SMACv2's random teams and places."""

import jax
import numpy as np
import pytest

from offmarl.benchmarks.smax.battle import make_battle
from offmarl.benchmarks.smax.starts import UNEVEN, FixedStarts, MirroredTeams, RandomStarts, crowd
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import tasks

FIXED = [name for name, task in tasks().items() if "starts" in task.roster]


def gaps(at):
    """Distances between all pairs of places."""
    return np.linalg.norm(at[:, None] - at[None], axis=-1)[np.triu_indices(len(at), 1)]


def keys(n):
    return jax.random.split(jax.random.PRNGKey(0), n)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 64])
def test_a_crowd_stands_close_but_not_in_each_others_place(count):
    at = crowd(count, 1.25)
    assert at.shape == (count, 2)
    assert 1.25 <= gaps(at).min() < 1.6
    assert np.linalg.norm(at, axis=1).max() < 1.25 * count**0.5
    np.testing.assert_allclose(at.mean(0), 0, atol=1e-9)


# SMAC's maps.


@pytest.mark.parametrize("name", FIXED)
def test_a_map_of_smac_always_begins_with_both_groups_in_the_same_places(name):
    task = tasks()[name]
    battle = make_battle(task.roster, task.limit)._env
    first, again = (np.asarray(battle.position_generator.generate(key)) for key in keys(2))
    assert 0 < np.abs(first - again).max() < 2 * UNEVEN <= 0.2
    for point, side in zip(task.roster["starts"], (first[: task.agents], first[task.agents :])):
        np.testing.assert_allclose(side.mean(0), point, atol=UNEVEN)
        assert gaps(side).min() >= 2 * max(UNITS[unit].radius for unit in battle.unit_type_names) - 3 * UNEVEN
    apart = gaps(np.asarray(battle.position_generator.places)[: task.agents]).min()
    assert 1 <= apart / (2 * max(UNITS[unit].radius for unit in battle.unit_type_names)) < 1.3


def test_a_battle_begins_where_its_map_says(game_of):
    made = game_of("smac/3m")
    reset = jax.jit(made.game.reset)
    places = made.game.env._env.position_generator.places
    for battle, seen in (reset(key) for key in keys(2)):
        np.testing.assert_allclose(battle.battle.state.unit_positions, places, atol=2 * UNEVEN)
        assert seen.state[2] == pytest.approx(float(places[0, 0] - 16) / 32, abs=2 * UNEVEN / 32)


def test_agents_are_numbered_by_type_then_from_west_to_east():
    starts = FixedStarts([[9, 16], [23, 16]], (["stalker"] * 2 + ["zealot"] * 3, ["zealot"] * 2), 1.25)
    x = np.asarray(starts.places[:, 0])
    assert x[0] < x[1] and x[2] < x[3] < x[4] and x[5] < x[6]
    far = np.linalg.norm(np.asarray(starts.places) - [9, 16], axis=1)
    assert far[:2].mean() < far[2:5].mean()  # created first, nearer to the point


# SMACv2's places.


@pytest.fixture(scope="module")
def places():
    """Starts of 4,000 battles of five [N, 10, 2], and which of them are surrounded [N]."""
    at = np.asarray(jax.vmap(RandomStarts(5, 1.25).generate)(keys(4000)))
    return at, np.abs(at[:, :5] - 16).max((1, 2)) < 3


def test_half_of_the_battles_are_surrounded_and_half_reflected(places):
    at, surrounded = places
    assert surrounded.mean() == pytest.approx(0.5, abs=0.03)
    ours, theirs = at[~surrounded, :5], at[~surrounded, 5:]
    np.testing.assert_allclose(theirs[..., 0], 32 - ours[..., 0], atol=1e-4)
    assert np.array_equal(theirs[..., 1], ours[..., 1])
    assert 14.9 < ours[..., 0].max() < 15 and 31.5 < ours[..., 1].max() < 32
    assert ours.mean((0, 1)) == pytest.approx([7.5, 16], abs=0.3)


def test_it_is_the_allies_who_are_surrounded(places):
    at, surrounded = places
    allies = at[surrounded, :5]
    assert np.ptp(allies, axis=0).max() == 0  # always the same crowd around the centre
    np.testing.assert_allclose(allies[0], 16 + crowd(5, 1.25), atol=1e-4)
    assert not (np.abs(at[:, 5:] - 16).max((1, 2)) < 3).any()  # the enemies never are


def test_the_surrounding_groups_come_from_one_to_four_diagonals(places):
    at, surrounded = places
    enemies = at[surrounded, 5:]
    away = enemies - 16
    assert np.abs(np.abs(away[..., 0]) - np.abs(away[..., 1])).max() < 2 * np.abs(crowd(5, 1.25)).max()
    quarter = 2 * (away[..., 0] > 0) + (away[..., 1] > 0)
    diagonals = np.array([len(set(row)) for row in quarter])
    alone = sum(0.25 * n**-4.0 for n in (1, 2, 3, 4))  # all five in one of n groups
    assert (diagonals == 1).mean() == pytest.approx(alone, abs=0.04)
    assert set(diagonals) == {1, 2, 3, 4}
    assert np.bincount(quarter.ravel()) / quarter.size == pytest.approx([0.25] * 4, abs=0.03)
    assert enemies.min() >= 0 and enemies.max() <= 32
    assert np.abs(away).mean() == pytest.approx((16 + 2) / 2, abs=0.2)  # anywhere from a corner to near the centre
    clear = enemies[((enemies > 0) & (enemies < 32)).all((1, 2))]
    assert min(gaps(battle).min() for battle in clear) > 1.25


# Random teams.


def teams(weights, size, n=2000):
    rosters = jax.vmap(MirroredTeams(size, weights, exception=2).generate)(jax.random.split(jax.random.PRNGKey(0), n))
    return np.asarray(rosters)


def test_mirrored_teams_are_equal_on_both_sides():
    rosters = teams([0.45, 0.45, 0.1], 5)
    assert rosters.shape == (2000, 10)
    assert np.array_equal(rosters[:, :5], rosters[:, 5:])


def test_mirrored_teams_follow_their_weights():
    share = np.bincount(teams([0.45, 0.45, 0.1], 5)[:, :5].ravel(), minlength=3) / 10_000
    assert share == pytest.approx([0.45, 0.45, 0.1], abs=0.02)


def test_a_team_is_never_made_of_exceptions_alone():
    rosters = teams([0.05, 0.05, 0.9], 2)
    assert not (rosters == 2).all(1).any()
    assert (rosters[:, 1] == 2).mean() > 0.8  # they are drawn; it is the whole team that is refused
    assert (rosters[:, 0] == 0).mean() == pytest.approx(0.05 + 0.9**2, abs=0.03)  # the first becomes a 0


@pytest.mark.parametrize("name", [name for name, task in tasks().items() if "teams" in task.roster])
def test_every_random_map_draws_mirrored_teams_of_its_units(name):
    task = tasks()[name]
    battle = make_battle(task.roster, task.limit)._env
    wanted = task.roster["teams"]
    drawn = np.asarray(jax.vmap(battle.unit_type_generator.generate)(jax.random.split(jax.random.PRNGKey(1), 500)))
    assert drawn.shape == (500, 2 * task.agents)
    assert np.array_equal(drawn[:, : task.agents], drawn[:, task.agents :])
    assert battle.unit_type_names == list(wanted["weights"])
    assert set(np.unique(drawn)) == {0, 1, 2}
    assert battle.unit_type_generator.exception == battle.unit_type_names.index(wanted["exception"])
    assert wanted["exception"] in UNITS
