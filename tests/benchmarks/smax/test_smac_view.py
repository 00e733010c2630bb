"""What agents see, may do and are paid: SMAC's sizes, layout and rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offmarl.benchmarks.fingerprint import fingerprint
from offmarl.benchmarks.smax.env import Game
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import tasks

# agents, enemies, observation, state, actions, limit: get_env_info() of oxwhirl's SMAC and SMACv2.
REAL = {
    "smac/3m": (3, 3, 30, 48, 9, 60),
    "smac/8m": (8, 8, 80, 168, 14, 120),
    "smac/2s3z": (5, 5, 80, 120, 11, 120),
    "smac/5m_vs_6m": (5, 6, 55, 98, 12, 70),
    "smac/2c_vs_64zg": (2, 64, 332, 342, 70, 400),
    "smacv2/terran_5_vs_5": (5, 5, 82, 120, 11, 200),
    "smacv2/zerg_5_vs_5": (5, 5, 82, 120, 11, 200),
    "smacv2/terran_10_vs_10": (10, 10, 162, 290, 16, 200),
}


@pytest.mark.parametrize("name", REAL)
def test_the_view_has_the_sizes_of_the_real_environment(name):
    task = tasks()[name]
    n, m, obs, state, actions, limit = REAL[name]
    assert (task.agents, task.obs, task.state, task.actions, task.limit) == (n, obs, state, actions, limit)
    game = Game(task)
    position, view = jax.eval_shape(game.reset, jax.random.PRNGKey(0))
    assert (game.n, game.m) == (n, m)
    assert view.obs.shape == (n, obs)
    assert view.state.shape == (state,)
    assert view.legal.shape == (n, actions)
    assert (view.obs.dtype, view.state.dtype, view.legal.dtype) == (jnp.float32, jnp.float32, jnp.bool_)
    assert position.last_actions.shape == (n, actions)


def test_the_tasks_are_the_eight_maps_of_the_paper():
    assert {name for name, task in tasks().items() if task.family.startswith("smac")} == set(REAL)
    assert all(name == f"{task.family}/{task.short}" for name, task in tasks().items())


def test_results_carry_the_simulators_label_and_versions(marines):
    facts = fingerprint(marines)
    assert facts["engine"] == "SMAX"
    assert facts["jaxmarl"] == "0.2.0"
    assert facts["jax"] == jax.__version__


# A view of any battlefield against a slow reading of oxwhirl's source, unit by unit.


def scatter(made, seed):
    """A battle's state with units anywhere, hurt, dead and reloading; of any type where teams are random."""
    rng, env = np.random.default_rng(seed), made.game.env
    k = env.num_allies + env.num_enemies
    kinds = rng.choice(env.unit_type_names, k) if "teams" in made.game.task.roster else None
    spread = rng.choice([2.0, 6.0, 16.0])
    state = made.start(kinds, np.clip(rng.normal([16, 16], spread, (k, 2)), 0, 32))
    lives = rng.random(k) < 0.8
    shield = np.asarray(state.unit_shield) * rng.uniform(0, 1, k) * lives  # they grow while health stays hurt
    health = np.asarray(made.game.full_health[state.unit_types]) * rng.uniform(0.05, 1, k) * lives + shield
    return state.replace(
        unit_health=jnp.asarray(health, jnp.float32),
        unit_shield=jnp.asarray(shield, jnp.float32),
        unit_alive=jnp.asarray(health > 0),
        unit_weapon_cooldowns=jnp.asarray(rng.uniform(-0.2, 0.6, k), jnp.float32),
    )


