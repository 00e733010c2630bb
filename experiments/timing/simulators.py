"""How fast the simulators and the recording are here: `offmarl bench envs`."""

import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from offmarl.benchmarks.env import BatchEnv
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import ENGINES, Task, make_env, tasks
from offmarl.datasets.embedded.recipes import Recipe, catalogue
from offmarl.datasets.embedded.record import record

HEAD = f"{'task':24} {'engine':34} {'episodes at once':>16} {'random steps/s':>14} {'recorded steps/s':>16}"
FOOT = "Environment steps of one process per second of wall-clock time, compilation left out."


def bench_envs(names: Sequence[str], seconds: float) -> str:
    """A table: steps per second with random actions, and of recording a dataset with its own behaviours.

    Args:
        names: tasks.
        seconds: for the random steps of each task; a recording takes as long as one episode in every lane.
    """
    lines = [HEAD]
    for name in tqdm(names, desc="measuring", unit="task", leave=False):
        recipe = next(recipe for (task, _), recipe in catalogue().items() if task == name and not recipe.mix)
        env = make_env(tasks()[name], recipe.lanes)
        random, recorded = random_pace(env, recipe.task, seconds), recording_pace(env, recipe)
        env.close()
        label = ENGINES[recipe.task.engine].label
        lines.append(f"{name:24} {label:34} {recipe.lanes:16,} {random:14,.0f} {recorded:16,.0f}")
    return "\n".join([*lines, FOOT])


def random_pace(env: BatchEnv, task: Task, seconds: float) -> float:
    """Steps per second of episodes under way, with random actions; resets are part of it."""
    rng, behaviour = np.random.default_rng(0), uniform(task)
    view = env.reset(np.arange(env.lanes))
    view = env.step(behaviour(view, rng)).view  # compiles, where something is compiled
    steps, over, began = 0, np.zeros(env.lanes, bool), time.perf_counter()
    while time.perf_counter() - began < seconds:
        steps += int((~over).sum())
        step = env.step(behaviour(view, rng))
        view, over = step.view, over | step.done
        if over.all():
            view, over = env.reset(rng.integers(2**31, size=env.lanes)), np.zeros(env.lanes, bool)
    return steps / (time.perf_counter() - began)


def recording_pace(env: BatchEnv, recipe: Recipe) -> float:
    """Transitions per second of recording one episode in every lane."""
    team, began = recipe.team(), time.perf_counter()
    data = record(env, team, env.lanes, recipe.epsilon, recipe.seed())
    return len(data) / (time.perf_counter() - began)
