"""SMAX with the behaviours of StarCraft that the papers' maps need and the package does not have.

`Battle` overrides three methods of `jaxmarl.environments.smax.SMAX` (0.2.0, pinned; a test holds their signatures): an
attack order on a unit out of range walks towards it, armour takes from every hit on health, shields are hit first and
grow again, colossi hit a line, banelings burst, medivacs heal the worst hurt ally near them, and units that cannot
climb stay in the corridor of 2c_vs_64zg.
"""

import builtins
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from offmarl.benchmarks.smax.starts import FixedStarts, MirroredTeams, RandomStarts
from offmarl.benchmarks.smax.units import SHIELD_DELAY, SHIELD_PER_SECOND, UNITS, blow

# What decides the episodes of a seed, whatever the variables and settings of the process that imports this.
PINNED = {
    "jax_platforms": "cpu",  # battles are small; the accelerator belongs to the networks
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_matmul_precision": None,
    "jax_disable_jit": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
}
for setting, value in PINNED.items():
    jax.config.update(setting, value)

_print, builtins.print = builtins.print, lambda *_, **__: None  # the package prints past any redirection of stdout
_streams = sys.stdout, sys.stderr  # and puts the process's own in their place, which a notebook's are not
try:
    from jaxmarl.environments.smax import HeuristicEnemySMAX, Scenario
    from jaxmarl.environments.smax.heuristic_enemy import create_heuristic_policy
    from jaxmarl.environments.smax.smax_env import SMAX, State
finally:
    builtins.print = _print
    sys.stdout, sys.stderr = _streams


GAME_LOOPS_PER_SECOND = 22.4  # the Faster clock; an action lasts eight loops
# A colossus hits 2.8 across and 0.3 deep. SMAX's units stand closer together than the game's, so at full width even a
# colossus that never moves beats OG-MARL's Poor and Medium policies; 0.6 of it restores their order.
LINE_HALF_LENGTH, LINE_HALF_WIDTH = 0.15, 0.6 * 1.4
BLAST_RADIUS = 2.2
HEAL_RANGE, HEAL_PER_SECOND = 4.0, 12.6


@struct.dataclass
class BattleState(State):
    """SMAX's state with shields; `unit_health` is health and shield together."""

    unit_shield: jax.Array  # [K], of `unit_health`
    unit_calm: jax.Array  # [K] seconds since the last hit