class Oxwhirl:
    """SMAC's get_obs_agent, get_state and get_avail_agent_actions for one battlefield."""

    def __init__(self, made, state):
        game, env = made.game, made.game.env
        self.n, self.m, self.v2 = game.n, game.m, game.task.family == "smacv2"
        self.unit = [UNITS[env.unit_type_names[int(t)]] for t in state.unit_types]
        types = [int(t) for t in state.unit_types]
        if game.task.name == "smac/2s3z":  # an ally's is its place among the map's units, an enemy's the game's id - 73
            types[self.n :] = [{"zealot": 73, "stalker": 74}[env.unit_type_names[t]] - 73 for t in types[self.n :]]
        self.bits = [list(np.eye(game.task.roster.get("type_bits", 0))[t]) if game.type_bits else [] for t in types]
        self.at = np.asarray(state.unit_positions, np.float64)
        self.pool = np.asarray(state.unit_health, np.float64)
        self.shell = np.asarray(state.unit_shield, np.float64)
        self.reload = np.asarray(state.unit_weapon_cooldowns, np.float64)
        sides = (self.unit[: self.n], self.unit[self.n :])
        self.shields = [any(u.shield for u in side) for side in sides]

    def health(self, k):
        return (self.pool[k] - self.shell[k]) / self.unit[k].health

    def shield(self, k):
        share = self.shell[k] / self.unit[k].shield if self.unit[k].shield else 0.0
        return [share] if self.shields[k >= self.n] else []

    def gap(self, i, k):
        return float(np.hypot(*(self.at[k] - self.at[i])))

    def legal(self, i):
        if self.pool[i] <= 0:
            return [1] + [0] * (5 + self.m)
        x, y = self.at[i]
        moves = [y + 1 < 32, y - 1 > 0, x + 1 < 32, x - 1 > 0]
        reach = max(self.unit[i].range, 2) if self.v2 else 6
        foes = [self.pool[self.n + j] > 0 and self.gap(i, self.n + j) <= reach for j in range(self.m)]
        return [0, 1, *map(int, moves), *(int(f and not self.unit[i].heals) for f in foes)]

    def obs(self, i):
        if self.pool[i] <= 0:
            width = 4 + self.shields[1] + len(self.bits[-1]) + 1
            return [0.0] * (4 + self.m * width + (self.n - 1) * (5 + self.shields[0] + len(self.bits[0])) + self.own())
        sight, legal = (self.unit[i].sight if self.v2 else 9), self.legal(i)
        row = [float(v) for v in legal[2:6]]
        for k in [*range(self.n, self.n + self.m), *(j for j in range(self.n) if j != i)]:
            seen = self.gap(i, k) < sight and self.pool[k] > 0
            flag = legal[6 + k - self.n] if k >= self.n else 1
            dx, dy = (self.at[k] - self.at[i]) / sight
            facts = [flag, self.gap(i, k) / sight, dx, dy, self.health(k), *self.shield(k), *self.bits[k]]
            row += facts if seen else [0.0] * len(facts)
        place = list(self.at[i] / 32) if self.v2 else []
        return [*row, self.health(i), *self.shield(i), *place, *self.bits[i]]

    def own(self):
        return 1 + self.shields[0] + 2 * self.v2 + len(self.bits[0])

    def state(self, last):
        row = []
        for k in range(self.n + self.m):
            place = list((self.at[k] - 16) / 32)
            reload = [max(self.reload[k] / self.unit[k].cooldown, 0)] if k < self.n else []
            facts = [self.health(k), *reload, *place, *self.shield(k), *self.bits[k]]
            row += facts if self.pool[k] > 0 else [0.0] * len(facts)
        return [*row, *last.ravel()]


@pytest.mark.parametrize("name", ["smac/3m", "smac/2s3z", "smacv2/terran_5_vs_5", "smacv2/zerg_5_vs_5"])
def test_views_equal_a_unit_by_unit_reading_of_smac(name, game_of):
    made, shown = game_of(name), {"legal": 0, "dead": 0, "seen": 0}
    for seed in range(12):
        state = scatter(made, seed)
        last = np.eye(made.game.task.actions)[np.random.default_rng(seed).integers(0, 9, made.game.n)]
        view, slow = made.see(state, jnp.asarray(last)), Oxwhirl(made, state)
        for i in range(made.game.n):
            assert np.asarray(view.legal[i]).astype(int).tolist() == slow.legal(i)
            np.testing.assert_allclose(view.obs[i], slow.obs(i), atol=2e-6)
            shown["legal"] += int(np.asarray(view.legal[i])[6:].sum())
            shown["dead"] += bool(view.legal[i, 0])
        np.testing.assert_allclose(view.state, slow.state(last), atol=2e-6)
        shown["seen"] += int((np.asarray(view.obs)[:, 5] > 0).sum())
    assert min(shown.values()) > 5  # the battlefields did show attacks, dead units and enemies in sight


