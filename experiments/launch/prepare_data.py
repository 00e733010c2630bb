"""Record or convert the datasets of a grid that are not in the cache, one process a task."""

import queue
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from offmarl.benchmarks.env import cache_dir
from offmarl.datasets.catalogue import RECORDED, Entry, catalogue
from offmarl.experiments.errors import UserError
from offmarl.experiments.processes import processes

_counter: Any = None  # the pool's queue of finished episodes or rows


def prepare(entries: Sequence[Entry], source: str, workers: int) -> list[str]:
    """Make the datasets that are missing or damaged, with a progress bar; returns a line for each that failed.

    Raises UserError where the cache cannot be written, or a process was killed.
    """
    distinct = {(entry.task.name, entry.quality): entry for entry in entries}
    missing = [entry for entry in distinct.values() if entry.ready() is None]
    if not missing:
        return []
    writable_cache()
    by_task: dict[str, list[str]] = {}
    for entry in missing:
        by_task.setdefault(entry.task.name, []).append(entry.quality)
    verb, unit = ("recording", "episode") if source in RECORDED else ("converting", "row")
    counter = get_context("spawn").Queue()
    total = sum(entry.work for entry in missing)
    with (
        tqdm(total=total, desc=f"{verb} {len(missing)} datasets", unit=unit, unit_scale=source not in RECORDED) as bar,
        processes(workers, _open, counter) as pool,
    ):
        work = [pool.submit(_make, source, task, qualities) for task, qualities in by_task.items()]
        while not all(job.done() for job in work):
            try:
                bar.update(counter.get(timeout=0.5))
            except queue.Empty:
                continue
        while not counter.empty():
            bar.update(counter.get())
        return [line for job in work for line in job.result()]


def writable_cache() -> None:
    """Refuse a cache into which nothing can be recorded, before anything is. Raises UserError naming the folder."""
    cache = cache_dir().absolute()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError as error:
        advice = "export OFFMARL_CACHE=/a/folder for recorded data"
        raise UserError(f"the cache {cache} is not writable ({error.strerror}); {advice}") from error


def _open(counter: Any) -> None:
    global _counter
    _counter = counter


def _make(source: str, task: str, qualities: list[str]) -> list[str]:
    """Make the qualities of one task in one process, so that its simulator is compiled once."""
    failures = []
    for quality in qualities:
        try:
            catalogue(source)[task, quality].load(_counter.put)
        except (ValueError, OSError) as error:
            name, reason = f"{task}:{quality}: ", str(error)
            failures.append(name + reason.removeprefix(name))
    return failures
