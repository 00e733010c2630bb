"""Kill trainings at random moments, again and again, and check that nothing is lost.

    .venv/bin/python tests/tools/soak.py --minutes 10

A round trains a small grid into an empty store, in processes that are killed (SIGKILL) after a random time, until one
finishes. After every kill each run of the store must be complete, and none stored twice; in the end every cell must
have exactly the returns, curves and weights of an undisturbed training. A checkpoint is saved after every update, so
that kills hit its writing as well. `growth` measures the memory of one long training.
"""

import argparse
import dataclasses
import pkgutil
import random
import secrets
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

from offmarl import algorithms
from offmarl.experiments.grid.jobs import Job, Request, jobs
from offmarl.experiments.grid.suite import load_suite
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store.compare import compare
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing.throughput import random_data
from offmarl.experiments.training import run as train
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import job_trainer

UPDATES, SETTLED = 20_000, 2_000  # of the measured training; those before its memory is compared
SUITE = "continuous"
SOURCES = [f"offmarl.algorithms.{module.name}" for module in pkgutil.iter_modules(algorithms.__path__)]
PRELOAD = ["offmarl.experiments.launch.serial", "offmarl.experiments.commands.status", "torch._inductor", *SOURCES]


def grid() -> list[Job]:
    """The first and the headline method of a suite on Spread: two seeds each, two evaluations."""
    suite = load_suite(SUITE)
    methods, overrides = [next(iter(suite.algorithms)), suite.headline], {"all": {"hidden": [16], "batch_size": 8}}
    found = jobs(Request(SUITE, "smoke", algorithms=methods, tasks=["mpe/spread:medium"], overrides=overrides))
    protocol = dataclasses.replace(found[0].protocol, steps=40, eval_every=20, eval_episodes=2)
    return [dataclasses.replace(job, protocol=protocol) for job in found]


def rounds(minutes: float, seed: int) -> dict[str, int]:
    """Kill, once at least, and check until the time is over; returns the numbers of rounds, of kills and of faults.

    The last round is finished undisturbed.
    """
    rng, context, counts = random.Random(seed), get_context("forkserver"), Counter[str]()
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory(prefix="offmarl-soak-") as scratch, tqdm(desc="soak", unit="kill") as bar:
        reference = Path(scratch) / "reference"
        _attempt(context, reference, None)
        began = time.monotonic()
        _attempt(context, Path(scratch) / "timed", None)  # the first one has started the server of processes, too
        lasts, expected = time.monotonic() - began, finished(reference)
        until = time.monotonic() + 60 * minutes

        def more() -> bool:
            return time.monotonic() < until or not counts["kills"]

        while more():
            store = Path(scratch) / "store"
            while not _attempt(context, store, rng.uniform(0, 1.2 * lasts) if more() else None):
                counts["kills"] += 1
                bar.update()
                counts["damaged"] += sum(not sound for sound in state(store).values())
                counts["twice"] += _doubled(store)
            found = finished(store)
            counts["rounds"] += 1
            counts["lost"] += len(expected - found)
            for run_id in expected & found:
                counts["different"] += not all(row.exact for row in compare(Store(reference), Store(store), run_id))
            shutil.rmtree(store)
    return {name: counts[name] for name in ("rounds", "kills", "lost", "twice", "damaged", "different")}


def _attempt(context: Any, results: Path, seconds: float | None) -> bool:
    """Train in a process, which is killed after some seconds; whether it finished before.

    Raises:
        RuntimeError: when it failed by itself.
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
    """Train what is pending, with a checkpoint after every update."""
    import contextlib
    import os

    from offmarl.experiments.grid.jobs import pending

    train.CHECKPOINT_SECONDS = 0.0
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        if run_serial(pending(grid(), Store(results)), results, Host()):
            raise SystemExit(1)


def state(results: Path) -> dict[str, bool]:
    """The visible runs, and whether all of their files are as they were written."""
    store = Store(results)
    return {run_id: store.status(run_id) != "pending" for run_id in store.run_ids()}


def finished(results: Path) -> set[str]:
    """The runs that have a result."""
    store = Store(results)
    return {run_id for run_id in store.run_ids() if store.status(run_id) == "done"}


def _doubled(results: Path) -> int:
    """Cells of which the store has more than one run."""
    cells = Counter(run_id.rpartition(".")[0] for run_id in Store(results).run_ids())
    return sum(count > 1 for count in cells.values())


def growth() -> float:
    """How much the resident memory of a training grows, as a share, from 2,000 to 20,000 updates."""
    torch.set_num_threads(1)
    job = grid()[-1]
    process, sizes = psutil.Process(), []
    update = job_trainer(job, random_data(job.entry.task), Host()).update
    for step in tqdm(range(1, UPDATES + 1), desc="memory", unit="update"):
        update()
        if step in (SETTLED, UPDATES):
            sizes.append(process.memory_info().rss)
    return sizes[1] / sizes[0] - 1


def main() -> int:
    """Print a row of the table in tests/README.md; exit code 1 if anything was lost, damaged or different."""
    parser = argparse.ArgumentParser(description="Kill trainings at random moments; is anything lost?")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments (default: a new one)")
    args = parser.parse_args()
    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    grown, counts = growth(), rounds(args.minutes, seed)
    cells = {"minutes": f"{args.minutes:g}", "seed": seed, **counts, "memory": f"{grown:+.1%}"}
    for line in (cells, ["---"] * len(cells), cells.values()):
        print(f"| {' | '.join(map(str, line))} |")
    return int(grown >= 0.05 or any(counts[name] for name in ("lost", "twice", "damaged", "different")))


if __name__ == "__main__":
    raise SystemExit(main())
