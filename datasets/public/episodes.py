"""The episodes of a recording, by the convention of its ends and by the jumps of its states."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.public.boundaries import KNOWN_STARTS, SAMPLED, all_true, ended, find_seams, jumps, learn_seams
from offmarl.datasets.public.columns import canonical, learners, refuse, slice_rows, slices
from offmarl.datasets.public.layouts import Recording
from offmarl.datasets.public.sources import Ends


@dataclass(frozen=True)
class Part:
    """A recording, cut into its episodes."""

    recording: Recording
    delimited: bool
    first: np.ndarray  # [episodes]: the first row of each
    last: np.ndarray  # [episodes]: the row that ends each
    timeout: np.ndarray  # [episodes] bool
    clocked: int  # of them, ends at the limit that are not marked as time-outs
    rest: int  # rows after the last end
    broken: int  # episodes whose recording broke off
    left_out: list[str]  # why an episode is left out, a line each

    @property
    def lengths(self) -> np.ndarray:
        """Transitions of each episode: [episodes]."""
        return self.last - self.first + (not self.delimited)

    @property
    def used(self) -> int:
        """Rows up to the end of the last episode."""
        return int(self.last[-1]) + 1

    @cached_property
    def kept(self) -> np.ndarray:
        """Which rows belong to an episode: [used] bool."""
        steps = np.zeros(self.used + 1, np.int8)
        steps[self.first] += 1
        steps[self.last + 1] -= 1
        return np.cumsum(steps[:-1], dtype=np.int8) > 0


def cut(recording: Recording, task: Task, ends: Ends, share: float = 1.0) -> Part:
    """Find the episodes of a recording, and leave out those that cannot be.

    Raises ValueError when every other episode cannot be, so that it is the convention that does not fit.
    """
    terminal, truncated, over = _marks(recording, task)
    delimited, where = ends == "delimiter", recording.where
    if delimited:  # the cut may be marked at the last transition already, and the delimiter after it
        early = np.append(over[:-1] & over[1:] & ~terminal[:-1], False)
        truncated, over = truncated | np.roll(early, 1), over & ~early
    last, broken = _by_length(recording, task) if ends == "limit" else _by_flags(recording, task, over)
    if not len(last):
        raise ValueError(f"{where}: no episode ends in its {recording.length} rows")
    first = np.append(0, last[:-1] + 1)
    lengths = last - first + (not delimited)
    faults = _faults(recording, task, ends, last, lengths, over) | _illegal(recording, task, last, delimited)
    if 2 * len(faults) >= len(last):
        raise ValueError(faults[min(faults)])
    timeout = truncated[last] | np.isin(last, broken) | (ends == "limit")
    clocked = (lengths == task.limit) & ~timeout & (task.roster.get("clock") != "env")
    sound = np.setdiff1d(np.arange(len(last)), list(faults))
    sound = sound[: round(share * len(sound))]
    if not len(sound):
        raise ValueError(f"{where}: the first {share:.0%} of its {len(last)} episodes are none")
    return Part(
        recording=recording,
        delimited=delimited,
        first=first[sound],
        last=last[sound],
        timeout=(timeout | clocked)[sound],
        clocked=int(clocked[sound].sum()),
        rest=recording.length - 1 - int(last[-1]),
        broken=int(np.isin(last[sound], broken).sum()),
        left_out=[text for _, text in sorted(faults.items())],
    )


def cut_off(card: dict[str, Any]) -> list[str]:
    """What a card tells of episodes that broke off or are left out, a line each."""
    lines, left_out = [], card["left_out"]
    if card["broken_off"]:
        lines.append(f"{card['broken_off']:,} episodes broke off unflagged; they are cut where the state jumps")
    if left_out:
        lines.append(f"{len(left_out):,} episodes are left out, first {left_out[0]}")
    return lines


def _faults(
    recording: Recording, task: Task, ends: Ends, last: np.ndarray, lengths: np.ndarray, over: np.ndarray
) -> dict[int, str]:
    """Why an episode cannot be one, by its number."""
    found, hint = {}, "" if ends == "delimiter" else "; are the flagged rows delimiters?"
    if ends == "limit":
        for row in np.setdiff1d(np.flatnonzero(over[: last[-1] + 1]), last):
            found[int(np.searchsorted(last, row))] = row, f"an end, but episodes have {task.limit} rows"
    for k in np.flatnonzero(lengths < 1):
        found[int(k)] = last[k], "an end without a transition before it"
    for k in np.flatnonzero(lengths > task.limit):
        text = f"an episode of {lengths[k]} transitions, but {task.name} ends after {task.limit}{hint}"
        found[int(k)] = last[k], text
    key = next((recording.columns[name].key for name in ("ends", "timeouts") if name in recording.columns), "length")
    return {k: f"{recording.where}: {key}, row {row}: {text}" for k, (row, text) in found.items()}


def _illegal(recording: Recording, task: Task, last: np.ndarray, delimited: bool) -> dict[int, str]:
    """The first action that `legal` forbids in an episode, by its number. A delimiter row has no action."""
    if not task.discrete or not len(last):
        return {}
    found: dict[int, str] = {}
    actions = recording.columns["actions"]
    for lo, raw in slices(recording, recording.columns["legal"], int(last[-1]) + 1):
        chosen = canonical("actions", actions.read(lo, lo + len(raw)), task)
        known = chosen.clip(0, task.actions - 1)  # others are refused where they are converted
        bad = ~np.take_along_axis(canonical("legal", raw, task), known[..., None], -1)[..., 0] & (known == chosen)
        if delimited:
            bad[last[(last >= lo) & (last < lo + len(raw))] - lo] = False
        for row, agent in np.argwhere(bad):
            text = f"agent {agent}'s action {chosen[row, agent]} is not legal"
            found.setdefault(
                int(np.searchsorted(last, lo + row)), f"{recording.where}: {actions.key}, row {lo + row}: {text}"
            )
    return found


def _by_flags(recording: Recording, task: Task, over: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that end episodes: flagged ones, and those after which a recording broke off; the latter alone."""
    flagged = np.flatnonzero(over)
    if recording.whole:
        return flagged, flagged[:0]
    seams, learnt = _seams(recording, task, flagged)
    broken = np.setdiff1d(seams, flagged)
    if learnt and 2 * len(broken) > len(flagged):  # so many that jumps do not tell
        broken = broken[:0]
    return np.union1d(flagged, broken), broken


