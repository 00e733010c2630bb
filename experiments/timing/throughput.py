"""How fast methods train here, at the sizes of a profile: `offmarl bench train`, and the estimate of a dry run."""

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from offmarl.benchmarks.rollout import lane_seeds
from offmarl.benchmarks.tasks import Task, make_env
from offmarl.datasets.dataset import Dataset, from_episodes
from offmarl.experiments.errors import refusing
from offmarl.experiments.grid.config import Overrides
from offmarl.experiments.grid.estimate import duration, time_left
from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing.isolated import (
    changes_of,
    isolated,
    job_facts,
    measure_all,
    name_of,
    one_each,
    text_table,
)
from offmarl.experiments.training.cuda_graphs import WARM_UP
from offmarl.experiments.training.machine import Host, provenance
from offmarl.experiments.training.method import build, describe, job_trainer

BYTES = 4  # of a parameter
STEPS = 4  # of all episodes, timed for the estimate of an evaluation


class Pace(NamedTuple):
    """Of a job's updates."""

    seconds: float  # of one update of all seeds together, with the drawing of its batch
    updates: int  # that were timed
    facts: dict[str, Any]  # of the method: size, network evaluations


def training_pace(job: Job, host: Host, seconds: float) -> Pace:
    """Time updates on random data, one at least, after a warm-up."""
    algorithm, _, update = job_trainer(job, random_data(job.entry.task), host)
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
        block = max(1, int(seconds / 10 / paces[-1]))  # wait for the device ten times, not after every update
    return Pace(statistics.median(paces), updates, describe(algorithm))


