"""Kill a process before each of the steps that it takes on disk, one after the other.

    for results in kills.before_each_step(action, scratch):
        ...  # a process was killed in the middle of `action(results)`

Steps are what creates a file or folder, opens it for writing, renames it or removes it.
"""

import dataclasses
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest
import soak

# Python's audit events, and where they have the descriptor of a folder.
FOLDER = {"open": 1, "os.mkdir": 2, "os.rename": 2, "os.link": 2, "os.remove": 1, "os.rmdir": 1}
STEPS = tuple(FOLDER)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def before_each_step(
    action: Callable[[Path], object], scratch: Path, before: Path | None = None, steps: Collection[str] = STEPS
) -> Iterator[Path]:
    """The results of each killed process, which begin as a copy of `before`; the last process ends by itself."""
    context = get_context("forkserver")
    context.set_forkserver_preload(soak.PRELOAD)
    for number in itertools.count():
        results = scratch / f"killed-{number}"
        shutil.copytree(before, results) if before else results.mkdir()
        process = context.Process(target=_work_until, args=(action, results, steps, number))
        process.start()
        process.join()
        if process.exitcode == 0:
            assert number > 0, "the action takes no step on disk"
            return
        assert process.exitcode == -signal.SIGKILL, "the action failed by itself"
        yield results
        shutil.rmtree(results)


def _work_until(action: Callable[[Path], object], results: Path, steps: Collection[str], number: int) -> None:
    """Do the action, and be killed just before its step of this number."""
    taken = itertools.count()

    def watch(event: str, arguments: tuple) -> None:
        if event not in steps or (event == "open" and not arguments[2] & WRITES):
            return
        here = str(arguments[0]).startswith(str(results)) or arguments[FOLDER[event]] in range(1000)
        if here and next(taken) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    action(results)


def job() -> soak.Job:
    """Two seeds of a method on Spread, four updates."""
    first = soak.grid()[0]
    return dataclasses.replace(
        first, protocol=dataclasses.replace(first.protocol, steps=4, eval_every=2, eval_episodes=1)
    )


def train(results: Path) -> None:
    """Train what is pending of the job, as `offmarl run` does, with a checkpoint after every update."""
    from offmarl.experiments.grid.jobs import pending
    from offmarl.experiments.launch.serial import launch
    from offmarl.experiments.store.leftovers import clear_leftovers
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training import run
    from offmarl.experiments.training.machine import Host

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(run, "LATENCY_SECONDS", 0.001)
        clear_leftovers(results)
        assert not launch(pending([job()], Store(results)), results, Host(), workers=1)


CELL = ("smac/3m", "good", "embedded", "bc", "paper", "quick", 3)
RUN_ID = "smac-3m.good.embedded.bc.paper.quick.s3.0a1b2c3d"


def store_run(results: Path, status: str = "done") -> None:
    """Store a run, in the place of an earlier one if there is one."""
    import pandas as pd

    from offmarl.experiments.store.store import Cell, Store

    record = {"run_id": RUN_ID, "status": status, "config": {}, "protocol": {}, "evaluations": []}
    Store(results).write(Cell(*CELL), record, pd.DataFrame({"step": [1]}), b"weights")


def read_run(results: Path) -> None:
    """Read a run, which sets it aside if it is damaged."""
    from offmarl.experiments.store.store import Store

    Store(results).status(RUN_ID)


def store_measurement(results: Path) -> None:
    """Store a measurement, in the place of an earlier one if there is one."""
    from offmarl.experiments.store.store import Store

    Store(results).write_measurement("inference", "bc", {"median_ms": 1.0})


def note_request(results: Path) -> None:
    """Note which jobs were asked for."""
    from offmarl.experiments.commands.status import note_grid
    from offmarl.experiments.grid.jobs import Request

    note_grid(results, Request(soak.SUITE, "smoke"), [job()])


def merge(results: Path) -> None:
    """Take the runs of one store into another."""
    from offmarl.experiments.cli import main

    assert main(["merge", str(results / "source"), "--results", str(results / "target")]) == 0


def take_lock(results: Path) -> None:
    """Take a lock over from a holder that has died, and give it up."""
    from offmarl.experiments.store.lock import Lock

    Lock(results / "work" / "job.lock").release()


def build_site(results: Path) -> None:
    """Build a site, in the place of an earlier one."""
    from offmarl.reports.records.reader import Records
    from offmarl.reports.site import build

    build.write(Records.read(results), results / "site", {})
