"""Inference timed honestly: `offmarl latency`.

Every row is measured in a process of its own, on observations of random legal play in the task's simulator. What a
decision costs is told in three ways: `joint`, one host that decides for the team; `agent`, the slowest agent on a
device of its own; `sum`, all agents one after the other. `headline` is what the team waits for: `agent` for
decentralised execution, `joint` for centralised.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.cuda_graphs import Captured
from offmarl.algorithms.parts.diffusion import shortened
from offmarl.benchmarks.latency import Decisions, Observation, Timing, time_decisions
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import make_env, tasks
from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing.isolated import about, apart, measure_all, one_each, source
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import build, describe

SIGHTS = 256
DDIM_CALLS = 15
BUSY = 0.9  # share of a core below which a row of one thread is suspect


class Plan(NamedTuple):
    """How long is measured."""

    seconds: float  # for the joint decisions, and again for those of all agents
    calls: int  # of a chain of denoising, beyond which a slow one is extrapolated


class Row(NamedTuple):
    """What is measured."""

    job: Job
    sampler: str  # "native", or which one takes its place
    host: Host
    captured: bool = False

    def __str__(self) -> str:
        mode = "captured" if self.captured else "eager"
        return f"{self.job.task} {self.job.algorithm} ({self.sampler}, {mode}, threads: {self.host.threads})"


def rows_of(grid: Sequence[Job], hosts: Sequence[Host]) -> list[Row]:
    """Every method on every task, natively and by DDIM, on every host, eager and on CUDA captured."""
    return [
        Row(job, sampler, host, captured)
        for native in one_each(grid)
        for sampler, job in _samplers(native).items()
        for host in hosts
        for captured in ((False, True) if host.cuda else (False,))
    ]


def _samplers(job: Job) -> dict[str, Job]:
    """The job as it is, and with DDIM for a chain that takes every step."""
    found = {"native": job}
    if job.config.get("sampler") == "ddpm":
        fewer = {**job.config, "sampler": "ddim", "ddim_calls": DDIM_CALLS}
        found[f"ddim-{DDIM_CALLS}"] = dataclasses.replace(job, config=fewer)
    return found


def checkpoint(job: Job, grid: Sequence[Job], store: Store) -> Path | None:
    """The networks of a finished run of the job's method on its task, on whichever data."""
    for other in grid:
        if (other.task, other.algorithm) == (job.task, job.algorithm):
            found = store.runs / other.run_ids()[0] / "checkpoint.pt"
            if store.status(found.parent.name) == "done" and found.exists():
                return found
    return None


class Sights(NamedTuple):
    """What a task shows, and how long its simulator takes for a step of one episode."""

    moments: list[Observation]
    step_ms: float


def watch(task: str, count: int = SIGHTS) -> Sights:
    """Observations of random legal play."""
    rng, env = np.random.default_rng(0), make_env(tasks()[task], 1)
    behaviour, view, seed = uniform(tasks()[task]), env.reset(np.array([0])), 1
    view = env.step(behaviour(view, rng)).view  # compiles, where something is compiled
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
    return Sights(moments, round(median(spent), 4))


def measure(row: Row, plan: Plan, sights: Sights, weights: Path | None) -> dict[str, Any]:
    """A row's record. Runs in a process of its own."""
    job, host = row.job, row.host
    host.set_up()
    before, method = host.peak_mb(), _build(row)
    if weights is not None:
        method.load_nets(torch.load(weights, map_location=host.device, weights_only=True))
    joint, cut = time_method(method, row, plan, sights.moments)
    peak = host.peak_mb() - before
    return {
        **about(job),
        "sampler": row.sampler,
        "mode": "captured" if row.captured else "eager",
        "weights": "fresh" if weights is None else weights.parent.name,
        "facts": describe(method),
        "joint": dataclasses.asdict(joint),
        "extrapolated": cut,
        **agents_costs(method, joint, row, plan, sights.moments),
        "step_ms": sights.step_ms,
        "peak_mb": round(peak, 1),
        "what": "one joint decision, batch 1, observation on the host to action on the host, without env.step",
        **source(host),
    }


def _build(row: Row) -> Algorithm:
    return build(row.job, tasks()[row.job.task], row.job.seeds[:1], row.host.device)


def agents_costs(
    method: Algorithm, joint: Timing, row: Row, plan: Plan, moments: Sequence[Observation]
) -> dict[str, Any]:
    """What a decision costs the slowest agent and all together, each alone; and what the team waits for."""
    if method.execution != "decentralised":
        return {"agent": None, "sum_ms": None, "headline_ms": joint.median_ms}
    alone, state = [], method.nets.state_dict()
    shorter = plan._replace(seconds=plan.seconds / method.spec.agents)
    for agent in range(method.spec.agents):
        single = _build(row)
        single.load_nets(state)
        single.stand_alone(agent)
        own = [(obs[agent : agent + 1], None if legal is None else legal[agent : agent + 1]) for obs, legal in moments]
        alone.append(time_method(single, row, shorter, own)[0])
    slowest = max(alone, key=lambda timing: timing.median_ms)
    total = round(sum(timing.median_ms for timing in alone), 4)
    return {"agent": dataclasses.asdict(slowest), "sum_ms": total, "headline_ms": slowest.median_ms}


