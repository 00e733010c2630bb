"""What a person sees of a running grid: cells done, running, failed, and the time left."""

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from offmarl.experiments.grid.jobs import Job


@dataclass
class Board:
    """Counts the cells of a grid. The time left comes from each method's own measured speed."""

    grid: Sequence[Job]
    workers: int
    done: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open the bar."""
        self._steps = {job.key: 0 for job in self.grid}
        self._began: dict[str, float] = {}
        self._titles: dict[str, str] = {job.key: job.title for job in self.grid}
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # seconds and steps by method
        shape = "{desc} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} cells [{elapsed}{postfix}]"
        cells = sum(len(job.seeds) for job in self.grid)
        self.bar = tqdm(total=cells, desc="grid", bar_format=shape, disable=not sys.stderr.isatty())

    def advance(self, job: Job, step: int) -> None:
        """`job` has come to `step`."""
        now = time.monotonic()
        began = self._began.setdefault(job.key, now)
        if step > self._steps[job.key]:
            self._spent[job.algorithm][0] += now - began
            self._spent[job.algorithm][1] += step - self._steps[job.key]
            self._steps[job.key] = step
            self._began[job.key] = now
        running = [self._titles[key] for key in self._began]
        self.bar.set_postfix_str(f"running {', '.join(running)}; failed {len(self.failures)}; {self.time_left()} left")

    def finish(self, job: Job, failure: str | None) -> None:
        """`job` has ended, well or with a reason."""
        self._began.pop(job.key, None)
        self._steps[job.key] = job.protocol["steps"]
        self.done += len(job.seeds)
        if failure:
            self.failures.append(f"{job.title}: {failure}")
        self.bar.update(len(job.seeds))
        if not sys.stderr.isatty():
            state = f"failed: {failure}" if failure else "done"
            print(
                f"[{self.done}/{self.bar.total}] {job.title} {state}; {self.time_left()} left",
                file=sys.stderr,
                flush=True,
            )
        elif failure:
            self.bar.write(f"{job.title} failed: {failure}", file=sys.stderr)

    def leave(self, job: Job, why: str) -> None:
        """`job` is another driver's, which `why` says."""
        self._began.pop(job.key, None)
        self._steps[job.key] = job.protocol["steps"]
        self.bar.total -= len(job.seeds)
        self.bar.write(f"{job.title} {why}", file=sys.stderr)

    def time_left(self) -> str:
        """Estimated from the steps that remain."""
        seconds, steps = (sum(row[k] for row in self._spent.values()) for k in (0, 1))
        if not steps:
            return "?"
        total = 0.0
        for job in self.grid:
            s, n = self._spent.get(job.algorithm, (seconds, steps))
            total += (job.protocol["steps"] - self._steps[job.key]) * (s / n if n else seconds / steps)
        minutes, seconds = divmod(int(total / self.workers), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
