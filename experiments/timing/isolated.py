"""Measurements, each in a process of its own, so that peak memory and settings are its alone."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any, TypeVar

from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host, code

T = TypeVar("T")
Record = dict[str, Any]


class Killed(Exception):
    """The process ended without an answer."""


def apart(function: Callable[..., T], *args: object) -> T:
    """Call a function of a module in a fresh process.

    Raises:
        Killed: when the process is gone, which mostly means that memory ran out.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise Killed("its process was killed (out of memory?)") from error


def measure_all(
    rows: Iterable[T], measure: Callable[[T], Record], store: Store, kind: str, key: Callable[[Record], str]
) -> tuple[list[Record], list[str]]:
    """Measure and store row by row; returns the records, and what could not be measured.

    Args:
        measure: makes a row's record, apart.
        key: names a record among its kind in the store: measured again, it is replaced.
    """
    found, failures = [], []
    for row in rows:
        try:
            record = measure(row)
        except (Killed, RuntimeError, MemoryError) as error:
            failures.append(f"{row}: not measured: {error}")
            continue
        store.write_measurement(kind, key(record), record)
        found.append(record)
    return found, failures


def one_each(grid: Sequence[Job]) -> list[Job]:
    """The first job of every method on every task: speed does not depend on the quality of data."""
    firsts: dict[tuple[str, str], Job] = {}
    for job in grid:
        firsts.setdefault((job.task, job.algorithm), job)
    return list(firsts.values())


def about(job: Job) -> Record:
    """Which job a record is of."""
    return {name: getattr(job, name) for name in ("task", "algorithm", "variant", "profile")}


def source(host: Host) -> Record:
    """Where a record comes from."""
    return {"machine": host.facts(), "code": code(), "finished": datetime.now(UTC).isoformat()}
