"""How fast the simulators and the recording are here: `offmarl bench envs`."""

import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from offmarl.benchmarks.env import BatchEnv
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import Task, make_env, tasks
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.datasets.embedded.record import record
from offmarl.experiments.timing.isolated import text_table

LANES = 8  # of a task of the user's own
FOOT = "Environment steps of one process per second of wall-clock time, without compilation."


def bench_envs(names: Sequence[str], seconds: float) -> str:
    """A table of tasks: steps per second of random actions, in some seconds, and of recording an episode a lane.

    Of a task of the user's own, random play is recorded.
    """
    rows = []
    for name in tqdm(names, desc="measuring", unit="task", leave=False):
        task, known = tasks()[name], catalogue().items()
        recipe = next((one for (of, _), one in known if of == name and not one.mix), None)
        team, epsilon, seed = (recipe.team(), recipe.epsilon, recipe.seed()) if recipe else ([uniform(task)], 0.0, 0)
        env = make_env(task, recipe.lanes if recipe else LANES)
        random, began = random_pace(env, task, seconds), time.perf_counter()
        data = record(env, team, env.lanes, epsilon, seed)
        recorded = len(data) / (time.perf_counter() - began)
        env.close()
        row = {"task": name, "engine": task.simulator.label, "episodes at once": f"{env.lanes:,}"}
        rows.append(row | {"random steps/s": f"{random:,.0f}", "recorded steps/s": f"{recorded:,.0f}"})
    return f"{text_table(rows)}\n{FOOT}"


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
