"""SMAX, watched: every unit's place, health, shield and target.

The adapter keeps no picture of its battles, so this reads its protected state: `_battles` and `_lane`, and the order
that SMAX's own state holds for every unit.
"""

from typing import Any

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
FIELDS = ["unit_types", "unit_positions", "unit_health", "unit_shield", "unit_alive", "unit_weapon_cooldowns"]
FIELDS += ["prev_attack_actions", "step"]


class Watched(SmaxEnv):
    """`SmaxEnv` with pictures: a column of every kind in COLUMNS."""

    def __init__(self, task: Task, lanes: int):
        super().__init__(task, lanes)
        self.battle: Any = Game(task).env._env
        self.heals, self.reload = np.asarray(self.battle.heals), np.asarray(self.battle.unit_type_weapon_cooldowns)

    def reset(self, seeds: np.ndarray) -> Any:
        """As the adapter's."""
        view = super().reset(seeds)
        self._show(self._lane, self._battles)
        return view

    def step(self, actions: np.ndarray) -> Any:
        """As the adapter's."""
        self._before = self._lane.copy()
        return super().step(actions)

    def _compact(self) -> None:
        self._show(self._before, self._battles)  # those that have just ended are still there
        super()._compact()

    def _show(self, lanes: np.ndarray, battles: list[Any]) -> None:
        """Keep SMAX's state of all battles, the fields of their units [slots,K], and which slot a lane has."""
        self._slot = {int(lane): slot for slot, lane in enumerate(lanes)}
        states = [vars(battle[1].battle.state) for battle in battles]
        self._states = {name: np.concatenate([np.asarray(state[name]) for state in states]) for name in FIELDS}

    def scene(self, lane: int) -> Scene:
        """The units, the allies first."""
        types, n = self.battle.unit_type_names, self.task.agents
        bodies = []
        for k, kind in enumerate(self._states["unit_types"][self._slot[lane]]):
            unit, own = UNITS[types[kind]], k < n
            sight = unit.sight if self.task.family == "smacv2" else SIGHT_V1
            facts = (unit.radius, unit.health, unit.shield, sight)
            bodies.append(Body(types[kind], OURS if own else THEIRS, k if own else NOBODY, *facts))
        return Scene("units", LOOPS / GAME_LOOPS_PER_SECOND, (0.0, 0.0, SIZE, SIZE), COLUMNS, bodies, MOVES)

    def frame(self, lane: int) -> np.ndarray:
        """Where the units are and what they do: [K,6]."""
        state = {name: values[self._slot[lane]] for name, values in self._states.items()}
        kind, shield, me, n = (
            state["unit_types"],
            state["unit_shield"],
            np.arange(self.battle.num_agents),
            self.task.agents,
        )
        order = state["prev_attack_actions"] - self.battle.num_movement_actions
        target = np.where(order < 0, me, np.where(me < n, n + order, n - 1 - order))  # as `Battle._targets`
        mute = (target == me) | (state["step"] == 0) | self.heals[kind]
        since = self.reload[kind] - state["unit_weapon_cooldowns"]  # seconds, less the jitter of a cooldown
        fires = ~mute & (since < LOOPS / GAME_LOOPS_PER_SECOND)
        aims = np.where(mute | ~(state["unit_alive"] | fires), NOBODY, target)
        columns = [*state["unit_positions"].T, state["unit_health"] - shield, shield, aims]
        return np.stack([*columns, fires], -1).astype(np.float64)