# Rules, one by one.


def standing(made, at, kinds=None, **health):
    """Units at these places; health u0=0 kills."""
    state = made.start(kinds, at)
    pool = state.unit_health
    for unit, value in health.items():
        pool = pool.at[int(unit[1:])].set(value)
    return state.replace(unit_health=pool, unit_alive=pool > 0)


def legal_of(made, at, **health):
    state = standing(made, at, **health)
    return np.asarray(made.see(state, jnp.zeros((made.game.n, made.game.task.actions))).legal)


def test_the_dead_may_do_nothing_and_the_living_may_not_do_nothing(game_of):
    legal = legal_of(game_of("smac/3m"), [(10, 16), (11, 16), (12, 16), (14, 16), (15, 16), (16, 16)], u1=0.0)
    assert legal[1].astype(int).tolist() == [1] + [0] * 8
    assert legal[[0, 2], 0].tolist() == [False, False]
    assert legal[[0, 2], 1].all()


def test_an_attack_is_legal_within_six_though_a_marine_shoots_only_five(game_of):
    assert UNITS["marine"].range == 5
    at = [(10, 16), (2, 2), (2, 4), (16, 16), (10, 22.1), (10, 10.1)]
    legal = legal_of(game_of("smac/3m"), at)
    assert legal[0, 6:].tolist() == [True, False, True]
    assert not legal[1:, 6:].any()


def test_an_attack_on_the_dead_is_illegal(game_of):
    at = [(10, 16), (2, 2), (2, 4), (12, 16), (12, 17), (12, 15)]
    assert legal_of(game_of("smac/3m"), at, u4=0.0)[0, 6:].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("place", "north", "south", "east", "west"),
    [
        ((16, 16), True, True, True, True),
        ((16, 31.2), False, True, True, True),
        ((16, 0.8), True, False, True, True),
        ((31.2, 16), True, True, False, True),
        ((31, 31), False, True, False, True),
        ((1, 1), True, False, True, False),
        ((0.8, 16), True, True, True, False),
        ((0.5, 31.5), False, True, True, False),
    ],
)
def test_moves_are_blocked_at_the_border(game_of, place, north, south, east, west):
    legal = legal_of(game_of("smac/3m"), [place, (10, 10), (10, 12), (20, 20), (20, 21), (20, 22)])
    assert legal[0, 1:6].tolist() == [True, north, south, east, west]


def test_ranges_of_smacv2_are_the_units_own_but_at_least_two(game_of):
    made = game_of("smacv2/zerg_5_vs_5")
    kinds = ["zergling", "hydralisk", "baneling", "zergling", "zergling"] * 2
    for gap, expected in ((1.9, [True, True, True]), (2.1, [False, True, False]), (5.1, [False, False, False])):
        at = [(5, 5), (5, 15), (5, 25), (30, 1), (30, 3), (5 + gap, 5), (5 + gap, 15), (5 + gap, 25), (1, 30), (1, 31)]
        legal = np.asarray(made.see(standing(made, at, kinds), jnp.zeros((5, 11))).legal)
        assert [bool(legal[i, 6 + i]) for i in range(3)] == expected


