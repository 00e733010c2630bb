"""Turn recordings of any layout into the canonical form, slice by slice, as a folder of memory-mapped arrays.

Public data have several conventions of episode ends (`Ends`), which become one here:

    last        the flagged row is the last transition; the observation after it was not recorded (OG-MARL's StarCraft)
    delimiter   the flagged row is no transition: it holds the observation after the last one (OMIGA's robots)
    limit       flags have no meaning, episodes have the task's length (OMAR)
    detect      `last` or `delimiter`, as the rows indicate (OMIGA's StarCraft)

A folder holds one .npy a field and `card.json`; it appears complete or not at all.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.cache import Progress, no_progress, replacing
from offmarl.datasets.dataset import index, read_folder
from offmarl.datasets.public.boundaries import all_true, judge_ends
from offmarl.datasets.public.layouts import Column, Recording
from offmarl.datasets.public.sources import Ends

SLICE_BYTES = 2**25  # of one column read at once
FLAGS, FLOATS = "fbiu", "f"  # numpy's letters
KINDS = {"obs": FLOATS, "state": FLOATS, "rewards": FLOATS, "following": FLOATS}
KINDS |= {"legal": FLAGS, "ends": FLAGS, "timeouts": FLAGS}
PER_ROW = ("obs", "state", "legal")  # these have one row more than an episode has transitions


@dataclass(frozen=True)
class Part:
    """A recording, cut into its episodes."""

    recording: Recording
    delimited: bool
    last: np.ndarray  # [episodes]: the flagged row of each
    lengths: np.ndarray  # [episodes]: transitions of each
    timeout: np.ndarray  # [episodes] bool
    rest: int  # rows after the last end

    @property
    def used(self) -> int:
        """Rows up to the end of the last episode."""
        return int(self.last[-1]) + 1


def convert(
    recordings: Sequence[tuple[Recording, float]],
    task: Task,
    ends: Ends,
    folder: Path,
    facts: dict[str, Any],
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write recordings, each with the first share of its episodes, as one dataset into `folder`; returns its card.

    Args:
        facts: further entries of the card.
        progress: called with the number of rows of one column that have just been converted.

    Raises:
        ValueError: naming file, key and row of the first fault; nothing is written then.
    """
    for recording, _ in recordings:
        _check_columns(recording, task)
    seen = judge_ends(recordings[0][0], task)
    ends = seen.ends if ends == "detect" else ends
    parts = [cut(recording, task, ends, share) for recording, share in recordings]
    with replacing(folder) as draft:
        draft.mkdir()
        sums, clipped = _write(parts, task, draft, progress)
        card = facts | read_folder(draft).statistics()
        card |= {"sha256": hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest(), "arrays": sums}
        card |= {"ends": ends, "clipped_actions": clipped, "boundaries": asdict(seen)}
        card["rows_without_an_end"] = sum(part.rest for part in parts)
        (draft / "card.json").write_text(json.dumps(card, indent=1))
    return card


def converted_columns(recording: Recording) -> list[str]:
    """The columns that the canonical form takes from a recording."""
    return [name for name in ("obs", "state", "legal", "actions", "rewards") if name in recording.columns]


def cut(recording: Recording, task: Task, ends: Ends, share: float = 1.0) -> Part:
    """Find the episodes of a recording.

    Raises:
        ValueError: when flags and convention contradict each other.
    """
    flagged = np.concatenate([*_flags(recording, "ends"), np.zeros(0, bool)])
    if ends == "limit":
        last = np.arange(task.limit - 1, recording.length, task.limit)
        stray = np.setdiff1d(np.flatnonzero(flagged), last)
        if len(stray):
            key = recording.columns["ends"].key
            raise ValueError(f"{recording.where}: {key}, row {stray[0]}: an end, but episodes have {task.limit} rows")
    else:
        last = np.flatnonzero(flagged)
    rest = recording.length - 1 - int(last[-1]) if len(last) else 0
    last = last[: round(share * len(last))]
    if not len(last):
        raise ValueError(f"{recording.where}: no episode ends in its {recording.length} rows")
    delimited = ends == "delimiter"
    lengths = np.diff(last, prepend=-1) - delimited
    _check_lengths(recording, task, delimited, last, lengths)
    timeout = np.full(len(last), ends == "limit") | (delimited & (lengths == task.limit))
    if "timeouts" in recording.columns and ends == "last":
        timeout |= np.concatenate([*_flags(recording, "timeouts")])[last]
    return Part(recording, delimited, last, lengths, timeout, rest)


