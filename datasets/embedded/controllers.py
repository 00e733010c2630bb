"""Scripted behaviours of the particle tasks, from the views of the three learners (layouts: benchmarks/mpe.py).

Quality is skill: a worse behaviour has a lower gain, does not agree on who goes where, chases slowly or aims wrong.
`noise` is the Gaussian exploration of a training that is not over; it fades out along medium-replay's ramp of gains.
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
PREY = {16: 12, 24: 18}  # where a predator's observation, by its length, tells of the prey: way, then velocity
REACH = RULES["tag"].accel[0] ** 2 * DT  # the speed that a predator's full action adds


def controller(task: Task, random: bool = False, **settings: Any) -> Behaviour:
    """What a recipe's entry means: uniform actions, or the settings of `Cover` in spread and of `Chase` elsewhere."""
    if random:
        return uniform
    return (Cover if task.short == "spread" else Chase)(**settings)


def uniform(view: View, rng: np.random.Generator) -> np.ndarray:
    """Random actions."""
    return rng.uniform(-1, 1, (*view.obs.shape[:2], 2)).astype(np.float32)


@dataclass(frozen=True)
class Cover:
    """Spread: every agent drives to a landmark by action = gain * way - damping * velocity.

    `share` is how the agents divide the landmarks. `own`: by convention, each agent has its own wherever it lies, as a
    team that always trained together may settle. `nearest`: each goes to its nearest, and they collide. `shortest`: on
    a short total way. Of the assignments within `whim` of the shortest
    (0.24 is a tenth of the usual one) they take the one that the landmarks' places draw: preferences are cosines over
    them with a wavelength of 0.02. So the draw differs from episode to episode, stays during one, and needs no memory.
    And since no way shortens faster than the one that is driven, the assignment stays as well (in 95 % of episodes;
    collisions and close landmarks make the rest).
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
    """Tag and World: every predator drives to where the prey will be.

    Args:
        lead: how many seconds ahead to aim, fewer when near; 0 follows, a negative one comes late.
        speed: of the drive. A predator can do 1; the scripted prey wants 0.92.
        noise: deviation of the exploration.
    """

    lead: float = 0.3
    speed: float = 1.0
    noise: float = 0.0

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
