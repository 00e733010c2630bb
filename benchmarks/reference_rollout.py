"""The reference rollout of a task: fifty steps whose checksum is equal wherever the simulator is equal."""

import hashlib
from functools import cache

import numpy as np

from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import ENGINES, Task, make_env

STEPS = 50
SEED = 800_000_000  # no recording or evaluation uses it
DECIMALS = 3


def reference(task: Task) -> dict[str, str]:
    """`rollout`: the SHA-256 of fifty steps with random legal actions from a fixed seed, rounded against round-off.

    Nothing for real StarCraft, which takes minutes to start.
    """
    return {} if ENGINES[task.engine].presence else {"rollout": _played(task, repr(task))}


@cache
def _played(task: Task, facts: str) -> str:
    """The checksum of one rollout. `facts` distinguishes tasks of one name, which compare as equal, in the cache."""
    digest, rng, act = hashlib.sha256(), np.random.default_rng(SEED), uniform(task)
    env = make_env(task, 1)
    view = env.reset(np.array([SEED]))
    for k in range(STEPS):
        step = env.step(act(view, rng))
        for part in (step.view.obs, step.reward):
            digest.update((np.round(np.asarray(part, np.float64), DECIMALS) + 0.0).tobytes())
        view = env.reset(np.array([SEED + k + 1])) if step.done.all() else step.view
    env.close()
    return digest.hexdigest()
