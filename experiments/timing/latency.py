"""Time of decisions: `offmarl latency`.

Every row is measured in a fresh process, on observations of random legal play in the task's simulator, in three ways:
`joint`, one host decides for the team; `agent`, an agent on a device of its own; `sum`, all agents one after the other.
`headline` is the time that the team waits: `agent` for decentralised execution, `joint` for centralised. Agents that
share one network take the same time, so theirs is common to them; otherwise the slowest agent's counts.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.diffusion import shortened
from offmarl.benchmarks.latency import Decisions, Observation, Timing, common, time_decisions
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import make_single, tasks
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.config import Overrides
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
from offmarl.experiments.training.cuda_graphs import Captured
from offmarl.experiments.training.machine import Host, provenance
from offmarl.experiments.training.method import build, describe, load_networks

OBSERVATIONS = 256
DDIM_CALLS = 15
BUSY = 0.9  # share of a core below which a row of one thread is doubtful


class Plan(NamedTuple):
    """How long is measured."""

    seconds: float  # for the joint decisions, and again for those of all agents
    calls: int  # of a slow denoising chain that are timed; the others are extrapolated


class Row(NamedTuple):
    """What is measured."""

    job: Job
    sampler: str  # "native", or which one takes its place
    host: Host
    captured: bool = False
    changed: Mapping[str, Any] = {}  # settings, by the command line

    def __str__(self) -> str:
        mode = "captured" if self.captured else "eager"
        return f"{self.job.task} {self.job.algorithm} ({self.sampler}, {mode}, threads: {self.host.threads})"


def rows_of(grid: Sequence[Job], hosts: Sequence[Host], given: Overrides | None = None) -> list[Row]:
    """Every method on every task and host, with its own sampler and with DDIM, eager and on CUDA captured too.

    `given` is what the command line changed of the jobs.
    """
    return [
        Row(job, sampler, host, captured, changes_of(job, given or {}))
        for native in one_each(grid)
        for sampler, job in _samplers(native).items()
        for host in hosts
        for captured in ((False, True) if host.cuda else (False,))
    ]


def _samplers(job: Job) -> dict[str, Job]:
    """The job as it is, and with DDIM where its own sampler takes every denoising step."""
    found = {"native": job}
    if getattr(job.config, "sampler", None) == "ddpm":
        config = dataclasses.replace(job.config, sampler="ddim", ddim_calls=DDIM_CALLS)
        found[f"ddim-{DDIM_CALLS}"] = dataclasses.replace(job, config=config)
    return found


def checkpoint(job: Job, grid: Sequence[Job], store: Store) -> Path | None:
    """The networks of a finished run of the job's method on its task, on any of its data; none of other code."""
    for other in grid:
        if (other.task, other.algorithm) == (job.task, job.algorithm):
            run_id = other.run_ids()[0]
            record, found = store.read(run_id, all_files=True), store.runs / run_id / "checkpoint.pt"
            if record and record["status"] == "done" and not why_stale(record) and found.exists():
                return found
    return None


class Observed(NamedTuple):
    """Observations of a task, and how long its simulator takes for a step of one episode."""

    moments: list[Observation]
    step_ms: float


def observe(task: str, count: int = OBSERVATIONS) -> Observed:
    """Observations of random legal play of one episode at a time."""
    rng, env = np.random.default_rng(0), make_single(tasks()[task])
    behaviour, view, seed = uniform(tasks()[task]), env.reset(np.array([0])), 1
    view = env.step(behaviour(view, rng)).view  # so that compilation is not timed
    moments, spent = [], []
    while len(moments) < count:
        moments.append((view.obs[0].copy(), None if view.legal is None else view.legal[0].copy()))
        actions, began = behaviour(view, rng), time.perf_counter()
        step = env.step(actions)
        spent.append(1e3 * (time.perf_counter() - began))
        view = step.view
        if step.done[0]:
            view, seed = env.reset(np.array([seed])), seed + 1
    env.close()
    return Observed(moments, round(median(spent), 4))


