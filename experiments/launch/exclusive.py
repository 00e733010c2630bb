"""Train a job as the only one, whoever else shares the results store.

A lease is of a job whatever its seeds, so that no cell is trained twice. A driver runs a job once at a time: when it
begins one again, its first worker is lost, on whatever node that was.
"""

import contextlib
from collections.abc import Generator
from pathlib import Path

from offmarl.experiments.grid.jobs import Job, pending
from offmarl.experiments.store.lock import Busy, Lease, Lost
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.run import Progress, train


def lease_path(results: Path, job: Job) -> Path:
    """Where a job's lease lies."""
    return results / "work" / f"{job.lease}.lease"


def train_alone(job: Job, results: Path, host: Host, driver: str = "") -> Generator[Progress]:
    """`train` what is still pending of a job, as the only one, for a driver with workers of its own.

    Raises:
        Busy: when another trains it, has done it by now, or has taken it over.
    """
    lease = Lease(lease_path(results, job), driver)
    try:
        if not (jobs := pending([job], Store(results))):
            raise Busy("was done by another driver")
        for left in jobs:
            with contextlib.closing(train(left, results, host)) as training:
                for progress in training:
                    if not lease.held():
                        with contextlib.suppress(Lost):
                            training.throw(Lost())
                        raise Busy("was taken over by another driver")
                    lease.facts |= {"step": progress.step, "steps": progress.steps}
                    yield progress
    finally:
        lease.release()
