"""SMAX, watched: every unit's place, health, shield and target.

The adapter keeps no picture of its battles, so this reads its protected state: `_battles` and `_lane`, and the order
that SMAX's own state holds for every unit.
"""

from typing import Any

import numpy as np

from offmarl.benchmarks.frames.film import NOBODY, OURS, THEIRS, UNIT_COLUMNS, UNIT_MOVES, Body, Scene
from offmarl.benchmarks.smax.battle import GAME_LOOPS_PER_SECOND
from offmarl.benchmarks.smax.env import SIGHT_V1, Game, SmaxEnv
from offmarl.benchmarks.smax.starts import SIZE
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import Task

LOOPS = 8  # of the game in an action


class Watched(SmaxEnv):
    """`SmaxEnv` with pictures: a column of every kind in UNIT_COLUMNS."""

    def __init__(self, task: Task, lanes: int):
        super().__init__(task, lanes)
        self.battle: Any = Game(task).env._env
        self.heals, self.reload = np.asarray(self.battle.heals), np.asarray(self.battle.unit_type_weapon_cooldowns)

    def reset(self, seeds: np.ndarray) -> Any:
        """As the adapter's."""
        view = super().reset(seeds)
        self._shown, self._frames = (self._lane.copy(), self._battles), None
        return view

    def step(self, actions: np.ndarray) -> Any:
        """As the adapter's."""
        self._before = self._lane.copy()
        return super().step(actions)

    def _compact(self) -> None:
        self._shown, self._frames = (self._before, list(self._battles)), None  # those that have just ended are there
        super()._compact()

    def _state(self, name: str) -> np.ndarray:
        """A field of SMAX's state of the units of all battles [slots,K]."""
        return np.concatenate([np.asarray(getattr(battle[1].battle.state, name)) for battle in self._shown[1]])

    def _slot(self, lane: int) -> int:
        return int(np.flatnonzero(self._shown[0] == lane)[0])

    def scene(self, lane: int) -> Scene:
        """The units, the allies first."""
        types, n = self.battle.unit_type_names, self.task.agents
        bodies = []
        for k, kind in enumerate(self._state("unit_types")[self._slot(lane)]):
            unit, own = UNITS[types[kind]], k < n
            sight = unit.sight if self.task.family == "smacv2" else SIGHT_V1
            facts = (unit.radius, unit.health, unit.shield, sight)
            bodies.append(Body(types[kind], OURS if own else THEIRS, k if own else NOBODY, *facts))
        return Scene("units", LOOPS / GAME_LOOPS_PER_SECOND, (0.0, 0.0, SIZE, SIZE), UNIT_COLUMNS, bodies, UNIT_MOVES)

    def frame(self, lane: int) -> np.ndarray:
        """Where the units are and what they do: [K,6]."""
        if self._frames is None:
            self._frames = self._pictures()
        return self._frames[self._slot(lane)]

    def _pictures(self) -> np.ndarray:
        """The frames of all battles: [slots,K,6] float32."""
        kind, shield, n = self._state("unit_types"), self._state("unit_shield"), self.task.agents
        me, order = np.arange(kind.shape[1]), self._state("prev_attack_actions") - self.battle.num_movement_actions
        target = np.where(order < 0, me, np.where(me < n, n + order, n - 1 - order))  # as `Battle._targets`
        mute = (target == me) | (self._state("step") == 0)[:, None] | self.heals[kind]
        since = self.reload[kind] - self._state("unit_weapon_cooldowns")  # seconds, less the jitter of a cooldown
        fires = ~mute & (since < LOOPS / GAME_LOOPS_PER_SECOND)
        aims = np.where(mute | ~(self._state("unit_alive") | fires), NOBODY, target)
        place = self._state("unit_positions")
        columns = [place[..., 0], place[..., 1], self._state("unit_health") - shield, shield, aims, fires]
        return np.stack(columns, -1).astype(np.float32)
