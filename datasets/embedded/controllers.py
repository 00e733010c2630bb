"""Scripted behaviours of the particle tasks, from the observations of the three learners (layouts: benchmarks/mpe.py).

A worse behaviour has a lower gain, does not agree on who goes where, chases slowly or aims wrong. `noise` is Gaussian
exploration, as in a training; in medium-replay it falls as the gain rises.
Shapes: E episodes, I = 3 learners, O observation. Actions are [E,I,2] float32 in [-1,1].
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from offmarl.benchmarks.env import Behaviour, View
from offmarl.benchmarks.mpe import DAMPING, DT, LEARNERS, RULES, length
from offmarl.benchmarks.tasks import Task

ORDERS = np.array(list(permutations(range(LEARNERS))))  # [6,I]: every agent's landmark
WAVES = np.random.default_rng(0).normal(0, 300, (2 * LEARNERS, len(ORDERS)))  # of the draws in Cover
PREY = {16: 12, 24: 18}  # by a predator's observation length, where it has the prey's relative position, then velocity
REACH = RULES["tag"].accel[0] ** 2 * DT  # the speed that a predator's full action adds


def controller(task: Task, random: bool = False, **settings: Any) -> Behaviour:
    """The behaviour of a recipe's entry: uniform actions, or `Cover` in spread and `Chase` elsewhere."""
    if random:
        return uniform
    return (Cover if task.short == "spread" else Chase)(**settings)


def uniform(view: View, rng: np.random.Generator) -> np.ndarray:
    """Random actions."""
    return rng.uniform(-1, 1, (*view.obs.shape[:2], 2)).astype(np.float32)


@dataclass(frozen=True)
class Cover:
    """Spread: every agent moves to a landmark by action = gain * way - damping * velocity.

    `share` is how the agents divide the landmarks. `own`: each agent always has the same one, a convention that a team
    may learn. `nearest`: each goes to its nearest, and they collide. `shortest`: the total way is short. Of the
    assignments within `whim` of the shortest (0.24 is a tenth of the usual total), the landmarks' positions choose one
    at random: preferences are cosines of them with a wavelength of 0.02. So the choice varies between episodes, is
    constant in each, and needs no memory. The assignment is constant too in 95 % of episodes, because no way shortens
    faster than the one that is taken; the exceptions are collisions and close landmarks.
    """

    gain: float = 2.0
    damping: float = 1.0
    share: str = "shortest"
    whim: float = 0.24
    noise: float = 0.0

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions."""
        to = view.obs[:, :, 4:10].reshape(-1, LEARNERS, LEARNERS, 2)  # [E, agent, landmark, 2]
        goal = self.goals(length(to), view.obs[:, 0, 2:4, None] + np.moveaxis(to[:, 0], 1, -1))
        way = np.take_along_axis(to, goal[:, :, None, None], 2)[:, :, 0]
        return _explore(self.gain * way - self.damping * view.obs[:, :, :2], self.noise, rng)

    def goals(self, far: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Each agent's landmark [E,I], from their distances [E,I,L] and the landmarks [E,2,L]."""
        if self.share == "own":
            return np.broadcast_to(np.arange(LEARNERS), far.shape[:2])
        if self.share == "nearest":
            return far.argmin(-1)
        total = far[:, np.arange(LEARNERS), ORDERS].sum(-1)
        short = total <= total.min(-1, keepdims=True) + self.whim
        preference = np.cos(landmarks.reshape(-1, 2 * LEARNERS) @ WAVES)
        return ORDERS[np.where(short, preference, -np.inf).argmax(-1)]


@dataclass(frozen=True)
class Chase:
    """Tag and World: every predator moves to where the prey will be."""

    lead: float = 0.3  # seconds ahead to aim, fewer when near; 0 follows, a negative value lags
    speed: float = 1.0  # desired; a predator's top speed is 1, the scripted prey's desired speed is 0.92
    noise: float = 0.0  # standard deviation of the exploration

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions."""
        prey = PREY[view.obs.shape[-1]]
        way, drift = view.obs[:, :, prey : prey + 2], view.obs[:, :, prey + 2 : prey + 4]
        way = way + np.minimum(length(way)[..., None], self.lead) * drift
        wish = self.speed * way / np.maximum(length(way), 1e-6)[..., None]
        return _explore((wish - (1 - DAMPING) * view.obs[:, :, :2]) / REACH, self.noise, rng)


def _explore(actions: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The actions with Gaussian noise, within their range."""
    return np.clip(actions + rng.normal(0, noise, actions.shape), -1, 1).astype(np.float32)