def test_a_medivac_has_no_attack_actions(game_of):
    made = game_of("smacv2/terran_5_vs_5")
    kinds = ["medivac", "marine", "marauder", "marine", "marine"] * 2
    at = [(10, 16 + 0.5 * k) for k in range(5)] + [(12, 16 + 0.5 * k) for k in range(5)]
    legal = made.see(standing(made, at, kinds), jnp.zeros((5, 11))).legal
    assert np.asarray(legal)[:, 6:].any(1).tolist() == [False, True, True, True, True]
    assert np.asarray(legal)[0, 1:6].all()


# Reward.


def after_hits(state, health):
    pool = jnp.asarray(health, jnp.float32)
    return state.replace(unit_health=pool, unit_alive=pool > 0)


def test_the_reward_is_damage_kills_and_victory_in_smacs_shares(game_of):
    made = game_of("smac/3m")
    state = made.start()
    worth = 3 * 45 + 3 * 10 + 200

    def paid(before, after, won=False):
        before, after = (after_hits(state, [45, 45, 45, *foes]) for foes in (before, after))
        return float(made.game.reward(before, after, jnp.array(won)))

    assert paid((45, 45, 45), (45, 45, 45)) == 0
    assert paid((45, 45, 45), (33, 45, 39)) == pytest.approx(20 * 18 / worth, rel=1e-6)
    assert paid((33, 45, 39), (0, 45, 39)) == pytest.approx(20 * (33 + 10) / worth, rel=1e-6)
    assert paid((0, 45, 39), (0, 45, 39)) == 0  # the dead are paid for once
    assert paid((0, 0, 6), (0, 0, 0), won=True) == pytest.approx(20 * (6 + 10 + 200) / worth, rel=1e-6)


def test_our_own_losses_cost_nothing(game_of):
    made = game_of("smac/3m")
    state = made.start()
    before, after = after_hits(state, [45] * 6), after_hits(state, [0, 0, 10, 45, 45, 45])
    assert float(made.game.reward(before, after, jnp.array(False))) == 0


def test_shields_count_as_health(game_of):
    made = game_of("smac/2s3z")
    state = made.start()
    full = [160, 160, 150, 150, 150]
    worth = sum(full) + 50 + 200
    before, after = after_hits(state, full * 2), after_hits(state, [*full, 150, 160, 150, 150, 100])
    assert float(made.game.reward(before, after, jnp.array(False))) == pytest.approx(20 * 60 / worth, rel=1e-6)


def test_what_foes_regain_is_taken_from_the_damage_of_the_step(game_of):
    v1, v2 = game_of("smac/3m"), game_of("smacv2/terran_5_vs_5")
    for made, alone in ((v1, 10.0), (v2, 0.0)):  # SMAC pays the size of the sum, SMACv2 never less than nothing
        state, n = made.start(), made.game.n

        def paid(before, after, made=made, state=state, n=n):
            before, after = (after_hits(state, [45] * n + [*foes, *[45] * (n - 2)]) for foes in (before, after))
            return float(made.game.reward(before, after, jnp.array(False)))

        point = 20 / (45 * n + 10 * n + 200)
        assert paid((20, 45), (30, 45)) == pytest.approx(alone * point, rel=1e-5)
        assert paid((20, 45), (30, 25)) == pytest.approx(10 * point, rel=1e-5)
        assert paid((20, 5), (30, 0)) == pytest.approx((5 - 10 + 10) * point, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), max_size=5))
def test_any_way_to_win_pays_twenty_in_all(game_of, shares):
    made = game_of("smac/2s3z")
    state = made.start()
    foes = np.array([160, 160, 150, 150, 150.0])
    path = [foes]
    for row in shares:
        path.append(np.round(path[-1] * np.array(row), 2))
    path.append(0 * foes)
    path = path[: next(k for k, health in enumerate(path) if not health.any()) + 1]
    states = [after_hits(state, [160, 160, 150, 150, 150, *health]) for health in path]
    paid = [
        float(made.game.reward(before, after, jnp.array(not health.any())))
        for before, after, health in zip(states, states[1:], path[1:])
    ]
    assert sum(paid) == pytest.approx(20, abs=1e-4)
