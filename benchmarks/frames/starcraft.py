"""Real StarCraft, watched: what the game tells of its units.

The game tells nothing of an enemy's weapon and orders, so enemies have no target and never fire here; whom they hit is
seen by its health. A unit of ours fired when its weapon's cooldown rose, which it does where a weapon takes longer to
reload than an action lasts, as all of these maps' do.

Source: oxwhirl's smac and smacv2 and InstaDeep's og-marl, `update_units` and `get_agent_action`; raw.proto of
s2client-proto ("not populated for enemies").
"""

from importlib import import_module
from typing import Any

import numpy as np

from offmarl.benchmarks.frames.film import NOBODY, OURS, THEIRS, UNIT_COLUMNS, UNIT_MOVES, Body, Scene
from offmarl.benchmarks.starcraft.env import STEP_SECONDS, Game, StarCraftEnv
from offmarl.benchmarks.tasks import Task

LOOPS_PER_SECOND = 22.4  # of the game, on the Faster clock


class WatchedGame(Game):
    """A game, in its worker, that tells of its units."""

    def reset(self, seed: int) -> tuple[np.ndarray, ...]:
        """As the game's."""
        seen = super().reset(seed)
        self.ordered, self.reloads = [0] * len(self.agents), self._reloads()
        self.fired = np.zeros(len(self.agents), bool)
        return seen

    def step(self, actions: list[int]) -> tuple:
        """As the game's."""
        outcome, before = super().step(actions), self.reloads
        self.ordered, self.reloads = actions, self._reloads()
        self.fired = self.reloads > before
        return outcome

    def scene(self, _: None) -> Scene:
        """The units, the allies first."""
        core, bodies = self.core, []
        for k, unit in enumerate(self._units()):
            own = k < len(self.agents)
            facts = (unit.radius, unit.health_max, unit.shield_max, core.unit_sight_range(k) if own else 0.0)
            side, agent = (OURS, k) if own else (THEIRS, NOBODY)
            bodies.append(Body(self._kind(unit.unit_type), side, agent, *map(float, facts)))
        tick = core._step_mul / LOOPS_PER_SECOND
        return Scene("units", tick, (0.0, 0.0, core.map_x, core.map_y), UNIT_COLUMNS, bodies, UNIT_MOVES)

    def frame(self, _: None) -> np.ndarray:
        """Where the units are and what they do: [K,6] float32."""
        rows = []
        for k, unit in enumerate(self._units()):
            fires = k < len(self.agents) and bool(self.fired[k])
            aim = self._target(k, unit) if unit.health > 0 or fires else NOBODY
            rows.append((unit.pos.x, unit.pos.y, unit.health, unit.shield * (unit.health > 0), aim, fires and aim >= 0))
        return np.array(rows, np.float32)

    def _units(self) -> list[Any]:
        """The package's own list; it leaves a dead unit where it was, with a health of 0."""
        return [side[k] for side in (self.core.agents, self.core.enemies) for k in sorted(side)]

    def _reloads(self) -> np.ndarray:
        return np.array([self.core.agents[k].weapon_cooldown for k in self.agents])

    def _target(self, k: int, unit: Any) -> int:
        """The body that a unit was ordered to attack; a medivac heals."""
        if k >= len(self.agents) or unit.unit_type == self.core.medivac_id or self.ordered[k] < len(UNIT_MOVES):
            return NOBODY
        return len(self.agents) + self.ordered[k] - len(UNIT_MOVES)

    def _kind(self, number: int) -> str:
        """The name of a unit type: SMAC's maps have types of their own, which the package names as `marine_id`."""
        own = {value: name for name, value in vars(self.core).items() if name.endswith("_id") and value}
        if number in own:
            return own[number].removesuffix("_id")
        found = import_module("pysc2.lib.units").get_unit_type(number)
        return found.name.lower() if found else f"unit {number}"


class Watched(StarCraftEnv):
    """`StarCraftEnv` with pictures. A lane whose game crashed keeps its last one."""

    game = WatchedGame

    def __init__(self, task: Task, lanes: int):
        super().__init__(task, lanes)
        self._last: dict[int, np.ndarray] = {}

    def scene(self, lane: int) -> Scene:
        """The units of a lane, the allies first. Raises RuntimeError where its game has ended."""
        return self._told(lane, "scene")

    def frame(self, lane: int) -> np.ndarray:
        """Where the units are and what they do: [K,6]. Raises RuntimeError where there has been no picture yet."""
        if not self._ends[3, lane] or lane not in self._last:
            self._last[lane] = self._told(lane, "frame")
        return self._last[lane]

    def _told(self, lane: int, what: str) -> Any:
        if not (answers := self._ask({lane: (what, None)}, STEP_SECONDS)):
            raise RuntimeError(f"{self.task.name}: the game of lane {lane} has ended, and has no pictures any more")
        return answers[lane]
