"""How fast methods train here, at the sizes of a profile: `offmarl bench train`, and the estimate of a dry run."""

import dataclasses
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from offmarl.algorithms.parts.cuda_graphs import WARM_UP
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.dataset import Dataset, from_episodes
from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing.isolated import about, apart, measure_all, one_each, source
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import build, describe, make_sampler
from offmarl.experiments.training.updates import Updates


class Pace(NamedTuple):
    """Of a job's updates."""

    seconds: float  # of one update of all seeds together, the batch's drawing included
    updates: int  # that were timed
    facts: dict[str, Any]  # of the method: size, network evaluations


def training_pace(job: Job, host: Host, seconds: float) -> Pace:
    """Time updates on made-up data, one at least; the first ones, in which things are made once, are left out."""
    task = tasks()[job.task]
    algorithm = build(job, task, job.seeds, host.device)
    sampler = make_sampler(job, made_up(task), host.device)
    sampler.data = algorithm.prepare(sampler.data)
    update = Updates(algorithm, sampler, host.captures)
    for _ in range(2 * (WARM_UP + 1) if update.capture else 1):
        update()
    host.synchronise()
    paces, updates, block, began = [], 0, 1, time.perf_counter()
    while not paces or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        for _ in range(block):
            update()
        host.synchronise()
        paces.append((time.perf_counter() - start) / block)
        updates += block
        block = max(1, int(seconds / 10 / paces[-1]))  # the device is waited for ten times, not at every update
    return Pace(statistics.median(paces), updates, describe(algorithm))


def made_up(task: Task, episodes: int = 20, length: int = 50) -> Dataset:
    """Random numbers in the shape of the task's data."""
    rng, per_agent = np.random.default_rng(0), (task.agents, task.actions)
    one: dict[str, np.ndarray] = {
        "done": np.array(True),
        "timeout": np.array(False),
        "obs": rng.random((length + 1, task.agents, task.obs), np.float32),
        "state": rng.random((length + 1, task.state), np.float32),
        "rewards": rng.random((length, task.agents), np.float32),
    }
    if task.discrete:
        one["actions"] = rng.integers(task.actions, size=(length, task.agents))
        one["legal"] = np.ones((length + 1, *per_agent), bool)
    else:
        one["actions"] = rng.uniform(-1, 1, (length, *per_agent)).astype(np.float32)
    return from_episodes([one] * episodes, [0] * episodes)


class Row(NamedTuple):
    """What `bench train` measures: a job with its seeds, where, and what was changed in its settings."""

    job: Job
    host: Host
    changed: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.job.task} {self.job.algorithm}, {len(self.job.seeds)} seeds"


def rows_of(
    grid: Sequence[Job], seeds: Sequence[int], hosts: Sequence[Host], compared: Mapping[str, Sequence[dict[str, Any]]]
) -> list[Row]:
    """Every method on every task, with so many seeds in lock step.

    `compared` lists settings of a method that are measured side by side.
    """
    return [
        Row(dataclasses.replace(job, seeds=tuple(range(count)), config={**job.config, **changed}), host, changed)
        for job in one_each(grid)
        for changed in compared.get(job.algorithm, [{}])
        for count in seeds
        for host in hosts
    ]


def measure_training(row: Row, seconds: float) -> dict[str, Any]:
    """One row's record. Runs in a process of its own."""
    job, host = row.job, row.host
    host.set_up()
    before = host.peak_mb()
    pace = training_pace(job, host, seconds)
    return {
        **about(job),
        "changed": row.changed,
        "seeds": len(job.seeds),
        "batch_size": job.config["batch_size"],
        "steps": job.protocol["steps"],
        "mode": "captured" if host.captures else "eager",
        "update_ms": round(1e3 * pace.seconds, 4),
        "updates": pace.updates,
        "seed_steps_per_s": round(len(job.seeds) / pace.seconds, 4),
        "peak_mb": round(host.peak_mb() - before, 1),
        "facts": pace.facts,
        **source(host),
    }


def bench_train(
    rows: Sequence[Row], seconds: float, store: Store, progress: Callable[[Sequence[Row]], Iterable[Row]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure and store every row; returns the records, and what could not be measured."""
    return measure_all(progress(rows), lambda row: apart(measure_training, row, seconds), store, "training", key)


def key(record: Mapping[str, Any]) -> str:
    """Names a record in the store."""
    parts = [record[part] for part in ("task", "algorithm", "variant", "profile", "seeds", "mode")]
    parts += [*record["changed"].values(), record["machine"]["device"], record["machine"]["threads"]]
    return ".".join(map(str, parts))


HEAD = f"{'task':22} {'method':26} {'seeds':>5} {'mode':9} {'ms/update':>12} {'seed-steps/s':>13} "
HEAD += f"{'gain':>9} {'peak MB':>9}"
FOOT = (
    "gain: seed-steps per second over those of one seed in the same mode. Updates on made-up data, without evaluation."
)


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as text."""

    def place(record: Mapping[str, Any]) -> tuple:
        return record["task"], record["algorithm"], str(record["changed"]), record["mode"]

    single = {place(r): r["update_ms"] for r in records if r["seeds"] == 1}
    lines = [HEAD]
    for r in records:
        gain = f"{r['seeds'] * single[place(r)] / r['update_ms']:.2f}x" if place(r) in single else ""
        name = " ".join([r["algorithm"], *(f"{k}={v}" for k, v in r["changed"].items())])
        lines.append(
            f"{r['task']:22} {name:26} {r['seeds']:5} {r['mode']:9} {r['update_ms']:12,.3f} "
            f"{r['seed_steps_per_s']:13,.2f} {gain:>9} {r['peak_mb']:9,.0f}"
        )
    return "\n".join([*lines, FOOT])


def projected(grid: Sequence[Job], records: Sequence[Mapping[str, Any]], groups: Mapping[str, Mapping]) -> list[str]:
    """Hours that the updates of a whole grid take here, by method.

    A task that was not measured counts as the measured ones of its group, else as any; ~ marks methods for which the
    latter was so.
    """
    group_of = {task: group for group, tasks_ in groups.items() for task in tasks_}
    hours, rough = defaultdict(float), set()
    for job in grid:
        own = [r for r in records if r["algorithm"] == job.algorithm and r["changed"].items() <= job.config.items()]
        near = [r for r in own if group_of.get(r["task"]) == group_of[job.task]]
        if not own:
            continue
        rough |= set() if near else {job.algorithm}
        own = [r for r in near if r["task"] == job.task] or near or own
        together = max((r["seeds"] for r in own if r["seeds"] <= len(job.seeds)), default=min(r["seeds"] for r in own))
        update = statistics.mean(r["update_ms"] for r in own if r["seeds"] == together)
        hours[job.algorithm] += update * job.protocol["steps"] * len(job.seeds) / together / 3.6e6
    lines = [f"{name:14} {'~' if name in rough else '':1}{value:12,.1f} hours" for name, value in hours.items()]
    lines += [f"{name:14} not measured" for name in dict.fromkeys(job.algorithm for job in grid) if name not in hours]
    return [*lines, f"{'together':14} {sum(hours.values()):13,.1f} hours of updates, one job after the other"]
