"""The behaviours that SMAX lacks, shown on hand-made battlefields, one game loop at a time."""

import inspect
from importlib.metadata import requires, version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxmarl.environments.smax import HeuristicEnemySMAX, Scenario
from jaxmarl.environments.smax.heuristic_enemy import create_heuristic_policy
from jaxmarl.environments.smax.smax_env import SMAX, State

from offmarl.benchmarks.smax.battle import Battle, make_battle
from offmarl.benchmarks.tasks import tasks

LOOP = 1 / 22.4  # seconds


def one_each(field, at=((10, 16), (14, 16))):
    return field({"marine": 1}, {"marine": 1}, at)


# What SMAX must look like for our subclass to fit.


def test_smax_is_the_version_that_battle_was_written_for():
    assert version("jaxmarl") == "0.2.0"
    assert any(line.replace(" ", "").startswith("jaxmarl==0.2.0") for line in requires("offmarl"))


@pytest.mark.parametrize(
    ("owner", "method", "expected"),
    [
        (SMAX, "_world_step", ["self", "key", "state", "actions"]),
        (SMAX, "_push_units_away", ["self", "state", "firmness"]),
        (SMAX, "reset", ["self", "key"]),
        (SMAX, "_update_dead_agents", ["self", "state"]),
        (SMAX, "_decode_discrete_actions", ["self", "actions"]),
        (SMAX, "step_env_no_decode", ["self", "key", "state", "actions", "get_state_sequence"]),
        (HeuristicEnemySMAX, "step_env", ["self", "key", "state", "actions", "get_state_sequence"]),
        (HeuristicEnemySMAX, "reset", ["self", "key"]),
    ],
)
def test_the_methods_of_smax_that_we_override_or_rely_on_have_these_parameters(owner, method, expected):
    assert list(inspect.signature(getattr(owner, method)).parameters) == expected


def test_battle_overrides_methods_that_exist_with_the_same_parameters():
    own = [name for name in ("_world_step", "_push_units_away", "reset") if name in vars(Battle)]
    assert len(own) == 3
    for name in own:
        ours, theirs = (inspect.signature(getattr(cls, name)).parameters for cls in (Battle, SMAX))
        assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_the_pieces_of_smax_that_make_battle_assembles_have_these_names():
    assert list(inspect.signature(create_heuristic_policy).parameters) == ["env", "team", "shoot", "attack_mode"]
    assert list(Scenario.__dataclass_fields__) == [
        "unit_types",
        "num_allies",
        "num_enemies",
        "smacv2_position_generation",
        "smacv2_unit_type_generation",
    ]
    used = {"unit_positions", "unit_alive", "unit_health", "unit_types", "unit_weapon_cooldowns", "step"}
    assert used <= set(State.__dataclass_fields__)
    stock = HeuristicEnemySMAX(num_allies=2, num_enemies=2)
    assert isinstance(stock._env, SMAX)
    assert callable(stock.heuristic_policy)


def test_the_scripted_enemy_plays_the_battle_with_our_rules():
    game = make_battle(tasks()["smac/5m_vs_6m"].roster, 70)
    assert isinstance(game._env, Battle)
    assert (game.num_allies, game.num_enemies, game._env.max_steps) == (5, 6, 70)
    reload = np.asarray(game._env.unit_type_weapon_cooldowns)[np.asarray(game._env.scenario)]
    assert reload == pytest.approx([0.61] * 5 + [0.90] * 6)


# Plain fights.


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_where_every_target_is_in_range_a_loop_is_smaxs_own(field, seed):
    rng = np.random.default_rng(seed)
    scene = field({"marine": 3}, {"marine": 3}, rng.uniform(14, 17, (6, 2)))  # nobody is further than 4.3
    scene.hurt(**{f"u{k}": float(h) for k, h in enumerate(rng.choice([0.0, 4.0, 30.0, 45.0], 6))})
    scene.state = scene.state.replace(unit_weapon_cooldowns=jnp.asarray(rng.choice([0.0, 0.3], 6), jnp.float32))
    attack = {k: int(rng.integers(3)) + (3 if k < 3 else 0) for k in range(6) if rng.random() < 0.7}
    order, way = np.zeros(6, np.int32), np.zeros((6, 2), np.float32)
    for unit, target in attack.items():
        order[unit] = 5 + (target - 3 if unit < 3 else 2 - target)
    move = {k: rng.choice([[0, 1], [1, 0], [0, -1], [-1, 0]]) for k in range(6) if k not in attack}
    for unit, direction in move.items():
        way[unit] = direction
    ours = scene.step(attack, move)
    theirs = SMAX._world_step(scene.battle, jax.random.PRNGKey(0), scene.state, (jnp.asarray(way), jnp.asarray(order)))
    np.testing.assert_allclose(ours.place, theirs.unit_positions, atol=1e-5)
    np.testing.assert_allclose(ours.health, theirs.unit_health, atol=1e-4)
    np.testing.assert_allclose(ours.reload, theirs.unit_weapon_cooldowns, atol=3 * LOOP + 1e-5)  # its jitter


