"""The user's own datasets: files beside a task's file, and imported ones of any task, checked and kept in the cache."""

import dataclasses
import hashlib
import json
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from offmarl.benchmarks.fingerprint import fingerprint
from offmarl.benchmarks.own import registry
from offmarl.benchmarks.own.contract import play
from offmarl.benchmarks.tasks import Task, make_env, tasks
from offmarl.datasets.cache import Entry, Progress, no_progress, write
from offmarl.datasets.dataset import Dataset, file_sum, read
from offmarl.datasets.public.releases import data_dir

SOURCE, FORMAT = "own", 2
LANES, FIRST_SEED = 32, 900_001_000  # of random play; no recording or evaluation uses these seeds


@dataclass(frozen=True)
class OwnData(Entry):
    """One file of the user's own."""

    file: Path
    kind = SOURCE

    def key(self) -> str:
        """Eight hex digits of the task's code, rules and sizes, the versions of its packages, and the file's sum."""
        facts = [FORMAT, dataclasses.asdict(self.task), fingerprint(self.task), self._sum()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]

    def disk(self) -> int:
        """As the file itself, unless that is compressed."""
        return self.file.stat().st_size

    def state(self) -> str:
        """Where it is read from."""
        return self.data_missing() or f"read from {self.file} on first use"

    def data_missing(self) -> str:
        """Whether there is no such file, and how to record one."""
        if self.file.is_file():
            return ""
        own_task = registry().get(self.task.name)
        record = f"offmarl data record --task {own_task.place} --policy random --out {self.file}" if own_task else ""
        return f"there is no file {self.file}" + (f"; `{record}` records one" if record else "")

    def unavailable(self) -> str:
        """Nothing but its file may be missing: the task itself is here."""
        return self.data_missing()

    def make(self, progress: Progress = no_progress) -> dict[str, Any]:
        """Read, check and settle the data, and write them into the cache; returns their card."""
        own_task = registry().get(self.task.name)
        with self.arrays() as (data, facts, notes):
            try:
                data, clocked = settled(data, self.task)
            except ValueError as error:
                raise ValueError(f"{self.file}: {error}") from error
            card = write(
                self,
                data,
                {
                    "source": SOURCE,
                    "file": str(self.file),
                    "file_sha256": self._sum(),
                    "ends_at_the_limit_taken_as_time_outs": clocked,
                    "random_return_mean": self._random_return(),
                    "task_file": own_task and str(own_task.file),
                    "task": dataclasses.asdict(self.task),
                    "settled": notes,
                    **facts,
                },
            )
        progress(1)
        return card

    def arrays(self) -> AbstractContextManager[tuple[Dataset, dict[str, Any], list[str]]]:
        """The dataset, what its import tells of its files and ends, and what was settled, a line each."""
        facts = self._imported()
        return nullcontext((read(self.file, self.task), facts, facts.pop("settled", [])))

    def _random_return(self) -> float | None:
        """The mean return of random play: without published numbers, what a result is to be compared with."""
        if not self.task.played:
            return None
        env = make_env(self.task, 1, LANES)
        played = play(self.task, env, np.arange(env.lanes) + FIRST_SEED)
        env.close()
        return round(float(np.mean([episode.rewards.mean(1).sum() for episode in played])), 4)

    def _imported(self) -> dict[str, Any]:
        """What its import tells: its files, how they were read, what was settled."""
        with suppress(OSError, ValueError, AttributeError):
            told = json.loads(self.file.with_suffix(".json").read_bytes())
            if told.pop("sha256", None) == self._sum():
                return told
        return {}

    def _sum(self) -> str:
        found = self.file.stat()
        return _sum_of(self.file, found.st_ino, found.st_size, found.st_mtime_ns)


@cache
def _sum_of(file: Path, *state: int) -> str:
    """The sum of a file in a state."""
    return file_sum(file)


def settled(data: Dataset, task: Task) -> tuple[Dataset, int]:
    """Data whose ends at the limit are time-outs unless the clock is the environment's, and how many were changed.

    Raises ValueError naming the episode that is longer than the limit, or has an action that is not legal; and where
    agents are paid apart though everyone gets their sum or mean.
    """
    lengths, limit, clock, reward = np.bincount(data.episode), task.limit, *map(task.roster.get, ("clock", "reward"))
    if (lengths > limit).any():
        e = int((lengths > limit).argmax())
        raise ValueError(f"episode {e} has {lengths[e]} steps, but the task's limit is {limit}")
    refuse_illegal(data)
    if reward in ("sum", "mean") and (apart := (data.rewards != data.rewards[:, :1]).any(1)).any():
        rule = f"agents are paid apart, but the task's reward is their {reward}: give everyone that"
        raise ValueError(f"rewards, transition {apart.argmax()}: {rule}")
    late = np.flatnonzero(data.done & (lengths[data.episode] == limit))
    if clock == "env" or not len(late):
        return data, 0
    done, timeout = data.done.copy(), data.timeout.copy()
    done[late], timeout[late] = False, True
    return dataclasses.replace(data, done=done, timeout=timeout), len(late)


def refuse_illegal(data: Dataset) -> None:
    """Raises ValueError naming the first action that `legal` forbids."""
    if data.legal is None:
        return
    allowed = np.take_along_axis(data.legal[data.rows], data.actions[..., None], -1)[..., 0]
    if not allowed.all():
        k, agent = map(int, np.argwhere(~allowed)[0])
        step = k - int(np.searchsorted(data.episode, data.episode[k]))
        count = int((~allowed).sum())
        where = f"episode {data.episode[k]}, step {step}, agent {agent}"
        raise ValueError(f"{where}: action {data.actions[k, agent]} is not legal ({count:,} such actions in all)")


def strange_features(data: Dataset, played: np.ndarray) -> int:
    """How many features of the data [R,I,O] and of the task's play [P,I,O] seem to be others.

    That is where each leaves the range of the other; narrow data of a good policy only lie within that of random play.
    """
    ends = [(rows.min(0) - 1e-4, rows.max(0) + 1e-4) for rows in (data.obs, played)]
    outside = [(one[0] < other[0]) | (one[1] > other[1]) for one, other in (ends, ends[::-1])]
    return min(int(found.any(0).sum()) for found in outside)


def imported_file(task: Task, name: str) -> Path:
    """Where `offmarl data import` puts a task's dataset."""
    return data_dir() / SOURCE / task.name / f"{name}.npz"


def catalogue() -> dict[tuple[str, str], OwnData]:
    """The user's own datasets by task and quality: those that tasks' files name, and imported ones."""
    files = {
        (task.name, file.stem): file
        for task in tasks().values()
        for file in sorted(imported_file(task, "").parent.glob("[!.]*.npz"))
    }
    files |= {
        (name, quality): (own_task.file.parent / file).absolute()
        for name, own_task in registry().items()
        for quality, file in own_task.datasets.items()
    }
    return {pair: OwnData(tasks()[pair[0]], pair[1], None, None, file) for pair, file in files.items()}