def measure(row: Row, plan: Plan, observed: Observed, weights: Path | None) -> dict[str, Any]:
    """A row's record; to be called in a fresh process."""
    job, host = row.job, row.host
    host.set_up()
    before = host.peak_mb()
    method = build(job, job.seeds[:1], host.device)
    if weights is not None:
        load_networks(method, torch.load(weights, map_location=host.device, weights_only=True))
    joint, cut = time_method(method, row, plan, observed.moments)
    peak = host.peak_mb() - before
    return {
        **job_facts(job),
        "changed": row.changed,
        "sampler": row.sampler,
        "mode": "captured" if row.captured else "eager",
        "weights": "fresh" if weights is None else weights.parent.name,
        "facts": describe(method),
        "joint": dataclasses.asdict(joint),
        "extrapolated": cut,
        **agents_costs(method, joint, row, plan, observed.moments),
        "step_ms": observed.step_ms,
        "peak_mb": round(peak, 1),
        "what": "one joint decision, batch 1, observation on the host to action on the host, without env.step",
        **provenance(host),
    }


def agents_costs(
    method: Algorithm, joint: Timing, row: Row, plan: Plan, moments: Sequence[Observation]
) -> dict[str, Any]:
    """Time of a decision of an agent, of all agents one after the other, and that the team waits.

    The slowest of several measurements of one time grows with their number. So agents that share a network are given
    their common median; where each has its own, it is the slowest one's.
    """
    if method.execution != "decentralised":
        return {"agent": None, "sum_ms": None, "headline_ms": joint.median_ms}
    alone, state = [], method.nets.state_dict()
    shorter = plan._replace(seconds=plan.seconds / method.spec.agents)
    for agent in range(method.spec.agents):
        single = build(row.job, row.job.seeds[:1], row.host.device)
        load_networks(single, state)
        single.keep_agent(agent)
        own = [(obs[agent : agent + 1], None if legal is None else legal[agent : agent + 1]) for obs, legal in moments]
        alone.append(time_method(single, row, shorter, own)[0])
    shared = method.config.share_parameters
    agent = common(alone) if shared else max(alone, key=lambda timing: timing.median_ms)
    total = round(sum(timing.median_ms for timing in alone), 4)
    return {"agent": dataclasses.asdict(agent), "sum_ms": total, "headline_ms": agent.median_ms}


