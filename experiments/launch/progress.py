"""The progress bar of a running grid: cells done, running and failed, and the time left."""

import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from offmarl.experiments.grid.estimate import left_in_words, time_left
from offmarl.experiments.grid.jobs import Job

REDRAWN = 0.2  # seconds: an update takes milliseconds, and so does the time left of a large grid


@dataclass
class ProgressBar:
    """Counts the cells of a grid. The time left comes from each method's own speed, as measured on each task."""

    grid: Sequence[Job]
    workers: int
    done: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open the bar."""
        self._steps = {job.key: 0 for job in self.grid}
        self._running: dict[str, tuple[str, float]] = {}  # title, and time of the last report, by key of a job
        self._spent: dict[tuple[str, str], float] = defaultdict(float)  # seconds by method and task
        self._taken: dict[tuple[str, str], int] = defaultdict(int)  # steps by method and task
        self._told = -math.inf  # when the bar was drawn last
        shape = "{desc} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} cells [{elapsed}{postfix}]"
        cells = sum(len(job.seeds) for job in self.grid)
        self.bar = tqdm(total=cells, desc="grid", bar_format=shape, disable=not sys.stderr.isatty())

    def advance(self, job: Job, step: int) -> None:
        """`job` has come to `step`."""
        now, key = time.monotonic(), job.key
        _, since = self._running.setdefault(key, (job.title, now))
        if step > self._steps[key]:
            self._spent[job.algorithm, job.task] += now - since
            self._taken[job.algorithm, job.task] += step - self._steps[key]
            self._steps[key] = step
            self._running[key] = (job.title, now)
        if self.bar.disable or now - self._told < REDRAWN:
            return
        self._told = now
        running = ", ".join(title for title, _ in self._running.values())
        self.bar.set_postfix_str(f"running {running}; failed {len(self.failures)}; time left: {self.time_left()}")

    def finish(self, job: Job, failure: str | None) -> None:
        """`job` has ended, with the reason where it failed."""
        self._end(job)
        self.done += len(job.seeds)
        if failure:
            self.failures.append(f"{job.title}: {failure}")
        self.bar.update(len(job.seeds))
        if not sys.stderr.isatty():
            state = f"failed: {failure}" if failure else "done"
            line = f"[{self.done}/{self.bar.total}] {job.title} {state}; time left: {self.time_left()}"
            print(line, file=sys.stderr, flush=True)
        elif failure:
            self.bar.write(f"{job.title} failed: {failure}", file=sys.stderr)

    def leave(self, job: Job, why: str) -> None:
        """Leave `job` to another driver, which `why` names."""
        self._end(job)
        self.bar.total -= len(job.seeds)
        self.bar.write(f"{job.title} {why}", file=sys.stderr)

    def _end(self, job: Job) -> None:
        if running := self._running.pop(job.key, None):
            self._spent[job.algorithm, job.task] += (
                time.monotonic() - running[1]
            )  # the last evaluation, after all steps
        self._steps[job.key] = job.protocol.steps

    def time_left(self) -> str:
        """Estimated from the steps that remain: all workers share them, but one job is one worker's."""
        pace = {kind: self._spent[kind] / steps for kind, steps in self._taken.items()}
        steps = [(job.algorithm, job.task, job.protocol.steps - self._steps[job.key]) for job in self.grid]
        seconds, untimed = time_left(steps, pace)
        longest = max((time_left([own], pace)[0] for own in steps), default=0.0)
        return left_in_words(max(seconds / self.workers, longest), len(untimed))

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