def evaluation_seconds(job: Job, host: Host) -> float:
    """All evaluations of a job, from the pace of a few steps of its episodes by an untrained policy.

    Episodes count as long as those of the data, where these are there, else as the task's limit. 0 for StarCraft, which
    is not started for an estimate, and where there is no environment.
    """
    task, protocol, groups = job.entry.task, job.protocol, (len(job.seeds), -1)
    if task.simulator.presence or not task.played:
        return 0.0
    algorithm, env = build(job, job.seeds, host.device), make_env(task, len(job.seeds), protocol.eval_episodes)
    view, memory, began = env.reset(lane_seeds(list(job.seeds), env.lanes // len(job.seeds))), None, 0.0
    with contextlib.closing(env):
        for step in range(1 + STEPS):
            began = began if step > 1 else time.perf_counter()  # the first step compiles
            obs = torch.from_numpy(view.obs).to(host.device).unflatten(0, groups)
            legal = None if view.legal is None else torch.from_numpy(view.legal).to(host.device).unflatten(0, groups)
            actions, memory = algorithm.act(obs, legal, memory)
            view = env.step(actions.flatten(0, 1).cpu().numpy()).view
    pace = (time.perf_counter() - began) / STEPS
    looks = -(-protocol.steps // protocol.eval_every) + len(protocol.plays) - 1  # in all plays at the end alone
    return pace * looks * (job.entry.card() or {}).get("length_mean", task.limit)


def random_data(task: Task, episodes: int = 20, length: int = 50) -> Dataset:
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
    """What `bench train` measures: a job with its seeds, the host, and the settings that were changed."""

    job: Job
    host: Host
    changed: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.job.task} {self.job.algorithm}, {len(self.job.seeds)} seeds"


def rows_of(
    grid: Sequence[Job],
    seeds: Sequence[int],
    hosts: Sequence[Host],
    compared: Mapping[str, Sequence[dict[str, Any]]],
    given: Overrides | None = None,
) -> list[Row]:
    """Every method on every task, with each number of seeds in lock step, and the settings that are compared of it.

    `given` is what the command line changed of the jobs.
    """
    return [
        Row(replace(job, seeds=tuple(range(count)), config=replace(job.config, **changed)), host, named | changed)
        for job in one_each(grid)
        for named in [changes_of(job, given or {})]
        for changed in compared.get(job.algorithm, [{}])
        for count in seeds
        for host in hosts
    ]


def measure_training(row: Row, seconds: float) -> dict[str, Any]:
    """One row's record; to be called in a fresh process."""
    job, host = row.job, row.host
    host.set_up()
    before = host.peak_mb()
    pace = training_pace(job, host, seconds)
    return {
        **job_facts(job),
        "changed": row.changed,
        "seeds": len(job.seeds),
        "batch_size": job.config.batch_size,
        "steps": job.protocol.steps,
        "mode": "captured" if host.captures else "eager",
        "update_ms": round(1e3 * pace.seconds, 4),
        "updates": pace.updates,
        "seed_steps_per_s": round(len(job.seeds) / pace.seconds, 4),
        "peak_mb": round(host.peak_mb() - before, 1),
        "facts": pace.facts,
        **provenance(host),
    }


def bench_train(rows: Sequence[Row], seconds: float, store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure and store every row; returns the records, and what could not be measured."""
    return measure_all(rows, lambda row: isolated(measure_training, row, seconds), store, "training", key)


def key(record: Mapping[str, Any]) -> str:
    """Names a record in the store."""
    return name_of(record, "seeds", "mode")


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as text."""

    def place(record: Mapping[str, Any]) -> tuple:
        return record["task"], record["algorithm"], str(record["changed"]), record["mode"]

    single = {place(r): r["update_ms"] for r in records if r["seeds"] == 1}
    rows = [
        {
            "task": r["task"],
            "method": " ".join([r["algorithm"], *(f"{k}={v}" for k, v in r["changed"].items())]),
            "seeds": r["seeds"],
            "mode": r["mode"],
            "ms/update": f"{r['update_ms']:,.3f}",
            "seed-steps/s": f"{r['seed_steps_per_s']:,.2f}",
            "gain": f"{r['seeds'] * single[place(r)] / r['update_ms']:.2f}x" if place(r) in single else "",
            "peak MB": f"{r['peak_mb']:,.0f}",
        }
        for r in records
    ]
    foot = "gain: seed-steps per second over those of one seed in the same mode. Random data, no evaluation."
    return f"{text_table(rows)}\n{foot}"


def projected(grid: Sequence[Job], records: Sequence[Mapping[str, Any]], groups: Mapping[str, Mapping]) -> list[str]:
    """How long the updates of a whole grid take here, by method.

    A task that was not measured counts as the mean of its group, else of all tasks (marked by ~).
    """
    lines, total = [], 0.0
    for method in dict.fromkeys(job.algorithm for job in grid):
        own = [job for job in grid if job.algorithm == method]
        pace = {(method, job.task): found for job in own if (found := _pace(job, records, groups))}
        seconds, untimed = time_left([(method, job.task, job.protocol.steps) for job in own], pace)
        if untimed:
            lines.append(f"{method:14} not measured")
            continue
        rough = "" if all((method, job.task) in pace for job in own) else "~"
        lines.append(f"{method:14} {rough}{duration(seconds)}")
        total += seconds
    return [*lines, f"{'total':14} {duration(total)}, updates only, one job at a time"]


def _pace(job: Job, records: Sequence[Mapping[str, Any]], groups: Mapping[str, Mapping]) -> float | None:
    """Seconds of one step of all the job's seeds, as measured on its task, else on the tasks of its group."""
    group = {task for tasks in groups.values() if job.task in tasks for task in tasks}
    own = [record for record in records if record["algorithm"] == job.algorithm and record["task"] in group]
    own = [record for record in own if record["mode"] == "captured"] or own  # as runs are, where the device can
    own = [r for r in own if all(getattr(job.config, key, None) == value for key, value in r["changed"].items())]
    own = [record for record in own if record["task"] == job.task] or own
    if not own:
        return None
    counts = [record["seeds"] for record in own]
    together = max((count for count in counts if count <= len(job.seeds)), default=min(counts))
    update = statistics.mean(record["update_ms"] for record in own if record["seeds"] == together)
    return 1e-3 * update * len(job.seeds) / together


def dry_run(grid: Sequence[Job], left: Sequence[Job], host: Host, workers: int) -> str:
    """Cells and predicted time by method, and the disk: a few updates and steps of play of each kind of pending job."""
    host.set_up()
    paces, played = {}, {}
    for kind, job in tqdm({_kind(job): job for job in reversed(left)}.items(), desc="measuring", leave=False):
        with refusing(f"{job.title}: fails in its first updates or steps"):
            paces[kind], played[kind] = training_pace(job, host, 0.2), evaluation_seconds(job, host)
    rows, parts = [], [0.0, 0.0]
    for method in dict.fromkeys((job.algorithm, job.variant) for job in grid):
        jobs, own = ([job for job in some if (job.algorithm, job.variant) == method] for some in (grid, left))
        seconds = [
            sum(paces[_kind(job)].seconds * job.protocol.steps for job in own),
            sum(played[_kind(job)] for job in own),
        ]
        parts = [one + more / workers for one, more in zip(parts, seconds)]
        cells = sum(len(job.seeds) for job in jobs)
        row = {"method": method[0], "variant": method[1], "jobs": len(jobs), "cells": cells}
        rows.append(row | dict(zip(("training", "evaluation"), map(duration, seconds))))
    total, pending = (sum(len(job.seeds) for job in jobs) for jobs in (grid, left))
    weights = BYTES * sum(paces[_kind(job)].facts["parameters"] * len(job.seeds) for job in left)
    data = sum(
        each.disk() for each in {(j.task, j.quality): j.entry for j in left}.values() if not each.place().exists()
    )
    training, evaluation = map(duration, parts)
    return "\n".join(
        [
            text_table(rows),
            f"{total} cells: {total - pending} done, {pending} pending; {workers} jobs at once on {host.device}",
            f"time: {duration(sum(parts))} (training {training}, evaluation {evaluation}), as measured just now",
            f"disk: at most {data / 1e9:.1f} GB of data to prepare, {weights / 1e9:.2f} GB of runs",
        ]
    )


def _kind(job: Job) -> tuple[str, str, int]:
    """Jobs of equal cost: the qualities of a task cost the same."""
    return job.task, job.algorithm, len(job.seeds)
