"""What the tests of StarCraft ask for: its tasks, and how a step ended."""

from dataclasses import replace

import numpy as np

from offmarl.benchmarks.tasks import tasks


def real(name, **changes):
    task = tasks()[name]
    return replace(task, **{"engine": task.family, **changes})


OMIGA = dict(engine="smac_omiga", obs=478, state=1350)


def stop(env):
    """The action that everybody may take."""
    return env.step(np.ones((env.lanes, env.task.agents), int))


def words(step, lane=0):
    flags = {"done": step.done, "timeout": step.timeout, "won": step.won, "void": step.void}
    return " ".join(name for name, flag in flags.items() if flag[lane])