def test_an_attack_in_range_hits_once_and_reloads_within_the_jitter(field):
    scene = one_each(field)
    reloads = []
    for seed in range(20):
        after = scene.step(attack={0: 1}, seed=seed)
        assert after.health.tolist() == [45, 39]
        assert np.array_equal(after.place, np.asarray(scene.state.unit_positions))
        reloads.append(after.reload[0])
    assert 0.61 - LOOP - 1e-5 <= min(reloads) < 0.61 - LOOP / 2
    assert 0.61 + LOOP < max(reloads) <= 0.61 + 2 * LOOP + 1e-5


def test_a_reloading_weapon_does_not_strike(field):
    scene = one_each(field)
    scene.state = scene.step(attack={0: 1}).raw
    again = scene.step(attack={0: 1})
    assert again.health.tolist() == [45, 39]
    assert again.reload[0] == pytest.approx(float(scene.state.unit_weapon_cooldowns[0]) - LOOP, abs=1e-5)


@pytest.mark.parametrize("angle", [0, 0.7, 2.5, 4.0])
def test_an_attack_order_on_an_enemy_out_of_range_walks_towards_it(field, angle):
    far = 5.6 * np.array([np.cos(angle), np.sin(angle)])
    scene = one_each(field, ((16, 16), 16 + far))
    after = scene.step(attack={0: 1})
    assert after.health.tolist() == [45, 45]
    assert after.place[0] - 16 == pytest.approx(far / 5.6 * 3.15 * LOOP, abs=1e-4)
    assert np.array_equal(after.place[1], np.asarray(scene.state.unit_positions[1]))


def test_an_attack_order_on_the_dead_does_nothing(field):
    for place in ((13, 16), (10, 22)):  # in range and out of it
        scene = one_each(field, ((10, 16), place)).hurt(u1=0.0)
        after = scene.step(attack={0: 1})
        assert np.array_equal(after.place, np.asarray(scene.state.unit_positions))
        assert after.health.tolist() == [45, 0]
        assert after.reload[0] <= 0


def test_the_dead_neither_walk_nor_strike(field):
    scene = field({"marine": 2}, {"marine": 1}, [(10, 16), (20, 20), (13, 16)]).hurt(u0=0.0, u1=0.0)
    after = scene.step(attack={0: 2}, move={1: (0, 1)})
    assert after.health.tolist() == [0, 0, 45]
    assert np.array_equal(after.place, np.asarray(scene.state.unit_positions))


def test_the_enemys_orders_number_our_units_from_the_last(field):
    scene = field({"marine": 3}, {"marine": 1}, [(10, 14), (10, 16), (10, 18), (13, 16)])
    none, first = np.zeros(4, np.int32), np.array([0, 0, 0, 5], np.int32)
    assert scene.battle._targets(first).tolist() == [0, 1, 2, 2]
    assert scene.battle._targets(none).tolist() == [0, 1, 2, 3]
    assert scene.step(attack={3: 0}).health.tolist() == [39, 45, 45, 45]


def test_nobody_leaves_the_map(field):
    scene = one_each(field, ((0.01, 31.99), (31.99, 0.01)))
    after = scene.step(move={0: (-1, 1), 1: (1, -1)})
    assert after.place.tolist() == [[0, 32], [32, 0]]


def test_a_bonus_counts_against_light_units_only(field):
    scene = field({"colossus": 1}, {"zergling": 1, "stalker": 1}, [(10, 16), (13, 16), (10, 22)])
    assert scene.step(attack={0: 1}).health.tolist() == [350, 5, 160]
    assert scene.step(attack={0: 2}).health.tolist() == [350, 35, 140]


# Areas.


