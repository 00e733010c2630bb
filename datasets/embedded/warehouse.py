"""Scripted robots of RWARE's tiny warehouse, who know its map and otherwise what each robot sees: the cells around it.

They drive round it one way and look into the shelves on both sides. Which way is a convention of the team: those of
two conventions would meet head-on in the aisles, which are one cell wide.
"""

from dataclasses import dataclass

import numpy as np

from offmarl.benchmarks.env import View
from offmarl.benchmarks.random_policy import random_legal
from offmarl.benchmarks.tasks import Task

FORWARD, TURN_LEFT, TURN_RIGHT, TOGGLE = 1, 2, 3, 4
UP, DOWN, LEFT, RIGHT = range(4)  # as rware numbers directions
CLOCKWISE = [UP, RIGHT, DOWN, LEFT]
AROUND = {UP: 1, LEFT: 3, RIGHT: 5, DOWN: 7}  # where a robot sees the next cell, of nine
OPPOSITE = {UP: DOWN, DOWN: UP, LEFT: RIGHT, RIGHT: LEFT}
EAST = 9  # the last column
COUNTER, QUEUE = 10, 9  # rows
SELF, CELL = 8, 7  # numbers that a robot sees of itself, and of each cell


@dataclass(frozen=True)
class Robots:
    """Each robot drives round, fetches the requested shelves that it passes, and puts each into a free place."""

    task: Task
    mirrored: bool = False  # drives the other way round
    wander: float = 0.0  # share of random actions, drawn for each robot

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I]."""
        assert view.legal is not None
        random = random_legal(view.legal, rng)
        planned = np.apply_along_axis(self._action, -1, view.obs)
        stuck = (planned == FORWARD) & self._blocked(view.obs) & (rng.random(random.shape) < 0.5)
        return np.where(stuck | (rng.random(random.shape) < self.wander), random, planned)

    def _action(self, obs: np.ndarray) -> int:
        """What a robot does: [O] -> action."""
        wish, heading = self._wish(obs), int(obs[3:7].argmax())
        if wish == TOGGLE:
            return TOGGLE
        turn = (CLOCKWISE.index(wish) - CLOCKWISE.index(heading)) % 4
        return (FORWARD, TURN_RIGHT, TURN_RIGHT, TURN_LEFT)[turn]

    def _wish(self, obs: np.ndarray) -> int:
        """A direction to go, or TOGGLE to load or unload."""
        x, y, carries, highway = int(obs[0]), int(obs[1]), bool(obs[2]), bool(obs[7])
        cells = obs[SELF:].reshape(9, CELL)
        empty, shelf, requested = cells[:, 0] == 0, cells[:, 5] > 0, cells[:, 6] > 0
        if not carries:
            if requested[4]:
                return TOGGLE
            asked = [way for way, k in AROUND.items() if requested[k] and empty[k]]
            return asked[0] if asked else self._round(x, y, highway, to_counter=False)
        if requested[4]:
            return self._round(x, y, highway, to_counter=True)
        if not highway:
            return TOGGLE
        free = [way for way, k in AROUND.items() if _is_place(x, y, way) and not shelf[k] and empty[k]]
        return free[0] if free else self._round(x, y, highway, to_counter=False)

    def _round(self, x: int, y: int, highway: bool, to_counter: bool) -> int:
        """The direction of the one way round, or to the aisle beside a shelf; where it passes, to the counter."""
        x = EAST - x if self.mirrored else x
        way = _way(x, y, to_counter) if highway else (LEFT if x % 3 == 1 else RIGHT)
        return OPPOSITE[way] if self.mirrored and way in (LEFT, RIGHT) else way

    @staticmethod
    def _blocked(obs: np.ndarray) -> np.ndarray:
        """Whether another robot stands in front of each and looks at it: [E,I]."""
        heading = obs[..., 3:7].argmax(-1)
        front = np.take([AROUND[way] for way in range(4)], heading)
        cells = obs[..., SELF:].reshape(*obs.shape[:-1], 9, CELL)
        ahead = np.take_along_axis(cells, front[..., None, None], -2)[..., 0, :]
        facing = ahead[..., 1:5].argmax(-1) == np.take([OPPOSITE[way] for way in range(4)], heading)
        return (ahead[..., 0] > 0) & facing


def _way(x: int, y: int, to_counter: bool) -> int:
    """On the highway: up the column 0, down 3, up 6, down 9, and back along the counter."""
    if y == COUNTER:
        return UP if x == 0 else LEFT
    if x in (0, 6) and y > 0:
        return UP
    if y == QUEUE and x < EAST:
        inner = x in (4, 5) and to_counter
        return DOWN if inner else LEFT if x < 3 else RIGHT
    return RIGHT if y == 0 and x not in (3, 4, 5, EAST) else DOWN


def _is_place(x: int, y: int, way: int) -> bool:
    """Whether the next cell in a direction is a place of shelves."""
    x, y = x + (way == RIGHT) - (way == LEFT), y + (way == DOWN) - (way == UP)
    return 0 < y < QUEUE and x in (1, 2, 7, 8)
