"""Record the embedded datasets that a grid needs and the cache lacks, one process a task."""

import queue
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from offmarl.datasets.embedded import Recipe, catalogue, load, ready

_counter: Any = None  # the pool's queue of episodes recorded


def prepare(recipes: Sequence[Recipe], workers: int) -> None:
    """Record what is missing or damaged, with a progress bar in episodes."""
    missing = [recipe for recipe in recipes if ready(recipe) is None]
    if not missing:
        return
    by_task: dict[str, list[str]] = {}
    for recipe in missing:
        by_task.setdefault(recipe.task.name, []).append(recipe.quality)
    context = get_context("spawn")
    counter = context.Queue()
    total = sum(recipe.episodes for recipe in missing)
    with (
        tqdm(total=total, desc=f"recording {len(missing)} datasets", unit="episode") as bar,
        ProcessPoolExecutor(workers, context, _open, (counter,)) as pool,
    ):
        work = [pool.submit(_record, task, qualities) for task, qualities in by_task.items()]
        while not all(job.done() for job in work):
            try:
                bar.update(counter.get(timeout=0.5))
            except queue.Empty:
                continue
        while not counter.empty():
            bar.update(counter.get())
        for job in work:
            job.result()


def _open(counter: Any) -> None:
    global _counter
    _counter = counter


def _record(task: str, qualities: list[str]) -> None:
    """All qualities of one task in one process: its simulator is compiled once."""
    for quality in qualities:
        load(catalogue()[task, quality], _counter.put)