def test_the_line_of_a_colossus_hits_the_zerglings_abreast_and_no_others(field):
    #                          target     abreast       out to the side  behind       before
    at = [(10, 16), (10, 12), (15, 16.0), (15, 16.8), (15, 14.9), (15, 17.4), (16.0, 16), (14.0, 16)]
    scene = field({"colossus": 2}, {"zergling": 6}, at)
    after = scene.step(attack={0: 2})
    assert after.health.tolist() == [350, 350, 5, 5, 5, 35, 35, 35]


def test_the_line_lies_across_the_direction_of_fire(field):
    scene = field({"colossus": 1}, {"zergling": 3}, [(16, 10), (16, 15), (16.9, 15), (16, 16)])
    assert scene.step(attack={0: 1}).health.tolist() == [350, 5, 5, 35]


def test_the_line_of_a_shot_askew_lies_askew(field):
    at = [(10, 10), (13, 14), (12.2, 14.6), (11.8, 14.9)]  # the target, 1.0 and 1.5 beside it
    assert field({"colossus": 1}, {"zergling": 3}, at).step(attack={0: 1}).health.tolist() == [350, 5, 5, 35]


def test_the_line_spares_its_own_side_and_the_dead(field):
    scene = field({"colossus": 2}, {"zergling": 2}, [(10, 16), (15, 16.5), (15, 16), (15, 15.5)]).hurt(u3=0.0)
    assert scene.step(attack={0: 2}).health.tolist() == [350, 350, 5, 0]


def test_the_lines_of_two_colossi_add_up(field):
    scene = field({"colossus": 2}, {"stalker": 2}, [(10, 16), (10, 15), (15, 16), (15, 16.5)])
    assert scene.step(attack={0: 2, 1: 3}).health.tolist() == [350, 350, 120, 120]


def test_a_baneling_bursts_over_its_foes_near_by_and_dies_of_it(field):
    at = [(16, 16), (16, 16.8), (17.5, 16), (16, 18.1), (16, 13.6), (18.3, 16)]
    scene = field({"baneling": 1, "marine": 1}, {"marauder": 4}, at)
    after = scene.step(attack={0: 2})
    assert after.health.tolist() == [0, 45, 110, 110, 125, 125]


def test_a_baneling_hurts_light_units_more(field):
    scene = field({"baneling": 1}, {"hydralisk": 1, "marauder": 1}, [(16, 16), (17, 16), (15, 16)])
    assert scene.step(attack={0: 1}).health.tolist() == [0, 45, 110]


def test_a_baneling_out_of_range_only_walks(field):
    scene = field({"baneling": 1}, {"marauder": 2}, [(16, 16), (18.1, 16), (16, 14.5)])
    after = scene.step(attack={0: 1})
    assert after.health.tolist() == [30, 125, 125]
    assert after.place[0, 0] > 16


def test_the_enemys_banelings_burst_too(field):
    scene = field({"marauder": 2}, {"baneling": 2}, [(16, 16), (16, 17), (17, 16), (17.5, 16)])
    assert scene.step(attack={2: 0}).health.tolist() == [110, 110, 0, 30]


def test_teams_of_unknown_make_up_have_areas_too():
    battle = make_battle(tasks()["smacv2/zerg_5_vs_5"].roster, 200)._env
    assert battle.area_units.tolist() == list(range(10))
    assert np.asarray(battle.blast).tolist() == [False, False, True]


@pytest.mark.parametrize(("name", "units"), [("smac/2c_vs_64zg", [0, 1]), ("smacv2/terran_5_vs_5", [])])
def test_only_units_that_have_areas_are_looked_at(name, units):
    task = tasks()[name]
    assert make_battle(task.roster, task.limit)._env.area_units.tolist() == units


# Healing.


def medics(field, near=(10, 14)):
    return field({"marine": 3, "medivac": 1}, {"marine": 1}, [(10, 16), (10, 18), near, (10, 17), (30, 30)])


def test_a_medivac_heals_the_worst_hurt_ally_within_four(field):
    after = medics(field).hurt(u0=30.0, u1=20.0, u2=25.0).step()
    assert after.health[:4] == pytest.approx([30, 20 + 12.6 * LOOP, 25, 150], abs=1e-4)


def test_worst_is_the_smallest_share_of_full_health(field):
    at = [(10, 16), (10, 18), (10, 17), (30, 30)]
    scene = field({"marine": 1, "marauder": 1, "medivac": 1}, {"marine": 1}, at).hurt(u0=40.0, u1=60.0)
    assert scene.step().health[:3] == pytest.approx([40, 60 + 12.6 * LOOP, 150], abs=1e-4)


