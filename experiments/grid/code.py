"""Which code made a run: sums over the source of its method and of its simulator.

A sum ignores comments, docstrings and layout, and is the same for every version of Python. A run whose code reads
otherwise today is stale: its number may not be what the same command would give now.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.source import FOLDERS, sources, sum_of
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.benchmarks.yaml_files import Strict, packaged
from offmarl.experiments.grid.suite import PACKAGE
from offmarl.experiments.store.store import WITH_RESULT, Record, Store


class EqualCode(Strict):
    """A change of a method or a task that changed no number."""

    since: str  # the sum after it
    seen: str  # how


def code_sums(algorithm: str, task: str) -> dict[str, str]:
    """The sums of a method (its file and the files of ours or of its folder that it imports) and of a task.

    All methods are read at the first call, so that a file edited while a grid trains is not taken for what trained.
    Raises KeyError for an unknown method or task.
    """
    sums = {name: _method_sum(method) for name, method in registry().items()}
    return {"method": sums[algorithm], "task": _task_sum(tasks()[task])}


def why_stale(record: Mapping[str, Any]) -> str | None:
    """Why a stored run, or a measurement, is stale; None where it is not, or has no sums, or its method is unknown."""
    stored, cell = record.get("code_sums") or {}, record.get("cell", record)
    if cell["algorithm"] not in registry() or cell["task"] not in tasks():
        return None
    today = code_sums(cell["algorithm"], cell["task"])
    changed = changed_parts({part: stored.get(part, today[part]) for part in today}, today)
    return f"the code of its {' and its '.join(changed)} has changed since" if changed else None


def changed_parts(stored: Mapping[str, str], today: Mapping[str, str]) -> list[str]:
    """The parts whose stored sum is neither today's nor one that gives the same numbers (`equal_code.yaml`)."""
    equal = packaged(dict[str, EqualCode], PACKAGE, "equal_code.yaml")
    return [p for p, value in stored.items() if today[p] not in (value, equal[value].since if value in equal else "")]


def treat_stale(store: Store, runs: dict[str, Record], again: bool) -> int:
    """Say how many of these runs were made by other code, set them aside if `again`; returns how many stay."""
    stale = [run_id for run_id, record in runs.items() if record["status"] in WITH_RESULT and why_stale(record)]
    if not stale:
        return 0
    found = f"{len(stale)} finished runs are stale: the code of their method or task has changed since"
    if not again:
        print(f"offmarl: {found}; --again retrains them", file=sys.stderr)
        return len(stale)
    for run_id in stale:
        with suppress(FileNotFoundError):  # another driver was first
            store.set_aside(run_id, "stale")
        del runs[run_id]
    print(f"offmarl: {found}; moved to {store.root / 'stale'}, retraining them", file=sys.stderr)
    return 0


@cache
def _method_sum(method: type[Algorithm]) -> str:
    file = getattr(sys.modules.get(method.__module__), "__file__", None)
    return sum_of(sources(Path(file))) if file else ""


@cache
def _task_sum(task: Task) -> str:
    entry = {key: value for key, value in asdict(task).items() if key != "note"}
    return sum_of([json.dumps(entry, sort_keys=True), *_adapter_sources(task.simulator.adapter)])


@cache
def _adapter_sources(adapter: str) -> list[str]:
    module = adapter.split(":")[0]
    return sources(FOLDERS["offmarl.benchmarks"].joinpath(*module.split(".")).with_suffix(".py"))