def _check_lengths(recording: Recording, task: Task, delimited: bool, last: np.ndarray, lengths: np.ndarray) -> None:
    where, key = recording.where, recording.columns["ends"].key
    if lengths.min() < 1:
        raise ValueError(f"{where}: {key}, row {last[lengths.argmin()]}: an end without a transition before it")
    if lengths.max() > task.limit:
        k, hint = int(lengths.argmax()), "" if delimited else "; are the flagged rows delimiters?"
        raise ValueError(
            f"{where}: {key}, row {last[k]}: an episode of {lengths[k]} transitions, "
            f"but {task.name} ends after {task.limit}{hint}"
        )


def _check_columns(recording: Recording, task: Task) -> None:
    """Refuse columns of a wrong type or shape. Agents beyond the task's are its prey, which comes last."""
    if recording.length < 1:
        raise ValueError(f"{recording.where}: has no rows")
    agents = task.agents + task.roster.get("prey", 0)
    allowed: dict[str, list[tuple[int, ...]]] = {
        "obs": [(n, task.obs) for n in (task.agents, agents)],
        "state": [(task.state,), (task.agents, task.state), (task.state * agents // task.agents,)],
        "legal": [(task.agents, task.actions)],
        "actions": [(n,) if task.discrete else (n, task.actions) for n in (task.agents, agents)],
        "rewards": [(), (1,), (task.agents,), (agents,), (task.agents, 1)],
    }
    allowed["following"] = allowed["obs"]
    for name, column in recording.columns.items():
        kinds = KINDS.get(name, "iu" if task.discrete else "f")
        if column.kind not in kinds:
            raise ValueError(f"{recording.where}: {column.key} has values of type '{column.kind}', should be {kinds!r}")
        if name in allowed and column.shape not in allowed[name]:
            wanted = " or ".join(map(str, dict.fromkeys(allowed[name])))
            raise ValueError(
                f"{recording.where}: {column.key} has rows of shape {column.shape}, but {task.name} "
                f"({task.agents} agents) has {wanted}"
            )
    for name in ("legal", "state"):
        if name not in recording.columns and (task.discrete or name == "state"):
            raise ValueError(f"{recording.where}: has no {name}; {task.name} needs it")


def _slices(recording: Recording, column: Column, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """A column up to a row, slice by slice; the next slice is read while one is converted."""
    step = max(1, SLICE_BYTES // (8 * max(1, int(np.prod(column.shape)))))
    starts = range(0, stop, step)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(column.read, 0, min(step, stop))
        for lo in starts:
            values, following = coming.result(), lo + step
            if following < stop:
                coming = pool.submit(column.read, following, min(following + step, stop))
            if len(values) != min(step, stop - lo):
                raise ValueError(f"{recording.where}: {column.key} ends at row {lo + len(values)} of {stop}")
            yield lo, values


def _flags(recording: Recording, name: str) -> Iterator[np.ndarray]:
    """A column of flags, slice by slice: set where it is set for all agents."""
    column = recording.columns[name]
    for lo, values in _slices(recording, column, recording.length):
        bad = ~all_true(np.isin(values, (0, 1)))
        if bad.any():
            raise ValueError(f"{recording.where}: {column.key}, row {lo + bad.argmax()}: not a flag (0 or 1)")
        yield all_true(values != 0)


def _write(parts: list[Part], task: Task, draft: Path, progress: Progress) -> tuple[dict[str, str], int]:
    """Write every field; returns their SHA-256 and the number of actions that were clipped."""
    sums, clipped = {}, 0
    for name in converted_columns(parts[0].recording):
        rows = sum(int(part.lengths.sum()) + (name in PER_ROW) * len(part.last) for part in parts)
        with Array(draft / f"{name}.npy", rows) as out:
            for part in parts:
                for values, count in _field(part, name, task):
                    if name == "actions" and not task.discrete:
                        clipped += int((abs(values) > 1).sum())
                        values = values.clip(-1, 1)
                    out.append(values)
                    progress(count)
        sums[name] = out.sha256
    lengths, timeout = (np.concatenate([getattr(part, name) for part in parts]) for name in ("lengths", "timeout"))
    recorded_by = np.repeat(np.arange(len(parts)), [len(part.last) for part in parts])
    for name, values in index(lengths, ~timeout, timeout, recorded_by).items():
        with Array(draft / f"{name}.npy", len(values)) as out:
            out.append(values)
        sums[name] = out.sha256
    return sums, clipped


def _field(part: Part, name: str, task: Task) -> Iterator[tuple[np.ndarray, int]]:
    """A field of the canonical form, slice by slice, with the number of rows it was made from."""
    column, where = part.recording.columns[name], part.recording.where
    for lo, raw in _slices(part.recording, column, part.used):
        values = _canonical(name, raw, task)
        bad = ~all_true(np.isfinite(raw if name == "legal" else values))
        if name in ("actions", "rewards") and part.delimited:
            bad[part.last[(part.last >= lo) & (part.last < lo + len(raw))] - lo] = False  # they have no meaning there
        if bad.any():
            raise ValueError(f"{where}: {column.key}, row {lo + bad.argmax()}: not a finite number")
        if name == "actions" and task.discrete:
            bad = ((values < 0) | (values >= task.actions)).any(1)
            if bad.any():
                raise ValueError(f"{where}: {column.key}, row {lo + bad.argmax()}: outside 0 to {task.actions - 1}")
        yield _with_last_rows(part, name, values, lo, task), len(raw)


def _with_last_rows(part: Part, name: str, values: np.ndarray, lo: int, task: Task) -> np.ndarray:
    """Rows from `lo` on in the canonical form: without delimiters, or with a row after each end.

    If no observation was recorded after an end, the last row is repeated; no value is learnt there.
    """
    ends = part.last[(part.last >= lo) & (part.last < lo + len(values))] - lo
    if part.delimited:
        return values if name in PER_ROW else np.delete(values, ends, 0)
    if name not in PER_ROW:
        return values
    following = values[ends]
    if name == "obs" and "following" in part.recording.columns and len(ends):
        column = part.recording.columns["following"]
        following = _canonical(name, column.read(lo, lo + len(values))[ends], task)
        bad = ~all_true(np.isfinite(following))
        if bad.any():
            row = lo + ends[bad.argmax()]
            raise ValueError(f"{part.recording.where}: {column.key}, row {row}: not a finite number")
    return np.insert(values, ends + 1, following, 0)


def _canonical(name: str, raw: np.ndarray, task: Task) -> np.ndarray:
    """The part of a column that belongs to the learners, in the canonical type."""
    if name == "state":
        return (raw[:, 0] if raw.ndim == 3 else raw[:, : task.state]).astype(np.float32)
    if name == "rewards":
        each = raw.reshape(len(raw), -1)[:, : task.agents]
        return np.repeat(each, task.agents // each.shape[1], 1).astype(np.float32)
    if name == "legal":
        return raw.astype(bool)
    kept = raw[:, : task.agents]
    return kept.astype(np.int64 if name == "actions" and task.discrete else np.float32)


class Array:
    """An .npy file that is written in pieces, with its SHA-256 computed on the way."""

    def __init__(self, path: Path, rows: int):
        self.path, self.rows, self.sha256 = path, rows, ""

    def __enter__(self) -> "Array":
        self._file, self._sum, self._begun = self.path.open("wb"), hashlib.sha256(), False
        return self

    def append(self, values: np.ndarray) -> None:
        """Add rows."""
        if not self._begun:
            self._begun, head = True, io.BytesIO()
            np.lib.format.write_array_header_1_0(
                head,
                {
                    "descr": np.lib.format.dtype_to_descr(values.dtype),
                    "fortran_order": False,
                    "shape": (self.rows, *values.shape[1:]),
                },
            )
            self._put(head.getbuffer())
        if values.size:
            self._put(np.ascontiguousarray(values).data)

    def _put(self, content: memoryview) -> None:
        self._sum.update(content)
        self._file.write(content)

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.sha256 = self._sum.hexdigest()
