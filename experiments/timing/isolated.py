"""Measurements, each in a fresh process with its own settings and its own peak of memory; and their text tables."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from tqdm import tqdm

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.damaged import short_message
from offmarl.experiments.grid.code import code_sums
from offmarl.experiments.grid.config import Overrides, of_method
from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.processes import processes
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.matmul import MKL
from offmarl.reports.records.schema import Record

T = TypeVar("T")


def isolated(function: Callable[..., T], *args: object) -> T:
    """Call a function of a module in a fresh process. Raises Killed when the process died; mostly memory ran out."""
    with processes(1) as pool:
        return pool.submit(function, *args).result()


def measure_all(
    rows: Sequence[T], measure: Callable[[T], Record], store: Store, kind: str, key: Callable[[Record], str]
) -> tuple[list[Record], list[str]]:
    """Measure row by row and store by `key`, with a progress bar; returns records, and what could not be measured."""
    found, failures = [], []
    for row in tqdm(rows, desc=f"measuring {kind}", unit="row"):
        try:
            record = measure(row)
        except Exception as error:  # also what a method of the user's raises
            failures.append(f"{row}: not measured: {short_message(error)}")
            continue
        record["finished"] = datetime.now(UTC).isoformat()
        store.write_measurement(kind, key(record), record)
        found.append(record)
    return found, failures


def one_each(grid: Sequence[Job]) -> list[Job]:
    """The first job of every method on every task: speed does not depend on the quality of data."""
    firsts: dict[tuple[str, str], Job] = {}
    for job in grid:
        firsts.setdefault((job.task, job.algorithm), job)
    return list(firsts.values())


def job_facts(job: Job) -> Record:
    """The part of a record that names its job, and the code that was measured."""
    facts = {name: getattr(job, name) for name in ("task", "algorithm", "variant", "profile")}
    return facts | {"code_sums": code_sums(job.algorithm, job.task)}


def place_of(machine: Mapping[str, Any]) -> str:
    """Names what measured, in the store: the device, its threads, and whatever else changes its speed."""
    library = machine.get("matmul", MKL)
    words = [machine["device"], str(machine["threads"]), "tf32" if machine.get("tf32") else ""]
    return "-".join(filter(None, [*words, "" if library == MKL else library]))


def name_of(record: Mapping[str, Any], *parts: str) -> str:
    """Names a measurement of a job in the store: these facts of it, its changed settings, and what measured."""
    facts = [str(record[part]) for part in ("task", "algorithm", "variant", "profile", *parts)]
    changed = [f"{name}={value}" for name, value in record["changed"].items()]
    return ".".join([*facts, *changed, place_of(record["machine"])])


def changes_of(job: Job, overrides: Overrides) -> dict[str, Any]:
    """The settings that the command line gave a job, which its row names beside those of its suite."""
    given = of_method(overrides, registry()[job.algorithm], tasks()[job.task].space)
    return {key: getattr(job.config, key) for key in given}


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys as text in columns: the first one left-aligned, the others right-aligned."""
    if not rows:
        return ""
    lines = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    first, *others = widths
    return "\n".join(
        line[0].ljust(first) + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], others)) for line in lines
    )
