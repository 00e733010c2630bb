"""Run the jobs of a grid one after the other in this process. `launch_ray` runs them side by side."""

from collections.abc import Sequence
from pathlib import Path

import torch

from offmarl.experiments.board import Board
from offmarl.experiments.grid import Job
from offmarl.experiments.train import train


def run_serial(grid: Sequence[Job], results: Path, device: str, threads: int) -> list[str]:
    """Train every job; return the failures, one line each."""
    torch.set_num_threads(threads)
    board = Board(grid, workers=1)
    try:
        for job in grid:
            board.finish(job, run_one(job, results, device, board))
    finally:
        board.close()
    return board.failures


def run_one(job: Job, results: Path, device: str, board: Board) -> str | None:
    """Train one job; return why it failed, or None."""
    try:
        for progress in train(job, results, device):
            board.advance(job, progress.step)
    except Exception as error:  # it is recorded in the store; the others go on
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
