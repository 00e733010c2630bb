"""The one training loop. Everything that is trained here goes through `train`."""

import io
import math
import time
import traceback
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from offmarl.algorithms.parts.algorithm import LARGEST_Q, Algorithm
from offmarl.benchmarks.fingerprint import fingerprint
from offmarl.benchmarks.latency import Decisions, time_decisions
from offmarl.benchmarks.reference_rollout import reference
from offmarl.benchmarks.rollout import Episodes, evaluate, lane_seeds
from offmarl.benchmarks.tasks import make_env
from offmarl.experiments.grid.jobs import REPEATED, Job
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host, code
from offmarl.experiments.training.method import build, describe, make_sampler
from offmarl.experiments.training.online import Online
from offmarl.experiments.training.updates import Updates
from offmarl.reports.records.files import replacing

CURVE_POINTS = 100  # training metrics kept of a run
CHECKPOINT_SECONDS = 300.0  # between the checkpoints of a run in progress
LATENCY_SECONDS = 0.5
CPU = Host()
Q_MARGIN = 10.0  # a critic diverges when it claims this many times what the largest reward of the data could sum to


class Progress(NamedTuple):
    """Where a job stands."""

    step: int
    steps: int
    note: str = ""


@dataclass
class Clock:
    """Seconds spent, by what for."""

    data_s: float = 0.0
    update_s: float = 0.0
    evaluate_s: float = 0.0

    def spend(self, what: str, since: float) -> float:
        """Book the time since then; return now."""
        now = time.perf_counter()
        setattr(self, what, getattr(self, what) + now - since)
        return now


