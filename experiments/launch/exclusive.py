"""Train a job under its lock, so that no other process trains it, whoever else shares the results store.

The lock is of a job whatever its seeds, so that no cell is trained twice. A driver runs a job in one worker at a time:
when it starts the job again, the first worker has died, on whatever node that was.
"""

import contextlib
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from offmarl.experiments.grid.jobs import Job, pending
from offmarl.experiments.store.leftovers import checkpoints
from offmarl.experiments.store.lock import Busy, Lock, TakenOver, finished
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.run import train


def lock_path(results: Path, job: Job) -> Path:
    """The file of a job's lock."""
    return results / "work" / f"{job.lock_name}.lock"


def train_alone(job: Job, results: Path, host: Host, driver: str = "") -> Generator[int]:
    """`train` what is still pending of a job, under its lock, for a driver with workers of its own; yields updates.

    Raises Busy when another process trains it, has finished it by now, or has taken it over.
    """
    lock = Lock(lock_path(results, job), driver)
    try:
        if not (jobs := pending([job], Store(results))):
            raise Busy("was finished by another process")
        for job in jobs:
            left = _with_its_group(job, results)
            lock.facts["seeds"] = left.seeds
            lock.write_heartbeat()
            with contextlib.closing(train(left, results, host)) as training:
                for step in training:
                    if not lock.held():
                        with contextlib.suppress(TakenOver):
                            training.throw(TakenOver())
                        raise Busy("was taken over by another process")
                    lock.facts |= {"step": step, "steps": job.protocol.steps}
                    yield step
    finally:
        lock.release()


def _with_its_group(left: Job, results: Path) -> Job:
    """The job with the seeds of its checkpoint, if the other seeds are done: a process was killed as it stored them."""
    for path, name, seeds in checkpoints(results):
        others = set(seeds) - set(left.seeds)
        fits = name == left.lock_name and path.suffix == ".pt" and set(left.seeds) <= set(seeds)
        if fits and (not others or finished(results, name, others)):
            return replace(left, seeds=seeds)
    return left
