"""SMAC on SMAX: battles with SMAC's observations, state, legal actions, reward and limits.

`Game` is one battle as pure JAX functions (behaviour policies are trained in a scan over it); `SmaxEnv` is a `BatchEnv`
of many battles, as the adapter of real StarCraft is. Layouts follow oxwhirl's SMAC v1 and SMACv2 feature by feature;
the simulator is another one, so results are labelled SMAX.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from offmarl.benchmarks.env import Step, View, cache_dir
from offmarl.benchmarks.smax.battle import make_battle
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import Task

SIGHT_V1, SHOOT_RANGE_V1, MIN_RANGE_V2 = 9.0, 6.0, 2.0
CHUNK = 16  # battles in one compiled call
NOBODY = -1
N_MOVES = 6  # no-op, stop, north, south, east, west; attacks follow
TO_SMAX = jnp.array([4, 4, 0, 2, 1, 3])  # SMAX: north, east, south, west, stop


class Position(NamedTuple):
    """The complete state of a battle."""

    battle: Any  # SMAX state and the scripted enemy's memory
    last_actions: jax.Array  # [I, A] one-hot


class Game:
    """One battle of a task; all methods are pure and can be jitted and vmapped.

    Shapes: I agents, M enemies, O observation, S state, A actions.
    """

    def __init__(self, task: Task):
        self.task, roster = task, task.roster
        self.env = make_battle(roster, task.limit)
        self.n, self.m = self.env.num_allies, self.env.num_enemies
        units = [UNITS[name] for name in self.env.unit_type_names]
        self.full_health = jnp.array([u.health for u in units])
        self.full_shield = jnp.array([u.shield for u in units])
        self.heals = jnp.array([u.heals for u in units])
        self.type_bits, names = roster.get("type_bits", 0), list(self.env.unit_type_names)
        self.enemy_bit = jnp.array([roster.get("enemy_bits", names).index(name) for name in names])
        self.v2 = task.family == "smacv2"
        sides = roster.get("allies", {}), roster.get("enemies", {})
        self.shielded = tuple(any(UNITS[n].shield for n in side) for side in sides)

    def reset(self, key: jax.Array) -> tuple[Position, View]:
        """A new battle."""
        _, battle = self.env.reset(key)
        position = Position(_strong(battle), jnp.zeros((self.n, N_MOVES + self.m)))
        return position, self.view(position)

    def step(self, key: jax.Array, position: Position, actions: jax.Array) -> tuple[Position, Step]:
        """One joint action [I], which lasts eight game loops."""
        before = position.battle.state
        orders = jnp.where(actions < N_MOVES, TO_SMAX[jnp.minimum(actions, N_MOVES - 1)], actions - 1)
        _, battle, *_ = self.env.step_env(
            key, position.battle, {agent: orders[i] for i, agent in enumerate(self.env.agents)}
        )
        after = battle.state
        position = Position(_strong(battle), jax.nn.one_hot(actions, N_MOVES + self.m))
        fights = after.unit_alive & ~self.heals[after.unit_types]  # medivacs alone are a lost side
        ours, theirs = fights[: self.n].any(), fights[self.n :].any()
        won, over = ours & ~theirs, ~ours | ~theirs
        late = after.step >= self.task.limit
        return position, Step(self.view(position), self.reward(before, after, won), over | late, late & ~over, won)

    def reward(self, before: Any, after: Any, won: jax.Array) -> jax.Array:
        """SMAC's team reward: damage, 10 for a kill, 200 for the win, scaled so that all of them pay 20.

        Sources: reward_battle in starcraft2.py of oxwhirl/smac and smacv2, with its default switches. What the enemies
        regain in a step is taken from the damage; where it is more, SMAC pays the difference and SMACv2 nothing.
        """
        foes = slice(self.n, None)
        full = (self.full_health + self.full_shield)[before.unit_types[foes]].sum()
        damage = (before.unit_health[foes] - after.unit_health[foes]).sum()
        harm = damage + 10.0 * (before.unit_alive[foes] & ~after.unit_alive[foes]).sum()
        harm = jnp.maximum(harm, 0.0) if self.v2 else jnp.abs(harm)
        return 20.0 * (harm + 200.0 * won) / (full + 10.0 * self.m + 200.0)

    def view(self, position: Position) -> View:
        """Observations [I,O], state [S] and legal actions [I,A], laid out as SMAC does."""
        s, n = position.battle.state, self.n
        kind, alive, place = s.unit_types, s.unit_alive, s.unit_positions
        health = (s.unit_health - s.unit_shield) / self.full_health[kind]
        shield = s.unit_shield / jnp.maximum(self.full_shield[kind], 1.0)
        bit = jnp.where(jnp.arange(n + self.m) < n, kind, self.enemy_bit[kind])
        bits = jax.nn.one_hot(bit, self.type_bits) if self.type_bits else jnp.zeros((n + self.m, 0))

        sight, reach = self._ranges(kind[:n])
        relative = place[None] - place[:n, None]  # [I, I+M, 2]
        distance = jnp.linalg.norm(relative, axis=-1)
        acting = alive[:n, None]
        visible = (distance < sight) & alive[None] & acting
        legal = self._legal(place, kind, distance, alive, reach)
        can_attack, can_move = legal[:, N_MOVES:], legal[:, 2:N_MOVES]

        def features(flag: jax.Array, side: slice, shielded: bool) -> jax.Array:
            shape = distance[:, side].shape
            columns = [
                flag[..., None],
                distance[:, side, None] / sight[..., None],
                relative[:, side] / sight[..., None],
            ]
            columns.append(jnp.broadcast_to(health[side], shape)[..., None])
            if shielded:
                columns.append(jnp.broadcast_to(shield[side], shape)[..., None])
            columns.append(jnp.broadcast_to(bits[side], (*shape, self.type_bits)))
            return jnp.concatenate(columns, -1) * visible[:, side, None]

        enemies = features(can_attack, slice(n, None), self.shielded[1]).reshape(n, -1)
        others = np.array([[j for j in range(n) if j != i] for i in range(n)])
        allies = features(visible[:, :n], slice(0, n), self.shielded[0])[np.arange(n)[:, None], others].reshape(n, -1)
        own = [health[:n, None]]
        own += [shield[:n, None]] if self.shielded[0] else []
        own += [place[:n] / 32.0] if self.v2 else []
        own = jnp.concatenate([*own, bits[:n]], -1) * acting
        obs = jnp.concatenate([can_move, enemies, allies, own], -1)

        reload = jnp.maximum(s.unit_weapon_cooldowns / self.env.unit_type_weapon_cooldowns[kind], 0.0)
        from_centre = (place - 16.0) / 32.0
        mine = [health[:n, None], reload[:n, None], from_centre[:n]]
        mine += [shield[:n, None]] if self.shielded[0] else []
        theirs = [health[n:, None], from_centre[n:]]
        theirs += [shield[n:, None]] if self.shielded[1] else []
        mine = jnp.concatenate([*mine, bits[:n]], -1) * acting
        theirs = jnp.concatenate([*theirs, bits[n:]], -1) * alive[n:, None]
        state = jnp.concatenate([mine.ravel(), theirs.ravel(), position.last_actions.ravel()])
        return View(obs.astype(jnp.float32), state.astype(jnp.float32), legal.astype(bool))

    def _ranges(self, kind: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sight and attack range of each ally [I,1]: fixed in SMAC v1, the unit's own in SMACv2."""
        if not self.v2:
            return jnp.full((self.n, 1), SIGHT_V1), jnp.full((self.n, 1), SHOOT_RANGE_V1)
        reach = jnp.maximum(self.env.unit_type_attack_ranges[kind], MIN_RANGE_V2)
        return self.env.unit_type_sight_ranges[kind][:, None], reach[:, None]

    def _legal(self, place: Any, kind: Any, distance: Any, alive: Any, reach: Any) -> jax.Array:
        """Legal actions [I,A] as floats: only no-op for the dead, attacks within SMAC's range."""
        n, here = self.n, place[: self.n]
        acting = alive[:n, None]
        room = jnp.stack([here[:, 1] < 31, here[:, 1] > 1, here[:, 0] < 31, here[:, 0] > 1], -1)
        attack = (distance[:, n:] <= reach) & alive[None, n:] & ~self.heals[kind[:n]][:, None]
        return jnp.concatenate([~acting, acting, room & acting, attack & acting], 1).astype(jnp.float32)