def time_method(
    method: Algorithm, row: Row, plan: Plan, moments: Sequence[Observation]
) -> tuple[Timing, dict[str, int] | None]:
    """Time decisions. A denoising chain too slow for the plan's seconds is timed for `plan.calls` and extrapolated.

    A call costs what the chain's first `plan.calls` take more than a quarter of them. Where they took no more, because
    the machine was busy in between, their whole time is divided among them.
    """

    def timed(seconds: float) -> Timing:
        capture = partial(Captured, generators=method.acting.generators) if row.captured else None
        return time_decisions(Decisions(method, row.host.device, capture), moments, seconds)

    chain = method.chain
    if len(chain.time) <= plan.calls or _fits(method, row, plan, moments):
        return timed(plan.seconds), None
    few = max(1, plan.calls // 4)
    method.chain = shortened(chain, few)
    base = timed(plan.seconds / 2).median_ms
    method.chain = shortened(chain, plan.calls)
    most = timed(plan.seconds / 2)
    method.chain = chain
    each = (most.median_ms - base) / (plan.calls - few)
    each = each if each > 0 else most.median_ms / plan.calls
    whole = most.median_ms + each * (len(chain.time) - plan.calls)
    return most.times(whole / most.median_ms), {"calls": plan.calls, "of": len(chain.time)}


def _fits(method: Algorithm, row: Row, plan: Plan, moments: Sequence[Observation]) -> bool:
    """Whether five decisions should fit the plan's seconds, by the time of two calls of the chain."""
    chain, method.chain = method.chain, shortened(method.chain, 2)
    decide = Decisions(method, row.host.device)
    decide(*moments[0])
    began = time.perf_counter()
    decide(*moments[0])
    method.chain = chain
    return (time.perf_counter() - began) * len(chain.time) / 2 < plan.seconds / 5


def key(row: dict[str, Any]) -> str:
    """Names a row in the store, where a new one replaces the old one."""
    return name_of(row, "sampler", "mode")


def latency(
    grid: Sequence[Job], hosts: Sequence[Host], plan: Plan, store: Store, given: Overrides | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure and store every row; returns the records, and what could not be measured."""
    observed = cache(partial(isolated, observe))  # of every task

    def record(row: Row) -> dict[str, Any]:
        return isolated(measure, row, plan, observed(row.job.task), checkpoint(row.job, grid, store))

    return measure_all(rows_of(grid, hosts, given), record, store, "latency", key)


FOOT = """joint: one host decides for the team;
agent: an agent on a device of its own, the slowest where networks are not shared (-: centralised);
sum: all agents, one after the other; p95, min and n are the joint decision's. Without the environment's step.
~: extrapolated from the first calls of the denoising chain."""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    shown = []
    for row in rows:
        joint, agent, mark = row["joint"], row["agent"] or {}, "~" if row["extrapolated"] else ""
        times = {"joint": joint["median_ms"], "agent": agent.get("median_ms"), "sum": row["sum_ms"]}
        times |= {"p95": joint["p95_ms"], "min": joint["min_ms"]}
        shown.append(
            {"task": row["task"], "method": row["algorithm"], "sampler": row["sampler"], "mode": row["mode"]}
            | {"threads": row["machine"]["threads"], "NFE": row["facts"]["nfe"]}
            | {"parameters": f"{row['facts']['parameters']:,}"}
            | {f"{name} ms": "-" if ms is None else f"{mark}{ms:,.3f}" for name, ms in times.items()}
            | {"n": joint["n"], "peak MB": f"{row['peak_mb']:,.0f}"}
        )
    lines = [text_table(shown)]
    busy = [row for row in rows if row["machine"]["threads"] == 1 and row["joint"]["cpu_share"] < BUSY]
    if busy:
        lines.append(f"{len(busy)} rows had less than {BUSY:.0%} of a core: the machine was busy with something else.")
    return "\n".join([*lines, FOOT])


def ratios(rows: Sequence[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """How many times the reference's decision another method's takes, mean over tasks, without and with `env.step`."""
    place, name = ["task", "mode", "threads"], ["algorithm", "sampler", "mode", "threads"]
    columns: Any = [*place, "algorithm", "sampler", "headline_ms", "step_ms"]
    table: Any = pd.DataFrame([row | {"threads": row["machine"]["threads"]} for row in rows], columns=columns)
    base, others = (table[(table["algorithm"] == reference) == own] for own in (True, False))
    both = others.merge(
        base[[*place, "headline_ms"]].drop_duplicates(place, keep="last"), on=place, suffixes=("", "_base")
    )
    one, other, step = both["headline_ms"], both["headline_ms_base"], both["step_ms"]
    found = both.assign(ratio=one / other, ratio_with_step=(one + step) / (other + step)).groupby(name, sort=False)
    means = found.agg(tasks=("task", "size"), ratio=("ratio", "mean"), ratio_with_step=("ratio_with_step", "mean"))
    return means.round(3).reset_index().to_dict("records")


def ratio_table(found: Sequence[dict[str, Any]], reference: str) -> str:
    """The ratios as text."""
    if not found:
        return ""
    rows = [
        {"method": row["algorithm"], "sampler": row["sampler"], "mode": row["mode"], "threads": row["threads"]}
        | {"ratio": f"{row['ratio']:,.2f}x", "with env.step in both": f"{row['ratio_with_step']:,.2f}x"}
        for row in found
    ]
    head = f"decision time relative to {reference} (agent, or joint where execution is centralised; mean over tasks):"
    return f"{head}\n{text_table(rows)}"
