"""Inference timed honestly: `offmarl latency`.

Every row is measured in a process of its own, on observations of random legal play in the task's simulator. What a
decision costs is told in three ways: `joint`, one host that decides for the team; `agent`, the slowest agent on a
device of its own; `sum`, all agents one after the other. `headline` is what the team waits for: `agent` for
decentralised execution, `joint` for centralised.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from offmarl.algorithms.base import Algorithm
from offmarl.algorithms.diffusion import Chain, shortened
from offmarl.algorithms.graphs import Captured
from offmarl.benchmarks.latency import Decisions, Sight, Timing, time_decisions
from offmarl.benchmarks.tasks import make_env, tasks
from offmarl.experiments.apart import Killed, apart
from offmarl.experiments.bench import uniform
from offmarl.experiments.grid import Job
from offmarl.experiments.host import Host, code
from offmarl.experiments.store import Store
from offmarl.experiments.train import build, describe

SIGHTS = 256
DDIM_CALLS = 15
BUSY = 0.9  # share of a core below which a row of one thread is suspect


class Plan(NamedTuple):
    """How a row is measured."""

    seconds: float  # for the joint decisions, and again for those of all agents
    calls: int  # of a chain of denoising, beyond which a slow one is extrapolated
    captured: bool = False


def rows_of(grid: Sequence[Job], hosts: Sequence[Host]) -> list[tuple[Job, Host, bool]]:
    """What is measured: every method on every task, natively and by DDIM, on every host, eager and captured."""
    firsts = {(job.task, job.algorithm): job for job in reversed(grid)}
    jobs = [job for key in dict.fromkeys((job.task, job.algorithm) for job in grid) for job in _samplers(firsts[key])]
    return [
        (job, host, captured)
        for job in jobs
        for host in hosts
        for captured in ((False, True) if host.cuda else (False,))
    ]


def _samplers(job: Job) -> list[Job]:
    if job.config.get("sampler") != "ddpm":
        return [job]
    return [job, dataclasses.replace(job, config={**job.config, "sampler": "ddim", "ddim_calls": DDIM_CALLS})]


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

    moments: list[Sight]
    step_ms: float


def watch(task: str, count: int = SIGHTS) -> Sights:
    """Observations of random legal play."""
    rng, env = np.random.default_rng(0), make_env(tasks()[task], 1)
    behaviour, view, seed = uniform(tasks()[task]), env.reset(np.array([0])), 1
    view = env.step(behaviour(view, rng)).view  # compiles, where something is compiled
    moments, spent = [], []
    while len(moments) < count:
        moments.append((view.obs[0], None if view.legal is None else view.legal[0]))
        actions, began = behaviour(view, rng), time.perf_counter()
        step = env.step(actions)
        spent.append(1e3 * (time.perf_counter() - began))
        view = step.view
        if step.done[0]:
            view, seed = env.reset(np.array([seed])), seed + 1
    env.close()
    return Sights(moments, round(median(spent), 4))


def measure(job: Job, host: Host, plan: Plan, sights: Sights, weights: Path | None) -> dict[str, Any]:
    """One row. Runs in a process of its own."""
    host.set_up()
    before = host.peak_mb()
    task = tasks()[job.task]
    method = build(job, task, job.seeds[:1], host.device)
    if weights is not None:
        method.load_nets(torch.load(weights, map_location=host.device, weights_only=True))
    costs = team_costs(lambda: build(job, task, job.seeds[:1], host.device), method, host, plan, sights.moments)
    return {
        "task": job.task,
        "algorithm": job.algorithm,
        "variant": job.variant,
        "profile": job.profile,
        "sampler": _sampler(job),
        "mode": "captured" if plan.captured else "eager",
        "weights": "fresh" if weights is None else weights.parent.name,
        "facts": describe(method),
        **costs,
        "step_ms": sights.step_ms,
        "peak_mb": round(host.peak_mb() - before, 1),
        "what": "one joint decision, batch 1, observation on the host to action on the host, without env.step",
        "machine": host.facts(),
        "code": code(),
        "finished": datetime.now(UTC).isoformat(),
    }


def _sampler(job: Job) -> str:
    return "native" if job.config.get("sampler") != "ddim" else f"ddim-{job.config['ddim_calls']}"


def team_costs(
    again: Callable[[], Algorithm], method: Algorithm, host: Host, plan: Plan, moments: Sequence[Sight]
) -> dict[str, Any]:
    """The three costs of a decision; `again` makes the same method anew, for an agent that stands alone."""
    joint, cut = time_method(method, host, plan, moments)
    found: dict[str, Any] = {"joint": dataclasses.asdict(joint), "extrapolated": cut}
    if method.execution != "decentralised":
        return found | {"agent": None, "sum_ms": None, "headline_ms": joint.median_ms}
    alone, state = [], method.nets.state_dict()
    shorter = plan._replace(seconds=plan.seconds / method.spec.agents)
    for agent in range(method.spec.agents):
        single = again()
        single.load_nets(state)
        single.stand_alone(agent)
        own = [(obs[agent : agent + 1], None if legal is None else legal[agent : agent + 1]) for obs, legal in moments]
        alone.append(time_method(single, host, shorter, own)[0])
    slowest = max(alone, key=lambda timing: timing.median_ms)
    total = round(sum(timing.median_ms for timing in alone), 4)
    return found | {"agent": dataclasses.asdict(slowest), "sum_ms": total, "headline_ms": slowest.median_ms}


def time_method(
    method: Algorithm, host: Host, plan: Plan, moments: Sequence[Sight]
) -> tuple[Timing, dict[str, int] | None]:
    """Time decisions; of a chain that is too slow for the plan's seconds, so many calls, continued to all of them."""

    def timed(seconds: float) -> Timing:
        capture = partial(Captured, generators=method.acting.generators) if plan.captured else None
        return time_decisions(Decisions(method, host.device, capture), moments, seconds)

    chain = method.chain
    if len(chain.time) <= plan.calls or _too_fast(method, chain, host, plan, moments):
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


def _too_fast(method: Algorithm, chain: Chain, host: Host, plan: Plan, moments: Sequence[Sight]) -> bool:
    """Whether whole chains fit the plan: five decisions in its seconds."""
    method.chain = shortened(chain, 2)
    decide = Decisions(method, host.device)
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


def failed(job: Job, host: Host, captured: bool, reason: Exception) -> str:
    """What could not be measured, and why."""
    mode = "captured" if captured else "eager"
    return f"{job.task} {job.algorithm} ({_sampler(job)}, {mode}, {host.threads} threads): not measured: {reason}"


def latency(
    grid: Sequence[Job],
    hosts: Sequence[Host],
    plan: Plan,
    store: Store,
    progress: Callable[[Sequence[tuple[Job, Host, bool]]], Any],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure and store every row; returns them, and what could not be measured.

    Args:
        progress: shows how far an iteration has come.
    """
    found, failures, sights = [], [], {}
    for job, host, captured in progress(rows_of(grid, hosts)):
        try:
            if job.task not in sights:
                sights[job.task] = apart(watch, job.task)
            weights = checkpoint(job, grid, store)
            row = apart(measure, job, host, plan._replace(captured=captured), sights[job.task], weights)
        except (Killed, RuntimeError, MemoryError) as error:
            failures.append(failed(job, host, captured, error))
            continue
        store.write_measurement("latency", key(row), row)
        found.append(row)
    return found, failures


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