class Run:
    """A job in progress: method, data and what has been measured so far."""

    def __init__(self, job: Job, store: Store, host: Host):
        started = time.perf_counter()
        self.job, self.store, self.host = job, store, host
        self.task = job.entry.task
        self.clock, self.started = Clock(), datetime.now(UTC)
        data, self.card = job.entry.load()
        self.algorithm = build(job, self.task, job.seeds, host.device)
        self.sampler = make_sampler(job, data, host.device)
        self.sampler.data = self.algorithm.prepare(self.sampler.data)
        self.update = Updates(self.algorithm, self.sampler, host.captures)
        self.env = make_env(self.task, len(job.seeds), job.protocol["eval_episodes"])
        self.largest_q = Q_MARGIN * float(abs(data.rewards).max()) / max(1.0 - job.config["discount"], 1e-3)
        self.step, self.curves, self.evaluations = 0, [], []
        self.diverged: dict[int, str] = {}  # index of a seed -> what happened
        self.online: Online | None = None
        self.workspace = store.root / "work" / f"{job.key}.pt"
        self.clock.spend("data_s", started)

    def save(self) -> None:
        """Keep enough to continue exactly here; the file appears whole.

        An online phase is not kept: it begins again where it began, and plays the same.
        """
        if self.online:
            return
        self.workspace.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "curves": self.curves,
            "diverged": self.diverged,
            "evaluations": [[asdict(e) for e in row[1]] for row in self.evaluations],
            "evaluation_steps": [row[0] for row in self.evaluations],
            "clock": asdict(self.clock),
            "algorithm": self.algorithm.state_dict(),
            "batches": self.sampler.streams.state_dict(),
        }
        with replacing(self.workspace, self.workspace.with_suffix(".draft")) as draft:
            torch.save(state, draft)

    def resume(self) -> bool:
        """Continue from the last `save`; a damaged file is as good as none."""
        try:
            state = torch.load(self.workspace, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return False
        except Exception:  # a torn archive raises whatever its torn part does
            self.workspace.unlink(missing_ok=True)
            return False
        self.algorithm.load_state_dict(state["algorithm"])
        self.sampler.streams.load_state_dict(state["batches"])
        rows = [[Episodes(**e) for e in row] for row in state["evaluations"]]
        self.evaluations = list(zip(state["evaluation_steps"], rows))
        self.step, self.curves, self.clock = state["step"], state["curves"], Clock(**state["clock"])
        self.diverged = state["diverged"]
        return True

    def advance(self) -> None:
        """One update of every seed."""
        began = time.perf_counter()
        if self.step == self.job.protocol.get("online", {}).get("from"):
            self.go_online(**self.job.protocol["online"])
        metrics = self.update()
        self.step += 1
        steps = self.job.protocol["steps"]
        if self.step % max(1, steps // CURVE_POINTS) == 0 or self.step == steps:
            self.curves.append((self.step, {k: v.tolist() for k, v in metrics.items()}))
            self.look_for_divergence()
        self.clock.spend("update_s", began)

    def go_online(self, *, lanes: int, share: float, noise: float, **_: int) -> None:
        """From here on, learn from what the method plays: in `lanes` episodes of every seed.

        Raises:
            ValueError: for a method that needs more of the data than single transitions.
        """
        self.save()
        if self.sampler.around is not None or type(self.algorithm).prepare is not Algorithm.prepare:
            raise ValueError(f"{self.job.algorithm} looks at whole episodes or at the whole data, and cannot go online")
        envs = [make_env(self.task, 1, lanes) for _ in self.job.seeds]
        rounds = self.job.protocol["steps"] - self.step
        self.online = Online(self.algorithm, envs, rounds, (self.sampler, share), noise)
        self.update = Updates(self.algorithm, self.online)

    def close(self) -> None:
        """Release the simulators."""
        self.env.close()
        if self.online:
            self.online.close()

    def look_for_divergence(self) -> None:
        """Note the seeds whose last metrics are not numbers, or whose critic claims what no reward could sum to.

        Seeds do not mix, so the others train on.
        """
        for metric, values in self.curves[-1][1].items():
            for k, value in enumerate(values):
                if not math.isfinite(value):
                    self.diverged.setdefault(k, f"{metric} is {value} at step {self.step}")
                elif metric == LARGEST_Q and value > self.largest_q:
                    limit = f"more than {self.largest_q:.3g}"
                    self.diverged.setdefault(k, f"|Q| is {value:.3g} at step {self.step}, {limit}")

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.job.protocol["steps"] or len(self.diverged) == len(self.job.seeds)

    def evaluate(self) -> None:
        """Play the evaluation episodes of every seed."""
        began = time.perf_counter()
        episodes = self.job.protocol["eval_episodes"]
        rows = evaluate(self.algorithm, self.env, list(self.job.seeds), self.host.device, episodes)
        self.evaluations.append((self.step, rows))
        self.clock.spend("evaluate_s", began)

    def finish(self) -> None:
        """Write every seed's run into the store."""
        facts = describe(self.algorithm)
        latency = self.time_decisions()
        for k, (cell, run_id) in enumerate(zip(self.job.cells(), self.job.run_ids())):
            record = {
                **provenance(self.job, run_id, self.host),
                "status": "diverged" if k in self.diverged else "done",
                "reason": self.diverged.get(k),
                "algorithm": facts,
                "dataset": self.card,
                "engine": fingerprint(self.task) | reference(self.task),
                "score": self.task.score,
                "evaluations": [{"step": step, **asdict(rows[k])} for step, rows in self.evaluations],
                "latency": latency,
                "seeds": list(self.job.seeds),  # that trained in lock step
                "time": {**asdict(self.clock), "seeds_together": len(self.job.seeds)},
                "memory_mb": self.host.peak_mb(),
                "started": self.started.isoformat(),
                "finished": datetime.now(UTC).isoformat(),
            }
            curves = pd.DataFrame([{"step": s, **{m: v[k] for m, v in row.items()}} for s, row in self.curves])
            buffer = io.BytesIO()
            torch.save(self.algorithm.seed_state(k), buffer)
            self.store.write(cell, record, curves, buffer.getvalue())
        self.workspace.unlink(missing_ok=True)

    def time_decisions(self) -> dict[str, Any]:
        """A first timing of the first seed's joint decisions, as `offmarl latency` does it with more care."""
        single = build(self.job, self.task, self.job.seeds[:1], self.host.device)
        single.load_nets(self.algorithm.seed_state(0))
        view = self.env.reset(lane_seeds([0], self.env.lanes))
        legal = [None] * len(view.obs) if view.legal is None else view.legal
        sights = list(zip(view.obs, legal))
        timing = asdict(time_decisions(Decisions(single, self.host.device), sights, LATENCY_SECONDS))
        return {"joint_ms": timing.pop("median_ms"), **timing, "what": "joint decisions, batch 1, host to host, eager"}


def train(job: Job, results: Path | str, host: Host = CPU) -> Generator[Progress]:
    """Train, evaluate and store one job, yielding where it stands after every update.

    A failure becomes a record in the store (and is raised again), so the table can say why.
    """
    store, steps = Store(results), job.protocol["steps"]
    try:
        yield Progress(0, steps, "loading")
        run = Run(job, store, host)
        run.resume()
    except Exception as error:
        fail(job, store, error, host)
        raise
    try:
        saved = time.monotonic()
        while not run.over:
            run.advance()
            if run.step % job.protocol["eval_every"] == 0 or run.step == steps:
                run.evaluate()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                run.save()
                saved = time.monotonic()
            yield Progress(run.step, steps)
        run.finish()
    except GeneratorExit:  # stopped between two updates; anything else may have hit the middle of one
        run.save()
        raise
    except Exception as error:
        fail(job, store, error, host)
        raise
    finally:
        run.close()


def fail(job: Job, store: Store, error: BaseException, host: Host) -> None:
    """Record why seeds of a job have no result. Those that were stored before it failed keep theirs."""
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    tail = "".join(traceback.format_exception(error))[-4000:]
    for cell, run_id in zip(job.cells(), job.run_ids()):
        if store.status(run_id) in ("done", "diverged"):
            continue
        record = {**provenance(job, run_id, host), "status": "failed", "reason": reason, "traceback": tail}
        store.write(cell, {**record, "evaluations": [], "finished": datetime.now(UTC).isoformat()})


def provenance(job: Job, run_id: str, host: Host) -> dict[str, Any]:
    """Where a record comes from."""
    return {
        "run_id": run_id,
        "config": dict(job.config),
        "config_hash": job.hash,
        "protocol": {**job.protocol, **{key: job.config[key] for key in REPEATED}},
        "machine": host.facts(),
        "code": code(),
    }
