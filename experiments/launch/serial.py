"""Train the jobs of a grid: what a store lacks, one after the other in this process, or several at once by Ray."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from offmarl.benchmarks.source import first_line
from offmarl.benchmarks.tasks import tasks
from offmarl.experiments.grid.code import treat_stale
from offmarl.experiments.grid.jobs import Job, left, stored
from offmarl.experiments.launch.exclusive import train_alone
from offmarl.experiments.launch.interrupt import interruptible
from offmarl.experiments.launch.prepare_data import prepare
from offmarl.experiments.launch.progress import ProgressBar
from offmarl.experiments.launch.workers import bounded_by_games, check_cluster
from offmarl.experiments.store.leftovers import clear_leftovers
from offmarl.experiments.store.lock import Busy
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host


def train_pending(
    grid: Sequence[Job], source: str, store: Store, host: Host, workers: int, again: bool
) -> tuple[list[str], int]:
    """Train in this order what a store lacks, `again` what it has of other code too.

    Returns the failures, a line each, and how many runs of other code stay.
    """
    clear_leftovers(store.root)
    runs = stored(grid, store)
    stale = treat_stale(store, runs, again)
    pending = left(grid, runs)
    workers = bounded_by_games(min(workers, len(pending)), pending)
    check_cluster(workers)
    failures = prepare([job.entry.recorded for job in pending], source, min(workers, 2))
    return failures + launch(pending, store.root, host, workers), stale


def launch(grid: Sequence[Job], results: Path, host: Host, workers: int) -> list[str]:
    """Train every job, `workers` at once, in this order; return the failures, a line each. One needs no Ray."""
    workers = min(workers, len(grid))
    if workers <= 1:
        return run_serial(grid, results, host) if grid else []
    from offmarl.experiments.launch.ray_tune import run_ray

    return run_ray(grid, results, host, workers)


def largest_first(grid: Sequence[Job]) -> list[Job]:
    """The jobs by the size of a team's observations: a long job that starts late leaves workers idle."""
    sizes = {task.name: task.agents * task.obs for task in tasks().values()}
    return sorted(grid, key=lambda job: sizes[job.task], reverse=True)


def run_serial(grid: Sequence[Job], results: Path, host: Host) -> list[str]:
    """Train every job; return the failures, one line each. Ctrl-C and SIGTERM take effect after an update, and save."""
    host.set_up()
    with contextlib.closing(ProgressBar(grid, workers=1)) as bar:
        for job in grid:
            try:
                with contextlib.closing(train_alone(job, results, host)) as training, interruptible() as interrupted:
                    for step in training:
                        bar.advance(job, step)
                        if interrupted:
                            raise KeyboardInterrupt(*interrupted)
            except Busy as busy:
                bar.leave(job, str(busy))
            except Exception as error:  # stored as a record; the other jobs go on
                bar.finish(job, first_line(error))
            else:
                bar.finish(job, None)
    return bar.failures
