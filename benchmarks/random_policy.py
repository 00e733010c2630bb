"""The random policy."""

import numpy as np

from offmarl.benchmarks.env import Behaviour, View
from offmarl.benchmarks.tasks import Task


def random_legal(legal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random legal action for every agent: [E,I,A] -> [E,I]."""
    return (rng.random(legal.shape) * legal).argmax(-1)


def uniform(task: Task) -> Behaviour:
    """Random legal actions, or uniform ones in [-1, 1]."""

    def act(view: View, rng: np.random.Generator) -> np.ndarray:
        if view.legal is not None:
            return random_legal(view.legal, rng)
        return rng.uniform(-1, 1, (*view.obs.shape[:2], task.actions)).astype(np.float32)

    return act
