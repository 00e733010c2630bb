"""Kill trainings at random moments, again and again, and look whether anything is lost: `offmarl soak`.

A round trains a small grid into an empty store, in processes that are killed (SIGKILL) after a random time until one
lives to the end. After every kill each run of the store must be whole, and none there twice; after the last every cell
must have the very episodes and weights of a training that nobody touched. Checkpoints follow each other without pause,
so that kills meet their writing as well. `growth` watches the memory of one long training.
"""

import dataclasses
import random
import shutil
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from tqdm import tqdm

from offmarl.benchmarks.tasks import tasks
from offmarl.experiments import train
from offmarl.experiments.files import load_suite
from offmarl.experiments.grid import Job, Request, jobs
from offmarl.experiments.host import Host
from offmarl.experiments.launch import run_serial
from offmarl.experiments.pace import made_up
from offmarl.experiments.store import Store
from offmarl.experiments.updates import Updates

UPDATES, SETTLED = 20_000, 2_000  # of the watched training; those before what is compared
SUITE = "continuous"
PRELOAD = ["offmarl.experiments.launch"]
Outcome = tuple[Any, dict[str, torch.Tensor]]  # evaluations and weights of a run


def grid() -> list[Job]:
    """The first and the headline method of a suite on Spread, two seeds each, two looks."""
    suite = load_suite(SUITE)
    methods, overrides = [next(iter(suite["algorithms"])), suite["headline"]], ["all.hidden=[16]", "all.batch_size=8"]
    found = jobs(Request(SUITE, "smoke", algorithms=methods, tasks=["mpe/spread:medium"], overrides=overrides))
    protocol = {"steps": 40, "eval_every": 20, "eval_episodes": 2}
    return [dataclasses.replace(job, protocol={**job.protocol, **protocol}) for job in found]


def rounds(minutes: float, seed: int) -> dict[str, int]:
    """Kill and look until the time is over; returns counts: rounds, kills, and of what must not be.

    The last round is finished undisturbed.
    """
    rng, context, counts = random.Random(seed), get_context("forkserver"), Counter[str]()
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory(prefix="offmarl-soak-") as scratch, tqdm(desc="soak", unit="kill") as bar:
        reference = Path(scratch) / "reference"
        began = time.monotonic()
        _attempt(context, reference, None)
        lasts, until = time.monotonic() - began, began + 60 * minutes
        expected = outcome(reference)
        while time.monotonic() < until:
            store = Path(scratch) / "store"
            while not _attempt(context, store, rng.uniform(0, 1.2 * lasts) if time.monotonic() < until else None):
                counts["kills"] += 1
                bar.update()
                counts["not whole"] += sum(not whole for whole in state(store).values())
                counts["twice"] += _doubled(store)
            found = outcome(store)
            counts["rounds"] += 1
            counts["lost"] += len(expected.keys() - found.keys())
            counts["different"] += sum(not _same(expected[run_id], found.get(run_id)) for run_id in expected)
            shutil.rmtree(store)
    return {name: counts[name] for name in ("rounds", "kills", "lost", "twice", "not whole", "different")}


def _attempt(context: Any, results: Path, seconds: float | None) -> bool:
    """Train in a process of its own, which is killed after some seconds; whether it lived to the end.

    Raises:
        RuntimeError: when it ended by itself, and not well.
    """
    process = context.Process(target=work, args=(results,), daemon=True)
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return False
    if process.exitcode:
        raise RuntimeError(f"a training ended with exit code {process.exitcode}")
    return True


def work(results: Path) -> None:
    """Train what the store lacks, with a checkpoint after every update."""
    import contextlib
    import os

    from offmarl.experiments.grid import pending

    train.CHECKPOINT_SECONDS = 0.0
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        if run_serial(pending(grid(), Store(results)), results, Host()):
            raise SystemExit(1)


def state(results: Path) -> dict[str, bool]:
    """The visible runs, and whether each is whole."""
    store = Store(results)
    return {place.name: store.read(place.name) is not None for place in store.runs.glob("[!.]*")}


def _doubled(results: Path) -> int:
    """Cells of which the store has more than one run."""
    store = Store(results)
    cells = Counter(name.rpartition(".")[0] for name in state(results) if store.read(name))
    return sum(count > 1 for count in cells.values())


def outcome(results: Path) -> dict[str, Outcome]:
    """Every finished run's evaluations and weights."""
    store, found = Store(results), {}
    for place in store.runs.glob("[!.]*"):
        record = store.read(place.name)
        if record and record["status"] == "done":
            weights = torch.load(place / "checkpoint.pt", weights_only=True)
            found[place.name] = record["evaluations"], weights
    return found


def _same(one: Outcome, other: Outcome | None) -> bool:
    return (
        other is None
        or one[0] == other[0]
        and all(torch.equal(value, other[1][name]) for name, value in one[1].items())
    )


def growth() -> float:
    """How much the resident memory of a training grows, as a share, from 2,000 to 20,000 updates."""
    torch.set_num_threads(1)
    job = grid()[-1]
    task, process, sizes = tasks()[job.task], psutil.Process(), []
    update = Updates(train.build(job, task, job.seeds, "cpu"), train.make_sampler(job, made_up(task), "cpu"))
    for step in tqdm(range(1, UPDATES + 1), desc="memory", unit="update"):
        update()
        if step in (SETTLED, UPDATES):
            sizes.append(process.memory_info().rss)
    return sizes[1] / sizes[0] - 1
