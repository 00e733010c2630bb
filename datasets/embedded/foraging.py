"""Scripted teams of Level-Based Foraging, from the observations of players who see the whole field.

A team goes to one food together. Which one is a convention, and teams of several conventions in one dataset make its
joint actions multi-modal. Shapes: E episodes, I players, F foods.
"""

from dataclasses import dataclass

import numpy as np

from offmarl.benchmarks.env import View
from offmarl.benchmarks.random_policy import random_legal
from offmarl.benchmarks.tasks import Task

STAY, LOAD = 0, 5
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # actions 1 to 4, in rows and columns


@dataclass(frozen=True)
class Foragers:
    """Each player walks to its side of the food that the team has chosen, and loads there until it is gone."""

    task: Task
    food: str = "nearest"  # to all players in sum, the `first` or `last` by row, or of each its `own` nearest
    wander: float = 0.0  # share of random actions, drawn for each player

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I]."""
        assert view.legal is not None
        numbers = 3 * (view.obs.shape[-1] // 3 - self.task.agents)
        foods = view.obs[:, 0, :numbers].reshape(len(view.obs), -1, 3)
        places = view.obs[:, :, numbers : numbers + 2]
        random = random_legal(view.legal, rng)
        planned = np.stack([self._episode(*one, rng) for one in zip(foods, places, view.legal, random)])
        return np.where(rng.random(random.shape) < self.wander, random, planned)

    def _episode(
        self, foods: np.ndarray, places: np.ndarray, legal: np.ndarray, random: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The players' actions [I], from foods [F,3], places [I,2] and legal actions [I,6]."""
        foods = foods[foods[:, 2] > 0, :2]
        if not len(foods):
            return random
        actions, taken = random.copy(), set[tuple[float, ...]]()
        for i, (place, food) in enumerate(zip(places, self._chosen(foods, places))):
            far = np.abs(food - place).sum()
            if far == 1:
                taken.add(tuple(place))
                actions[i] = LOAD
                continue
            sides = [side for side in map(tuple, food + MOVES) if side not in taken]
            goal = np.array(min(sides, key=lambda side: np.abs(side - place).sum()))
            taken.add(tuple(goal))
            gains = np.abs(goal - place).sum() - np.abs(goal - place - MOVES).sum(-1)
            blocked = ((place + MOVES)[:, None] == places).all(-1).any(-1)
            free = np.flatnonzero((gains > 0) & legal[i, 1:LOAD] & ~blocked)
            if len(free):
                actions[i] = 1 + rng.choice(free)
        return actions

    def _chosen(self, foods: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Each player's food [I,2]."""
        far = np.abs(foods - places[:, None]).sum(-1)
        if self.food == "own":
            return foods[far.argmin(1)]
        k = {"nearest": int(far.sum(0).argmin()), "first": 0, "last": -1}[self.food]
        return np.broadcast_to(foods[k], places.shape)
