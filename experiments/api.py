"""offmarl from Python, in a script or a notebook: a few functions over what the commands do. python.md shows them.

Wrong names raise UserError, files that cannot be used TaskError: a line that says what, where and how to mend it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks import own
from offmarl.benchmarks.rollout import Episodes
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.dataset import Dataset
from offmarl.experiments.commands.options import find_entries, register_files, source_of
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.suite import suite_of
from offmarl.experiments.launch.serial import train_pending
from offmarl.experiments.store.store import Store
from offmarl.experiments.training import policy
from offmarl.experiments.training.machine import Host
from offmarl.reports.records.reader import Records, flat


def task(name: str) -> Task:
    """A task by its name, or the task of a file.py of yours, which is then known by its name."""
    if not name.endswith(".py"):
        return tasks()[check_name("task", name, tasks())]
    register_files(own, [name])
    found = [known for known, one in own.registry().items() if one.file == Path(name).resolve()]
    if len(found) != 1:
        raise UserError(f"{name}: has {len(found)} tasks; ask for one by its name: {', '.join(found)}")
    return tasks()[found[0]]


def dataset(name: str, source: str | None = None) -> Dataset:
    """A dataset by task:quality, recorded or converted first where it is not in the cache; see datasets/README.md."""
    (entry, *others) = find_entries([name], source or _source(name))
    if reason := "name one of its datasets, task:quality" if others else entry.unavailable():
        raise UserError(f"{name}: {reason}")
    return entry.load()[0]


def train(
    algorithms: str | Sequence[str],
    name: str,
    *,
    profile: str = "quick",
    seeds: Sequence[int] | None = None,
    steps: int | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    source: str | None = None,
    results: str | Path = "results",
    workers: int = 1,
    device: str = "cpu",
) -> list[str]:
    """Train methods on a dataset (task:quality), as `offmarl run` does; the names of their runs in `results`.

    What is there already is not trained again. `overrides` are settings by method, or of `all`: {"bc": {"act_by":
    "argmax"}}. More than one worker needs Ray. Raises RuntimeError with a line for each cell that failed.
    """
    request = grid.Request(
        suite=suite_of(name),
        profile=profile,
        source=source or _source(name),
        algorithms=[algorithms] if isinstance(algorithms, str) else list(algorithms),
        tasks=[name],
        seeds=seeds,
        steps=steps,
        overrides={method: dict(settings) for method, settings in (overrides or {}).items()},
    )
    asked, place = grid.jobs(request), Path(results).expanduser().resolve()
    if not asked:
        raise UserError("; ".join(f"{where}: {reason}" for where, reason in grid.unavailable(request).items()))
    failures, _ = train_pending(asked, request.source, Store(place), Host(device), workers, again=False)
    if failures:
        raise RuntimeError("\n".join(failures))
    return [run_id for job in asked for run_id in job.run_ids()]


def results(folder: str | Path = "results") -> pd.DataFrame:
    """All runs of a results directory, a row each: cell, status, mean return (`final`), the data's, times."""
    return pd.DataFrame([flat(record) for record in Records.read(folder, why_stale).by_run.values() if record])


def load_policy(run_id: str, results: str | Path = "results") -> Algorithm:
    """The trained method of a run, on the CPU, that plays as its authors do: `act(obs, legal)` of tensors [1,E,I,…]."""
    return policy.stored_policy(Store(results), run_id)[0]


def evaluate(method: Algorithm, task: Task, episodes: int = 32, seed: int = 0, play: str | None = None) -> Episodes:
    """Returns, lengths and victories of a policy's episodes of a seed, which are the same for every method.

    `play` is own or zero: with the method's own noise, or none (default: as the policy is).
    """
    return policy.evaluate_stored(method, task, episodes, seed, play)


def _source(name: str) -> str:
    """Where a dataset comes from, where nobody says: the user's own, or recorded here."""
    return source_of(suite_of(name))
