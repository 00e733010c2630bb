"""Where episodes end, judged by the rows themselves and not by what their publisher says.

Observations jump between episodes, so jumps show whether the flagged row is the last of its episode. Whether it is
still a transition (`last`) or the row after one (`delimiter`) follows from rows that only a delimiter can be: one more
than the task's limit, one in which no agent can act, or all of them without reward and action.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.public.layouts import Recording

INSPECTED = 20_000  # rows


@dataclass(frozen=True)
class Boundaries:
    """What the first rows of a recording show. Jumps are median Euclidean distances between successive observations."""

    rows: int
    flagged: int
    longest: int  # rows between two flags
    jump_inside: float
    jump_into_flagged: float
    jump_after_flagged: float
    ends: Literal["last", "delimiter"]
    reason: str

    @property
    def late(self) -> bool:
        """Whether the flags seem to be on the first row of the next episode."""
        return self.flagged > 1 and self.jump_into_flagged > 3 * max(self.jump_after_flagged, 1e-9)


def judge_ends(recording: Recording, task: Task) -> Boundaries:
    """Judge the first rows of a recording."""
    n = min(recording.length, INSPECTED)
    read = {name: column.read(0, n) for name, column in recording.columns.items() if name not in ("state", "following")}
    flags = all_true(read["ends"] != 0)
    last = np.flatnonzero(flags)
    with np.errstate(invalid="ignore"):  # NaN is refused later, with its row
        jump = np.linalg.norm(np.diff(read["obs"].reshape(n, -1).astype(np.float64), axis=0), axis=1)
    inside = ~flags[:-1] & ~flags[1:]
    longest = int(np.diff(last, prepend=-1).max(initial=0))
    ends, reason = _judge(read, last, longest, task)
    return Boundaries(
        rows=n,
        flagged=len(last),
        longest=longest,
        jump_inside=_median(jump[inside]),
        jump_into_flagged=_median(jump[last[last > 0] - 1]),
        jump_after_flagged=_median(jump[last[last < n - 1]]),
        ends=ends,
        reason=reason,
    )


def _judge(
    read: dict[str, np.ndarray], last: np.ndarray, longest: int, task: Task
) -> tuple[Literal["last", "delimiter"], str]:
    if longest > task.limit:
        return "delimiter", f"an episode has {longest} rows, one more than the limit of {task.limit} actions"
    if "legal" in read and len(last):
        idle = read["legal"][last, :, 0].astype(bool).all(1) & ~read["legal"][last, :, 1:].astype(bool).any((1, 2))
        if idle.any():
            return "delimiter", f"no agent can act in {idle.sum()} of {len(last)} flagged rows"
    quiet = [not np.any(read[name][last]) for name in ("rewards", "actions")]
    if len(last) and all(quiet) and np.any(read["rewards"]):
        return "delimiter", f"no reward and no action in any of {len(last)} flagged rows"
    return "last", f"{len(last)} flagged rows look like transitions"


def all_true(rows: np.ndarray) -> np.ndarray:
    """Which rows are true everywhere: [N, ...] -> [N]."""
    return np.logical_and.reduce(rows.reshape(len(rows), -1), axis=1)


def _median(values: np.ndarray) -> float:
    return round(float(np.median(values)), 6) if len(values) else 0.0