class Battle(SMAX):
    """SMAX between two rosters of StarCraft units, K units in all.

    `types` are the names of the map's unit types, in the order of the type bits; `area_units` the indices of units that
    may be colossi or banelings (their damage is found pair by pair); `corridor` the (low, high) y-limits for units that
    cannot climb, or None; `settings` keyword arguments of `SMAX`.
    """

    def __init__(
        self, types: Sequence[str], area_units: Sequence[int], corridor: tuple[float, float] | None, settings: dict
    ):
        super().__init__(**settings)
        units = [UNITS[name] for name in types]
        self.damage = jnp.array([[blow(u, v) for v in units] for u in units])  # [T,T,2]: to shields, to health
        self.life, self.shield = (jnp.array([getattr(u, part) for u in units]) for part in ("health", "shield"))
        self.heals = jnp.array([u.heals for u in units])
        self.climbs = jnp.array([u.climbs for u in units])
        self.line = jnp.array([u.area == "line" for u in units])
        self.blast = jnp.array([u.area == "blast" for u in units])
        self.has_medics = any(u.heals for u in units)
        self.area_units = np.array(area_units, int)
        self.corridor = corridor

    def reset(self, key: jax.Array) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Observations and state of a new battle."""
        obs, state = super().reset(key)
        return obs, self.shielded(state)

    def shielded(self, state: Any) -> BattleState:
        """SMAX's state with the shields that its units have left if health was hurt last."""
        shield = jnp.maximum(state.unit_health - self.life[state.unit_types], 0.0)
        return BattleState(**vars(state), unit_shield=shield, unit_calm=jnp.zeros_like(shield))

    def _push_units_away(self, state: Any, firmness: float = 1.0) -> Any:
        state = super()._push_units_away(state, firmness)
        if self.corridor is None:
            return state
        y = state.unit_positions[:, 1]
        y = jnp.where(self.climbs[state.unit_types], y, jnp.clip(y, *self.corridor))
        return state.replace(unit_positions=state.unit_positions.at[:, 1].set(y))

    def _world_step(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, key: jax.Array, state: Any, actions: tuple[jax.Array, jax.Array]
    ) -> Any:
        """One game loop: move, attack, heal. `actions` are directions [K,2] and attack orders [K]."""
        move, attack = actions
        kind, alive, position = state.unit_types, state.unit_alive, state.unit_positions
        target = self._targets(attack)
        offset = position[target] - position
        distance = jnp.linalg.norm(offset, axis=-1)
        ordered = (target != jnp.arange(self.num_agents)) & alive & alive[target] & ~self.heals[kind]
        in_range = distance < self.unit_type_attack_ranges[kind]
        move = jnp.where((ordered & ~in_range)[:, None], offset / (distance[:, None] + 1e-6), move)

        strikes = ordered & in_range & (state.unit_weapon_cooldowns <= 0.0)
        health, shield, calm = self._after_hits(state, *self._damage_taken(state, strikes, target))
        if self.has_medics:
            health = self._healed(state, health)
        jitter = jax.random.uniform(key, (self.num_agents,), minval=-self.time_per_step, maxval=2 * self.time_per_step)
        cooldown = jnp.where(
            strikes, self.unit_type_weapon_cooldowns[kind] + jitter, state.unit_weapon_cooldowns - self.time_per_step
        )
        step = move * self.unit_type_velocities[kind][:, None] * self.time_per_step
        border = jnp.array([self.map_width, self.map_height], jnp.float32)
        walked = jnp.where(alive[:, None], jnp.clip(position + step, 0.0, border), position)
        return state.replace(
            unit_positions=walked,
            unit_health=health,
            unit_shield=shield,
            unit_calm=calm,
            unit_weapon_cooldowns=cooldown,
        )

    def _targets(self, attack: jax.Array) -> jax.Array:
        """The unit that each was ordered to attack [K], else its own; enemies count allies backwards, as in SMAX."""
        me, n = jnp.arange(self.num_agents), self.num_allies
        order = attack - self.num_movement_actions
        return jnp.where(order < 0, me, jnp.where(me < n, n + order, n - 1 - order))

    def _damage_taken(self, state: Any, strikes: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Damage of each unit, to shields and to health [K,2], and which units die of their own attack [K]."""
        kind, alive, K = state.unit_types, state.unit_alive, self.num_agents
        single = strikes & ~self.line[kind] & ~self.blast[kind]
        dealt = jnp.where(single[:, None], self.damage[kind, kind[target]], 0.0)
        taken, bursting = jax.ops.segment_sum(dealt, target, K), jnp.zeros(K, bool)
        if not len(self.area_units):
            return taken, bursting
        u = self.area_units
        hit = self._area_hits(state, u, target) & strikes[u, None] & alive[None]
        taken += (hit[..., None] * self.damage[kind[u]][:, kind]).sum(0)
        return taken, bursting.at[u].set(strikes[u] & self.blast[kind[u]])

    def _after_hits(self, state: Any, taken: jax.Array, bursting: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Health and shield together, shield, and seconds since the last hit, all [K].

        Damage goes to the shield first. What is left, as a share of all, goes to health less the armour.
        """
        kind, shield = state.unit_types, state.unit_shield
        to_shield, to_health = taken.T
        held = jnp.minimum(shield, to_shield)
        through = (to_shield - held) / jnp.maximum(to_shield, 1e-6)
        life = jnp.maximum(state.unit_health - shield - through * to_health, 0.0)
        life = jnp.where(bursting, 0.0, life)
        calm = jnp.where(to_shield > 0, 0.0, state.unit_calm + self.time_per_step)
        grown = jnp.where(calm > SHIELD_DELAY, SHIELD_PER_SECOND * self.time_per_step, 0.0)
        shield = jnp.where(life > 0, jnp.minimum(shield - held + grown, self.shield[kind]), 0.0)
        return life + shield, shield, calm

    def _area_hits(self, state: Any, u: np.ndarray, target: jax.Array) -> jax.Array:
        """Which units [U,K] the area attack of each unit in `u` hits, its target always included."""
        kind, position = state.unit_types, state.unit_positions
        aim = position[target[u]]
        forward = (aim - position[u]) / (jnp.linalg.norm(aim - position[u], axis=-1, keepdims=True) + 1e-6)
        relative = position[None] - aim[:, None]
        along = jnp.abs((relative * forward[:, None]).sum(-1))
        across = jnp.abs(relative[..., 0] * forward[:, None, 1] - relative[..., 1] * forward[:, None, 0])
        radius = self.unit_type_radiuses[kind][None]
        in_line = (along < LINE_HALF_LENGTH + radius) & (across < LINE_HALF_WIDTH + radius)
        in_blast = jnp.linalg.norm(position[None] - position[u][:, None], axis=-1) < BLAST_RADIUS
        foe = jnp.asarray((u[:, None] < self.num_allies) != (np.arange(self.num_agents)[None] < self.num_allies))
        reached = (self.line[kind[u]][:, None] & in_line) | (self.blast[kind[u]][:, None] & in_blast)
        aimed = jnp.arange(self.num_agents)[None] == target[u][:, None]
        area = self.line[kind[u]] | self.blast[kind[u]]
        return ((reached & foe) | aimed) & area[:, None]

    def _healed(self, state: Any, health: jax.Array) -> jax.Array:
        kind, alive = state.unit_types, state.unit_alive
        full = self.unit_type_health[kind]
        ally = np.arange(self.num_agents) < self.num_allies
        same_side = jnp.asarray(ally[:, None] == ally[None])
        gap = jnp.linalg.norm(state.unit_positions[:, None] - state.unit_positions[None], axis=-1)
        patient = alive & ~self.heals[kind] & (health > 0) & (health < full)
        worst = jnp.where(same_side & (gap < HEAL_RANGE) & patient[None], health / full, jnp.inf)
        medic = self.heals[kind] & alive & jnp.isfinite(worst.min(1))
        dose = jnp.where(medic, HEAL_PER_SECOND * self.time_per_step, 0.0)
        return jnp.minimum(health + jax.ops.segment_sum(dose, worst.argmin(1), self.num_agents), full)


def make_battle(roster: dict, limit: int) -> HeuristicEnemySMAX:
    """The battle of a map against SMAX's scripted enemy: `roster` as in tasks.yaml, SMAC's episode limit in actions."""
    teams = roster.get("teams")
    allies = [n for n, c in roster.get("allies", {}).items() for _ in range(c)]
    enemies = [n for n, c in roster.get("enemies", {}).items() for _ in range(c)]
    types = list(teams["weights"]) if teams else list(dict.fromkeys(allies + enemies))
    if teams:
        allies = enemies = [types[0]] * teams["size"]
    ids = jnp.array([types.index(n) for n in allies + enemies], dtype=jnp.uint8)
    units = [UNITS[n] for n in types]

    def column(get: Any) -> jax.Array:
        return jnp.array([get(u) for u in units], jnp.float32)

    settings: dict[str, Any] = dict(
        scenario=Scenario(ids, len(allies), len(enemies), True, bool(teams)),
        max_steps=limit,
        time_per_step=1.0 / GAME_LOOPS_PER_SECOND,
        walls_cause_death=False,
        unit_type_names=types,
        unit_type_shorthands=types,
        unit_type_velocities=column(lambda u: u.speed),
        unit_type_attacks=column(lambda u: u.damage),
        unit_type_attack_ranges=column(lambda u: u.range),
        unit_type_sight_ranges=column(lambda u: u.sight),
        unit_type_radiuses=column(lambda u: u.radius),
        unit_type_health=column(lambda u: u.health + u.shield),
        unit_type_weapon_cooldowns=column(lambda u: u.cooldown),
    )
    anywhere = teams is not None and any(u.area for u in units)
    area_units = [k for k, n in enumerate(allies + enemies) if anywhere or UNITS[n].area]
    corridor = tuple(roster["corridor"]) if "corridor" in roster else None
    battle: Any = Battle(types, area_units, corridor, settings)
    apart = 2 * max(u.radius for u in units if not u.heals)
    if teams:
        exception = types.index(teams["exception"])
        battle.unit_type_generator = MirroredTeams(teams["size"], list(teams["weights"].values()), exception)
        battle.position_generator = RandomStarts(teams["size"], apart)
    else:
        battle.position_generator = FixedStarts(roster["starts"], (allies, enemies), apart)
    game = HeuristicEnemySMAX(**settings)
    game._env = battle
    game.heuristic_policy = create_heuristic_policy(battle, 1, shoot=True, attack_mode="closest")
    return game