def test_a_medivac_does_not_reach_further_than_four(field):
    after = medics(field, near=(10, 21.1)).hurt(u0=30.0, u2=1.0).step()
    assert after.health[:3] == pytest.approx([30 + 12.6 * LOOP, 45, 1], abs=1e-4)
    after = medics(field, near=(10, 20.9)).hurt(u0=30.0, u2=1.0).step()
    assert after.health[:3] == pytest.approx([30, 45, 1 + 12.6 * LOOP], abs=1e-4)


def test_healing_stops_at_full_health(field):
    scene = field({"marine": 1, "medivac": 2}, {"marine": 1}, [(10, 16), (10, 17), (10, 15), (30, 30)]).hurt(u0=44.8)
    assert scene.step().health[0] == 45
    assert scene.hurt(u0=20.0).step().health[0] == pytest.approx(20 + 2 * 12.6 * LOOP, abs=1e-4)


def test_nobody_heals_the_dead_or_the_foe_or_a_medivac(field):
    at = [(10, 16), (10, 18), (10, 17), (10, 15), (10, 17.5)]
    scene = field({"marine": 2, "medivac": 2}, {"marine": 1}, at).hurt(u0=0.0, u3=10.0, u4=10.0)
    assert scene.step().health.tolist() == [0, 45, 150, 10, 10]


def test_nobody_heals_those_who_die_of_a_hit(field):
    scene = field({"marine": 1, "medivac": 1}, {"marine": 1}, [(10, 16), (10, 17), (13, 16)]).hurt(u0=5.0)
    assert scene.step(attack={2: 0}).health.tolist() == [0, 150, 45]


def test_a_dead_medivac_heals_nobody(field):
    assert medics(field).hurt(u0=30.0, u3=0.0).step().health[0] == 30


def test_a_medivac_has_no_weapon_and_does_not_follow_attack_orders(field):
    scene = field({"medivac": 1}, {"marine": 2}, [(10, 16), (12, 16), (20, 16)])
    for target in (1, 2):
        after = scene.step(attack={0: target})
        assert after.health.tolist() == [150, 45, 45]
        assert np.array_equal(after.place, np.asarray(scene.state.unit_positions))


def test_the_enemys_medivacs_heal_the_enemy(field):
    scene = field({"marine": 1}, {"marine": 1, "medivac": 1}, [(12, 16), (10, 16), (10, 17)]).hurt(u0=20.0, u1=20.0)
    assert scene.step().health[:2] == pytest.approx([20, 20 + 12.6 * LOOP], abs=1e-4)


# The corridor.


def test_zerglings_stay_in_the_corridor_while_colossi_climb(field):
    corridor = tuple(tasks()["smac/2c_vs_64zg"].roster["corridor"])
    at = [(5, 18.0), (27, 14.0), (8, 18.5), (12, 13.5), (16, 16.0)]
    scene = field({"colossus": 2}, {"zergling": 3}, at, corridor)
    move = {0: (0, 1), 1: (0, -1), 2: (0, 1), 3: (0, -1), 4: (0, 1)}
    for _ in range(30):
        scene.state = scene.push(scene.step(move=move).raw)
    x, y = np.asarray(scene.state.unit_positions).T
    assert y[2:] == pytest.approx([19, 13, 19])
    assert y[:2] == pytest.approx([18 + 30 * LOOP * 3.15, 14 - 30 * LOOP * 3.15], abs=1e-3)
    assert x == pytest.approx([p[0] for p in at])


def test_a_crowd_in_the_corridor_is_not_pushed_out_of_it(field):
    scene = field(
        {"colossus": 1}, {"zergling": 4}, [(16, 25), (9, 18.9), (9, 18.5), (9, 13.1), (9, 13.5)], (13.0, 19.0)
    )
    free = np.asarray(jax.jit(SMAX._push_units_away, static_argnums=0)(scene.battle, scene.state).unit_positions)[1:, 1]
    assert free[0] > 19 and free[2] < 13  # SMAX would push them out
    kept = np.asarray(scene.push(scene.state).unit_positions)[1:, 1]
    assert kept.tolist() == [19, free[1], 13, free[3]]


def test_maps_without_a_corridor_have_no_walls_inside(field):
    scene = one_each(field, ((10, 30), (14, 2)))
    assert np.array_equal(scene.push(scene.state).unit_positions, scene.state.unit_positions)