def _strong(tree: Any) -> Any:
    """Give every leaf a strong type; otherwise the second step of a battle would compile again."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


@cache
def _compiled(task: Task) -> tuple[Any, Any]:
    """Jitted reset and step of a chunk of battles; each compiles once per map."""
    folder = cache_dir() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    game = Game(task)

    def reset(seed: jax.Array) -> Any:
        key, start = jax.random.split(jax.random.PRNGKey(seed))
        return key, *game.reset(start)

    def step(key: jax.Array, position: Position, actions: jax.Array) -> Any:
        key, now = jax.random.split(key)
        return key, *game.step(now, position, actions)

    return jax.jit(jax.vmap(reset)), jax.jit(jax.vmap(step), donate_argnums=(1,))


class SmaxEnv:
    """`lanes` battles stepped together; a `BatchEnv`.

    Battles are stepped in chunks of one size, so a map compiles once whatever the number of lanes. Finished battles are
    skipped: the last one of many costs one chunk. A finished lane keeps its last view and gets no reward.
    """

    def __init__(self, task: Task, lanes: int, chunk: int = CHUNK):
        self.task, self.lanes, self.chunk = task, lanes, chunk
        self._reset, self._step = _compiled(task)

    @classmethod
    def single(cls, task: Task) -> "SmaxEnv":
        """One battle, in a chunk of its own."""
        return cls(task, 1, chunk=1)

    def reset(self, seeds: np.ndarray) -> View:
        """Start a battle in every lane, each from its own seed: [E]."""
        slots = np.arange(-(-self.lanes // self.chunk) * self.chunk)
        self._lane = np.where(slots < self.lanes, slots, NOBODY)  # whose battle is in each slot
        padded = np.resize(np.asarray(seeds, np.int32), len(slots))
        started = [self._reset(jnp.asarray(part)) for part in self._chunks(padded)]
        self._battles = [battle for *battle, _ in started]
        view = View(*(np.concatenate(part)[: self.lanes] for part in zip(*(view for *_, view in started))))
        flags = (np.zeros(self.lanes, bool) for _ in range(3))
        self._last = Step(view, np.zeros(self.lanes, np.float32), *flags)
        return View(*(part.copy() for part in view))

    def step(self, actions: np.ndarray) -> Step:
        """Joint actions [E,I], which should be legal: an attack on an enemy out of range walks towards it."""
        orders = np.asarray(actions, np.int32)[self._lane]
        outcomes = []
        for k, part in enumerate(self._chunks(orders)):
            *self._battles[k], outcome = self._step(*self._battles[k], jnp.asarray(part))
            outcomes.append(outcome)
        self._last.reward[:] = 0.0
        there = self._lane != NOBODY
        for kept, parts in zip(_flat(self._last), zip(*map(_flat, outcomes))):
            kept[self._lane[there]] = np.concatenate(parts)[there]
        self._lane[there & self._last.done[self._lane]] = NOBODY
        self._compact()
        obs, state, legal, *rest = (part.copy() for part in _flat(self._last))
        return Step(View(obs, state, legal), *rest)

    def _compact(self) -> None:
        """Move the running battles into as few chunks as possible."""
        going = np.flatnonzero(self._lane != NOBODY)
        chunks = -(-len(going) // self.chunk)
        if chunks == len(self._battles):
            return
        slots = np.resize(going, chunks * self.chunk)
        lane = self._lane[slots]
        lane[len(going) :] = NOBODY
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *self._battles)
        self._battles = [
            jax.tree.map(lambda x, part=part: jnp.asarray(x[part]), joined) for part in self._chunks(slots)
        ]
        self._lane = lane

    def _chunks(self, slots: np.ndarray) -> list[np.ndarray]:
        return np.split(slots, len(slots) // self.chunk) if len(slots) else []

    def close(self) -> None:
        """Nothing to release."""


def _flat(step: Step) -> tuple[Any, ...]:
    return tuple(part for part in (*step.view, *step[1:]) if part is not None)
