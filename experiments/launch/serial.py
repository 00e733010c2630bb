"""Run the jobs of a grid: one after the other in this process, or side by side by `launch_ray`."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from offmarl.experiments.commands.options import core_count
from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.launch.exclusive import Busy, train_alone
from offmarl.experiments.launch.progress import Board
from offmarl.experiments.training.machine import Host

JOBS_PER_GPU = 6  # small networks share a card well; --jobs says otherwise


def side_by_side(device: str, threads: int) -> int:
    """How many trainings: as many as the cores feed, and on CUDA not more than a few share a card."""
    most = max(1, core_count() // max(1, threads))
    return min(most, JOBS_PER_GPU * torch.cuda.device_count()) if device.startswith("cuda") else most


def launch(grid: Sequence[Job], results: Path, host: Host, workers: int) -> list[str]:
    """Train every job, so many side by side; return the failures, one line each. One worker needs no Ray."""
    workers = min(workers, len(grid))
    if workers <= 1:
        return run_serial(grid, results, host) if grid else []
    from offmarl.experiments.launch.ray_tune import run_ray

    return run_ray(grid, results, host, workers)


def run_serial(grid: Sequence[Job], results: Path, host: Host) -> list[str]:
    """Train every job; return the failures, one line each."""
    host.set_up()
    board = Board(grid, workers=1)
    try:
        for job in grid:
            try:
                board.finish(job, run_one(job, results, host, board))
            except Busy as busy:
                board.leave(job, str(busy))
    finally:
        board.close()
    return board.failures


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that the first Ctrl-C fills, instead of breaking in anywhere; the second breaks in."""
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield seen
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def run_one(job: Job, results: Path, host: Host, board: Board) -> str | None:
    """Train one job; return why it failed, or None. Ctrl-C waits for the end of an update, and saves.

    Raises:
        Busy: when another driver trains it.
    """
    try:
        with contextlib.closing(train_alone(job, results, host)) as training, interruptible() as interrupted:
            for progress in training:
                board.advance(job, progress.step)
                if interrupted:
                    raise KeyboardInterrupt
    except Busy:
        raise
    except Exception as error:  # it is recorded in the store; the others go on
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