def _by_length(recording: Recording, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The same of episodes of the task's length, which begin anew where a recording broke off."""
    grid = np.arange(task.limit - 1, recording.length, task.limit)
    seams, _ = _seams(recording, task, grid, regular=True)
    last: list[int] = []
    broken: list[int] = []
    begin = 0
    while begin < recording.length:
        end, k = begin + task.limit - 1, int(np.searchsorted(seams, begin))
        if k < len(seams) and seams[k] < end:
            end = int(seams[k])
            broken.append(end)
        if end < recording.length:
            last.append(end)
        begin = end + 1
    if 2 * len(broken) > len(grid):  # so many that jumps do not tell
        return grid, grid[:0]
    return np.array(last, np.int64), np.array(broken, np.int64)


def _seams(recording: Recording, task: Task, ends: np.ndarray, regular: bool = False) -> tuple[np.ndarray, bool]:
    """The rows after which the state shows that another episode begins, and whether it is known what starts look like.

    `ends` are known; `regular` ones by their distance only, so they hold until the states do not jump there.
    """
    column = recording.columns["state"]
    sample = canonical("state", column.read(0, min(recording.length, SAMPLED, slice_rows(column))), task)
    ends = ends[ends < len(sample) - 1]
    if regular and len(ends):
        jump = jumps(sample)[ends]
        short = np.flatnonzero(jump < np.median(jump[:KNOWN_STARTS]) / 3)
        ends = ends[: short[0]] if len(short) else ends
    seams = learn_seams(sample, ends)
    states = ((lo, canonical("state", raw, task)) for lo, raw in slices(recording, column, recording.length))
    return find_seams(states, seams), seams.low is not None


def _marks(recording: Recording, task: Task) -> tuple[np.ndarray, ...]:
    """Which rows are flagged as terminal, as cut off, and as an end, one or the other for each agent: [N] bool each."""
    none = np.zeros((recording.length, 1), bool)
    read = [
        np.concatenate([*_flags(recording, name, task)]) if name in recording.columns else none
        for name in ("ends", "timeouts")
    ]
    over = ended(*read)
    return all_true(read[0]), over & read[1].any(1), over


def _flags(recording: Recording, name: str, task: Task) -> Iterator[np.ndarray]:
    """A column of flags, slice by slice: [N, 1] or [N, I] bool."""
    column = recording.columns[name]
    for lo, values in slices(recording, column, recording.length):
        values = learners(values, task).reshape(len(values), -1)
        refuse(recording, column, lo, ~all_true(np.isin(values, (0, 1))), "not a flag (0 or 1)")
        yield values != 0
