"""Where episodes end, judged by the rows themselves and not by what their publisher says.

Observations jump between episodes, so jumps show whether the flagged row is the last of its episode. That it is the
row after a transition (`delimiter`) shows where it is one more than the task's limit, where no agent can act in it, or
where none has reward and action. Where a recording broke off unflagged, the state jumps to one that looks like a start.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.public.columns import FOLLOWING, learners
from offmarl.datasets.public.layouts import Recording

INSPECTED = 20_000  # rows
SAMPLED = 50_000  # rows that show how states jump and what starts look like
KNOWN_STARTS = 8  # fewer do not show what starts look like
FAR = 12.0  # jumps of most steps: with few known starts, so far is a cut
ALIKE = 0.95  # of a start's features that vary lie in the range of the known ones, or a quarter of it beside


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
    """Judge the first rows of a recording, as the task's agents see them."""
    n = min(recording.length, INSPECTED)
    read = {
        name: learners(column.read(0, n), task)
        for name, column in recording.columns.items()
        if name not in ("state", *FOLLOWING)
    }
    flags = ended(*(read[name] != 0 if name in read else np.zeros(n, bool) for name in ("ends", "timeouts")))
    last = np.flatnonzero(flags)
    jump = jumps(read["obs"])
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
    if longest == task.limit + 1:
        return "delimiter", f"an episode has {longest} rows, one more than the limit of {task.limit} actions"
    if "legal" in read and len(last):
        idle = read["legal"][last, :, 0].astype(bool).all(1) & ~read["legal"][last, :, 1:].astype(bool).any((1, 2))
        if idle.any():
            return "delimiter", f"no agent can act in {idle.sum()} of {len(last)} flagged rows"
    quiet = [not np.any(read[name][last]) for name in ("rewards", "actions")]
    if len(last) and all(quiet) and np.any(read["rewards"]):
        return "delimiter", f"no reward and no action in any of {len(last)} flagged rows"
    return "last", f"{len(last)} flagged rows look like transitions"


@dataclass(frozen=True)
class Seams:
    """How states jump from one episode to the next, and what starts look like, learnt from known ends."""

    least: float  # Euclidean distance
    low: np.ndarray | None  # [G] of the known starts, of each feature; None: too few are known
    high: np.ndarray

    def find(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Which pairs of successive states [N,G] join two episodes: [N] bool."""
        far = _distance(before, after) > self.least
        if self.low is None:
            return far
        where, width = np.flatnonzero(far), self.high - self.low
        states, fixed = after[where], width <= 1e-6 * np.maximum(1, abs(self.high))
        same = (abs(states - self.high) <= 1e-5 * np.maximum(1, abs(self.high)))[:, fixed].all(1)
        beside = (states >= self.low - width / 4) & (states <= self.high + width / 4) | fixed
        far[where] = same & ((~beside).sum(1) <= (1 - ALIKE) * (~fixed).sum())
        return far


def learn_seams(states: np.ndarray, ends: np.ndarray) -> Seams:
    """From the first states [N,G] of a recording and the known ends (rows) before the last of them."""
    jump = jumps(states)
    inside = np.delete(jump, ends)
    starts = states[np.append(0, ends + 1)] if len(states) else states
    if len(starts) < KNOWN_STARTS:
        moved = inside[inside > 0]  # states that rarely change tell nothing while they stand still
        least = FAR * float(np.quantile(moved, 0.9)) if len(moved) else np.inf
        return Seams(least, None, np.zeros(0))
    least = max(float(np.quantile(jump[ends], 0.05)) / 2, 2 * _median(inside))
    return Seams(least, starts.min(0), starts.max(0))


def find_seams(slices: Iterable[tuple[int, np.ndarray]], seams: Seams) -> np.ndarray:
    """The rows after which another episode begins, of states that come slice by slice."""
    found, before = [], None
    for lo, states in slices:
        joined = states if before is None else np.concatenate([before, states])
        found.append(np.flatnonzero(seams.find(joined[:-1], joined[1:])) + (lo if before is None else lo - 1))
        before = states[-1:]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def ended(terminals: np.ndarray, truncations: np.ndarray) -> np.ndarray:
    """Which rows end an episode: those in which every agent's is over or cut off: flags [N, ...] -> [N]."""
    return all_true(terminals.reshape(len(terminals), -1) | truncations.reshape(len(truncations), -1))


def jumps(rows: np.ndarray) -> np.ndarray:
    """Euclidean distances between successive rows: [N, ...] -> [N - 1]."""
    flat = rows.reshape(len(rows), -1)
    return _distance(flat[:-1], flat[1:])


def all_true(rows: np.ndarray) -> np.ndarray:
    """Which rows are true everywhere: [N, ...] -> [N]."""
    return np.logical_and.reduce(rows.reshape(len(rows), -1), axis=1)


def _distance(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is refused later, with its row
        return np.linalg.norm(after.astype(np.float64) - before, axis=1)


def _median(values: np.ndarray) -> float:
    return round(float(np.median(values)), 6) if len(values) else 0.0