def time_method(
    method: Algorithm, row: Row, plan: Plan, moments: Sequence[Observation]
) -> tuple[Timing, dict[str, int] | None]:
    """Time decisions; of a chain that is too slow for the plan's seconds, so many calls, continued to all of them."""

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
    whole = most.median_ms + each * (len(chain.time) - plan.calls)
    return most.times(whole / most.median_ms), {"calls": plan.calls, "of": len(chain.time)}


def _fits(method: Algorithm, row: Row, plan: Plan, moments: Sequence[Observation]) -> bool:
    """Whether five decisions by the whole chain should fit the plan's seconds, by the time of two of its calls."""
    chain, method.chain = method.chain, shortened(method.chain, 2)
    decide = Decisions(method, row.host.device)
    decide(*moments[0])
    began = time.perf_counter()
    decide(*moments[0])
    method.chain = chain
    return (time.perf_counter() - began) * len(chain.time) / 2 < plan.seconds / 5


def key(row: dict[str, Any]) -> str:
    """Names a row in the store: measured again, it is replaced."""
    machine = row["machine"]
    where = f"{machine['device']}-{machine['threads']}" + ("-tf32" if machine.get("tf32") else "")
    return ".".join(row[part] for part in ("task", "algorithm", "variant", "profile", "sampler", "mode")) + "." + where


def latency(
    grid: Sequence[Job],
    hosts: Sequence[Host],
    plan: Plan,
    store: Store,
    progress: Callable[[Sequence[Row]], Iterable[Row]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure and store every row; returns the records, and what could not be measured.

    Args:
        progress: shows how far an iteration has come.
    """
    seen = cache(partial(apart, watch))  # of every task

    def record(row: Row) -> dict[str, Any]:
        return apart(measure, row, plan, seen(row.job.task), checkpoint(row.job, grid, store))

    return measure_all(progress(rows_of(grid, hosts)), record, store, "latency", key)


HEAD = f"{'task':22} {'method':13} {'sampler':8} {'threads':>7} {'mode':9} {'NFE':>4} {'parameters':>11} "
HEAD += f"{'joint ms':>11} {'agent ms':>11} {'sum ms':>11} {'p95 ms':>11} {'min ms':>11} {'n':>4} {'peak MB':>8}"
FOOT = """joint: one host decides for the team; agent: the slowest agent, each on a device of its own (-: centralised);
sum: all agents, one after the other; p95, min and n are the joint decision's. Without the environment's step.
~ is extrapolated from the first calls of the chain of denoising."""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [HEAD]
    for row in rows:
        joint, agent, facts = row["joint"], row["agent"], row["facts"]
        about = "~" if row["extrapolated"] else ""
        times = (joint["median_ms"], agent and agent["median_ms"], row["sum_ms"], joint["p95_ms"], joint["min_ms"])
        cells = " ".join(f"{'-' if ms is None else f'{about}{ms:,.3f}':>11}" for ms in times)
        lines.append(
            f"{row['task']:22} {row['algorithm']:13} {row['sampler']:8} {row['machine']['threads']:7} {row['mode']:9} "
            f"{facts['nfe']:4} {facts['parameters']:11,} {cells} {joint['n']:4} {row['peak_mb']:8,.0f}"
        )
    busy = [row for row in rows if row["machine"]["threads"] == 1 and row["joint"]["cpu_share"] < BUSY]
    if busy:
        lines.append(f"{len(busy)} rows had less than {BUSY:.0%} of a core: the machine was busy with something else.")
    return "\n".join([*lines, FOOT])


def ratios(rows: Sequence[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """How many times the reference's decision another method's takes, mean over tasks, without and with `env.step`."""

    def place(row: dict[str, Any]) -> tuple:
        return row["task"], row["mode"], row["machine"]["threads"]

    base = {place(row): row for row in rows if row["algorithm"] == reference}
    found: dict[tuple, list[tuple[float, float]]] = {}
    for row in rows:
        if row["algorithm"] == reference or place(row) not in base:
            continue
        one, other, step = row["headline_ms"], base[place(row)]["headline_ms"], row["step_ms"]
        name = (row["algorithm"], row["sampler"], *place(row)[1:])
        found.setdefault(name, []).append((one / other, (one + step) / (other + step)))
    return [
        {
            **dict(zip(("algorithm", "sampler", "mode", "threads"), name)),
            "tasks": len(pairs),
            "ratio": round(float(np.mean([pair[0] for pair in pairs])), 3),
            "ratio_with_step": round(float(np.mean([pair[1] for pair in pairs])), 3),
        }
        for name, pairs in found.items()
    ]


def ratio_table(found: Sequence[dict[str, Any]], reference: str) -> str:
    """The ratios as text."""
    lines = [f"times {reference}'s decision (agent, or joint where execution is centralised; mean over tasks):"]
    lines += [
        f"  {r['algorithm']:13} {r['sampler']:8} {r['threads']:2} threads {r['mode']:9} {r['ratio']:12,.2f}x"
        f"   with env.step in both: {r['ratio_with_step']:12,.2f}x"
        for r in found
    ]
    return "\n".join(lines) if found else ""
