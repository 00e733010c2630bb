"""The one training loop. Every job of the grid is trained by `train`."""

import contextlib
import io
import math
import sys
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from offmarl.algorithms.parts.algorithm import LARGEST_Q, OWN
from offmarl.benchmarks.fingerprint import fingerprint, reference
from offmarl.benchmarks.frames.film import Film, is_watched, watched_or_not
from offmarl.benchmarks.latency import Decisions, time_decisions
from offmarl.benchmarks.source import first_line
from offmarl.benchmarks.tasks import make_env
from offmarl.experiments.grid.code import code_sums
from offmarl.experiments.grid.jobs import REPEATED, Job, OnlinePhase
from offmarl.experiments.store.leftovers import write_seeds
from offmarl.experiments.store.store import WITH_RESULT, Store
from offmarl.experiments.training import matmul
from offmarl.experiments.training.curve import Since, Values, of_seed
from offmarl.experiments.training.data import load
from offmarl.experiments.training.looks import look_of
from offmarl.experiments.training.machine import Host, provenance
from offmarl.experiments.training.method import Updates, build, describe, job_trainer
from offmarl.experiments.training.online import OnlineSampler
from offmarl.experiments.training.replay import Files, keep
from offmarl.reports.records.files import replacing

CURVE_POINTS = 100  # training metrics kept of a run
CHECKPOINT_SECONDS = 300.0  # between the checkpoints of a run in progress
LATENCY_SECONDS = 0.5
CPU = Host()
Q_MARGIN = 10.0  # a critic diverges when it claims this many times what the largest reward of the data could sum to


@dataclass
class Clock:
    """Seconds spent, by purpose."""

    data_s: float = 0.0
    update_s: float = 0.0
    evaluate_s: float = 0.0

    @contextlib.contextmanager
    def spend(self, purpose: str) -> Iterator[None]:
        """Add the time of the block."""
        began = time.perf_counter()
        yield
        setattr(self, purpose, getattr(self, purpose) + time.perf_counter() - began)


