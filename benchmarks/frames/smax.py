"""SMAX, watched: every unit's place, health, shield and target.

The adapter keeps no picture of its battles, so this reads its protected state: `_battles` and `_lane`, and the order
that SMAX's own state holds for every unit.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from offmarl.benchmarks.frames.film import NOBODY, OURS, THEIRS, Body, Scene
from offmarl.benchmarks.smax.battle import GAME_LOOPS_PER_SECOND
from offmarl.benchmarks.smax.env import SIGHT_V1, Game, SmaxEnv
from offmarl.benchmarks.smax.starts import SIZE
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import Task

LOOPS = 8  # of the game in an action
MOVES = ["none", "stop", "north", "south", "east", "west"]
# `fires`: whether it struck in the last action; `target`: the body that it was ordered to attack, or NOBODY.
COLUMNS = {"x": 0.02, "y": 0.02, "health": 0.1, "shield": 0.1, "target": 1.0, "fires": 1.0}


class Watched(SmaxEnv):
    """`SmaxEnv` with pictures: a column of every kind in COLUMNS."""

    def __init__(self, task: Task, lanes: int):
        super().__init__(task, lanes)
        self.battle: Any = Game(task).env._env

    def reset(self, seeds: np.ndarray) -> Any:
        """As the adapter's."""
        view = super().reset(seeds)
        self._shown = self._lane.copy(), self._battles
        return view

    def step(self, actions: np.ndarray) -> Any:
        """As the adapter's."""
        self._before = self._lane.copy()
        return super().step(actions)

    def _compact(self) -> None:
        self._shown = self._before, list(self._battles)  # those that have just ended are still there
        super()._compact()

    def _state(self, lane: int) -> Any:
        """SMAX's state of a battle: the fields of its units, [K] each."""
        lanes, battles = self._shown
        chunk, slot = divmod(int(np.flatnonzero(lanes == lane)[0]), self.chunk)
        state = battles[chunk][1].battle.state
        return {name: np.asarray(values)[slot] for name, values in vars(state).items()}

    def scene(self, lane: int) -> Scene:
        """The units, the allies first."""
        types, n = self.battle.unit_type_names, self.task.agents
        bodies = []
        for k, kind in enumerate(self._state(lane)["unit_types"]):
            unit, own = UNITS[types[kind]], k < n
            sight = unit.sight if self.task.family == "smacv2" else SIGHT_V1
            facts = (unit.radius, unit.health, unit.shield, sight)
            bodies.append(Body(types[kind], OURS if own else THEIRS, k if own else NOBODY, *facts))
        return Scene("units", LOOPS / GAME_LOOPS_PER_SECOND, (0.0, 0.0, SIZE, SIZE), COLUMNS, bodies, MOVES)

    def frame(self, lane: int) -> np.ndarray:
        """Where the units are and what they do: [K,6]."""
        state, me = self._state(lane), np.arange(self.battle.num_agents)
        kind, shield = state["unit_types"], state["unit_shield"]
        target = np.asarray(self.battle._targets(jnp.asarray(state["prev_attack_actions"])))
        mute = (target == me) | (state["step"] == 0) | np.asarray(self.battle.heals)[kind]
        reload = np.asarray(self.battle.unit_type_weapon_cooldowns)[kind]
        since = reload - state["unit_weapon_cooldowns"]  # seconds, less the jitter of a cooldown
        fires = ~mute & (since < LOOPS / GAME_LOOPS_PER_SECOND)
        aims = np.where(mute | ~(state["unit_alive"] | fires), NOBODY, target)
        columns = [*state["unit_positions"].T, state["unit_health"] - shield, shield, aims]
        return np.stack([*columns, fires], -1).astype(np.float64)