class Run:
    """A job in progress: what trains, and what has been measured so far."""

    def __init__(self, job: Job, store: Store, host: Host):
        self.job, self.protocol, self.store, self.host = job, job.protocol, store, host
        self.task = job.entry.task
        self.clock, self.started = Clock(), datetime.now(UTC)
        with self.clock.spend("data_s"):
            data, self.card = load(job.entry)
            self.look = look_of(job, data, watched_or_not if host.replays else make_env)
            data = self.look.data
            self.algorithm, self.sampler, self.update = job_trainer(job, data, host)
        reward = float(abs(data.rewards).max()) or math.inf  # where none is paid, no value is too large
        self.largest_q = Q_MARGIN * reward / max(1.0 - job.config.discount, 1e-3)
        self.step = 0
        self.since, self.values = Since(), Values(self.sampler, job)
        self.curves: list[tuple[int, dict[str, list[float]]]] = []  # step, and metrics by seed
        self.evaluations: list[tuple[int, str, list[Any]]] = []  # step, play, and the look's outcome by seed
        self.kept: list[Files] = [{} for _ in job.seeds]  # replays of the last evaluation
        self.diverged: dict[int, str] = {}  # index of a seed -> reason
        self.online: OnlineSampler | None = None
        self.checkpoint = store.root / "work" / f"{job.key}.pt"

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.protocol.steps or len(self.diverged) == len(self.job.seeds)

    @property
    def evaluation_due(self) -> bool:
        """Whether this step is to be evaluated, and was not yet: also the last one, and the last before online play."""
        if not self.step or self.evaluations and self.evaluations[-1][0] == self.step:
            return False
        ends = (self.protocol.steps, self.protocol.online and self.protocol.online.start)
        return self.step % self.protocol.eval_every == 0 or self.step in ends

    def advance(self) -> None:
        """One update of every seed."""
        with self.clock.spend("update_s"):
            phase = self.protocol.online
            if phase and self.step == phase.start:
                self.go_online(phase)
            self.since.add(self.update())
            self.step += 1
            steps = self.protocol.steps
            if self.step % max(1, steps // CURVE_POINTS) == 0 or self.step == steps:
                self.curves.append((self.step, self.since.take()))
                self.note_divergence()

    def note_divergence(self) -> None:
        """Note the seeds with metrics that are not finite, or a critic beyond all rewards; the others train on."""
        for metric, values in self.curves[-1][1].items():
            for k, value in enumerate(values):
                if not math.isfinite(value):
                    self.diverged.setdefault(k, f"{metric} is {value} at step {self.step}")
                elif metric == LARGEST_Q and value > self.largest_q:
                    limit = f"more than {self.largest_q:.3g}"
                    self.diverged.setdefault(k, f"|Q| is {value:.3g} at step {self.step}, {limit}")

    def go_online(self, phase: OnlinePhase) -> None:
        """Learn from what the method plays. Raises ValueError for one that needs more than single transitions."""
        self.save()
        if self.sampler.around is not None or not self.algorithm.goes_online:
            raise ValueError(f"{self.job.algorithm} needs whole episodes or all of the data, so it cannot go online")
        envs = [make_env(self.task, 1, phase.lanes) for _ in self.job.seeds]
        rounds = self.protocol.steps - self.step
        offline, bootstrap = (self.sampler, phase.share), self.protocol.timeout_bootstrap
        self.online = OnlineSampler(self.algorithm, envs, rounds, offline, phase.noise, bootstrap)
        self.update = Updates(self.algorithm, self.online)

    def evaluate(self) -> Iterator[None]:
        """Where it is due, look at every seed: at the end in each of the plays that differ.

        Earlier looks are in the first play alone, which has the standing.
        Yields in between, as between waves of episodes; closed there, it leaves the run as it was, to begin it anew.
        """
        if not self.evaluation_due:
            return
        seeds, found, acting = list(self.job.seeds), [], self.algorithm.acting.state_dict()
        rows, drew_nothing = [], False
        try:
            with self.clock.spend("evaluate_s"):
                for play in self.protocol.plays if self.over else self.protocol.plays[:1]:
                    if not drew_nothing:
                        self.algorithm.play, camera = play, self.camera()
                        rows = yield from self.look.look(self.algorithm, seeds, self.host.device, camera)
                        self.keep(camera, rows)
                    found.append((self.step, play, rows))
                    # What draws nothing in its own play would play the same episodes again.
                    drew_nothing |= play == OWN and all(map(torch.equal, acting, self.algorithm.acting.state_dict()))
        except GeneratorExit:
            self.algorithm.acting.load_state_dict(acting)
            raise
        finally:
            self.algorithm.play = OWN
        self.evaluations += found
        self.note_values()
        if not self.over:
            self.look.pause()

    def camera(self) -> Film | None:
        """What films the last evaluation, where replays are kept and the task has pictures."""
        env = self.look.env
        return Film(env, careful=True) if self.over and self.host.replays and is_watched(env) else None

    def keep(self, camera: Film | None, rows: Sequence[Any]) -> None:
        """Keep replays of an evaluation; what goes wrong with pictures costs no run."""
        if camera is None:
            return
        try:
            found = keep(self.algorithm, self.job, camera, rows, self.host.replays)
            self.kept = [own | more for own, more in zip(self.kept, found)]
        except Exception as error:
            reason = first_line(camera.fault or error)
            print(f"{self.job.title}: keeps no replays: {reason}", file=sys.stderr)

    def note_values(self) -> None:
        """Add the critic's mean value on the data, if there is a critic, to the curves' point of this step."""
        if not (point := self.values.point(self.algorithm)):
            return
        if self.curves and self.curves[-1][0] == self.step:
            self.curves[-1][1].update(point)
        else:
            self.curves.append((self.step, point))

    def save(self) -> None:
        """Write a checkpoint from which the run continues bit for bit; it appears whole or not at all.

        An online phase is not part of it: a resumed run begins it again, and plays the same.
        """
        if self.online:
            return
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "code_sums": code_sums(self.job.algorithm, self.job.task),
            "curves": self.curves,
            "since": self.since.state_dict(),
            "diverged": self.diverged,
            "evaluations": [
                (step, play, [asdict(outcome) for outcome in rows]) for step, play, rows in self.evaluations
            ],
            "kept": self.kept,
            "clock": asdict(self.clock),
            "algorithm": self.algorithm.state_dict(),
            "batches": self.sampler.streams.state_dict(),
        }
        write_seeds(self.checkpoint, self.job.seeds)
        with replacing(self.checkpoint, self.checkpoint.with_suffix(".draft")) as draft:
            torch.save(state, draft)

    def resume(self) -> None:
        """Continue from the checkpoint, where there is an intact one."""
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return
        except Exception:  # a damaged archive may raise anything
            self.checkpoint.unlink(missing_ok=True)
            return
        if state["code_sums"] != code_sums(self.job.algorithm, self.job.task):
            print(f"{self.job.title}: starts over: the code has changed since its checkpoint", file=sys.stderr)
            return
        self.algorithm.load_state_dict(state["algorithm"])
        self.sampler.streams.load_state_dict(state["batches"])
        self.evaluations = [
            (step, play, [self.look.outcome(**outcome) for outcome in rows])
            for step, play, rows in state["evaluations"]
        ]
        self.step, self.curves, self.clock = state["step"], state["curves"], Clock(**state["clock"])
        self.diverged, self.kept = state["diverged"], state.get("kept", self.kept)  # older ones keep no replays
        self.since.load_state_dict(state["since"], self.algorithm.device)

    def finish(self) -> None:
        """Write every seed's run into the store, but for those that a killed process wrote before."""
        facts, latency = describe(self.algorithm), self.time_decisions()
        last = self.curves[-1][1] if self.curves else {}
        for k, (cell, run_id) in enumerate(zip(self.job.cells(), self.job.run_ids())):
            if self.store.status(run_id) in WITH_RESULT:
                continue
            record = {
                **origin(self.job, run_id, self.host),
                "status": "diverged" if k in self.diverged else self.look.status,
                "reason": self.diverged.get(k),
                "algorithm": facts,
                "dataset": self.card,
                "engine": fingerprint(self.task) | reference(self.task),
                "score": self.task.score,
                "evaluations": [],
                self.look.field: [
                    {"step": step, "play": play, **asdict(rows[k])} for step, play, rows in self.evaluations
                ],
                "value": of_seed(last, k),
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
            self.store.write(cell, record, curves, buffer.getvalue(), self.kept[k])
        for suffix in (".pt", ".seeds"):
            self.checkpoint.with_suffix(suffix).unlink(missing_ok=True)

    def time_decisions(self) -> dict[str, Any]:
        """A first timing of the first seed's joint decisions; `offmarl latency` takes more care."""
        single = build(self.job, self.job.seeds[:1], self.host.device)
        single.load_nets(self.algorithm.seed_state(0))
        timing = asdict(time_decisions(Decisions(single, self.host.device), self.look.views(), LATENCY_SECONDS))
        return {"joint_ms": timing.pop("median_ms"), **timing, "what": "joint decisions, batch 1, host to host, eager"}

    def close(self) -> None:
        """Release the simulators."""
        self.look.close()
        if self.online:
            self.online.close()


def train(job: Job, results: Path | str, host: Host = CPU) -> Generator[int]:
    """Train, evaluate and store one job, yielding the number of updates after each.

    Closed in the middle, it saves a checkpoint, from which the same job continues. A failure is stored as a record,
    so that tables can say why, and raised again.
    """
    store = Store(results)
    code_sums(job.algorithm, job.task)  # reads every method now, before anybody edits one
    with storing_failure(job, store, host):
        matmul.check(host.matmul)  # also on another node than the command's
        yield 0
        run = Run(job, store, host)
        run.resume()
    saved = time.monotonic()
    with contextlib.closing(run):
        try:
            with storing_failure(job, store, host):
                for _ in run.evaluate():  # where the evaluation was interrupted
                    yield run.step
                while not run.over:
                    run.advance()
                    for _ in run.evaluate():
                        yield run.step
                    if time.monotonic() - saved > CHECKPOINT_SECONDS:
                        run.save()
                        saved = time.monotonic()
                    yield run.step
                run.finish()
        except GeneratorExit:  # between updates or waves; another exception may have come in the middle of one
            run.save()
            raise


@contextlib.contextmanager
def storing_failure(job: Job, store: Store, host: Host) -> Iterator[None]:
    """Store an exception of the block as the failure of a job, and raise it again."""
    try:
        yield
    except Exception as error:
        fail(job, store, error, host)
        raise


def fail(job: Job, store: Store, error: BaseException, host: Host) -> None:
    """Record why seeds of a job have no result. Those that were stored before it failed keep theirs."""
    reason = first_line(error)
    tail = "".join(traceback.format_exception(error))[-4000:]
    for cell, run_id in zip(job.cells(), job.run_ids()):
        if store.status(run_id) in WITH_RESULT:
            continue
        record = {**origin(job, run_id, host), "status": "failed", "reason": reason, "traceback": tail}
        store.write(cell, {**record, "evaluations": [], "finished": datetime.now(UTC).isoformat()})


def origin(job: Job, run_id: str, host: Host) -> dict[str, Any]:
    """The part of a record that says which settings, machine and code it comes from."""
    config, protocol = job.settings["config"], job.settings["protocol"]
    return {
        "run_id": run_id,
        "config": config,
        "config_hash": job.hash,
        "protocol": {**protocol, **{key: config[key] for key in REPEATED}},
        "code_sums": code_sums(job.algorithm, job.task),
        **provenance(host),
    }
