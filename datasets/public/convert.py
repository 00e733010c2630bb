"""Turn recordings of any layout into the canonical form, slice by slice, as a folder of memory-mapped arrays.

The conventions of episode ends (`Ends`), which become one here, are in the README of datasets. A folder holds one .npy
a field and `card.json`; it appears complete or not at all.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.cache import Progress, no_progress, replacing
from offmarl.datasets.dataset import PER_ROW, file_sum, index, read_folder
from offmarl.datasets.public.boundaries import all_true, judge_ends
from offmarl.datasets.public.columns import canonical, check_columns, refuse, slices
from offmarl.datasets.public.episodes import Part, cut
from offmarl.datasets.public.layouts import Recording
from offmarl.datasets.public.sources import Ends

FAULT = "not a finite number"


def convert(
    recordings: Sequence[tuple[Recording, float]],
    task: Task,
    ends: Ends,
    folder: Path,
    facts: dict[str, Any],
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write recordings, each with the first share of its episodes, as one dataset into `folder`; returns its card.

    `facts` are further entries of the card; `progress` is called with the rows of a column that have been converted.
    Raises ValueError naming file, key and row of the first fault; nothing is written then.
    """
    for recording, _ in recordings:
        check_columns(recording, task)
    seen = judge_ends(recordings[0][0], task)
    ends = seen.ends if ends == "detect" else ends
    parts = [cut(recording, task, ends, share) for recording, share in recordings]
    with replacing(folder) as draft:
        draft.mkdir()
        sums, clipped = _write(parts, task, draft, progress)
        card = facts | read_folder(draft).statistics()
        card |= {"sha256": hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest(), "arrays": sums}
        card |= {"ends": ends, "clipped_actions": clipped, "boundaries": asdict(seen)}
        card["ends_at_the_limit_taken_as_time_outs"] = sum(part.clocked for part in parts)
        card["rows_without_an_end"] = sum(part.rest for part in parts)
        card["broken_off"] = sum(part.broken for part in parts)
        card["left_out"] = [line for part in parts for line in part.left_out]
        (draft / "card.json").write_text(json.dumps(card, indent=1))
    return card


def converted_columns(recording: Recording) -> list[str]:
    """The columns that the canonical form takes from a recording."""
    return [name for name in ("obs", "state", "legal", "actions", "rewards") if name in recording.columns]


def _write(parts: list[Part], task: Task, draft: Path, progress: Progress) -> tuple[dict[str, str], int]:
    """Write every field; returns their SHA-256 and the number of actions that were clipped."""
    sums, clipped = {}, 0

    def field(name: str) -> Iterator[np.ndarray]:
        nonlocal clipped
        for part in parts:
            for values, count in _field(part, name, task):
                if name == "actions" and not task.discrete:
                    clipped += int((abs(values) > 1).sum())
                    values = values.clip(-1, 1)
                yield values
                progress(count)

    for name in converted_columns(parts[0].recording):
        rows = sum(int(part.lengths.sum()) + (name in PER_ROW) * len(part.last) for part in parts)
        sums[name] = _save(draft / f"{name}.npy", rows, field(name))
    lengths, timeout = (np.concatenate([getattr(part, name) for part in parts]) for name in ("lengths", "timeout"))
    recorded_by = np.repeat(np.arange(len(parts)), [len(part.last) for part in parts])
    for name, values in index(lengths, ~timeout, timeout, recorded_by).items():
        sums[name] = _save(draft / f"{name}.npy", len(values), [values])
    return sums, clipped


def _save(path: Path, rows: int, pieces: Iterable[np.ndarray]) -> str:
    """Write an .npy of so many rows, piece by piece; returns its SHA-256."""
    with path.open("wb") as file:
        for values in pieces:
            if not file.tell():
                form = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, form | {"shape": (rows, *values.shape[1:])})
            file.write(np.ascontiguousarray(values).data)
    return file_sum(path)


def _field(part: Part, name: str, task: Task) -> Iterator[tuple[np.ndarray, int]]:
    """A field of the canonical form, slice by slice, with the number of rows it was made from."""
    recording, column = part.recording, part.recording.columns[name]
    for lo, raw in slices(recording, column, part.used):
        values = canonical(name, raw, task)
        bad = ~all_true(np.isfinite(raw if name == "legal" else values))
        bad &= part.kept[lo : lo + len(raw)]
        if name in ("actions", "rewards") and part.delimited:
            bad[part.last[(part.last >= lo) & (part.last < lo + len(raw))] - lo] = False  # they have no meaning there
        refuse(recording, column, lo, bad, FAULT)
        if name == "actions" and task.discrete:
            bad = ((values < 0) | (values >= task.actions)).any(1) & part.kept[lo : lo + len(raw)]
            refuse(recording, column, lo, bad, f"outside 0 to {task.actions - 1}")
        yield _with_last_rows(part, name, values, lo, task), len(raw)


def _with_last_rows(part: Part, name: str, values: np.ndarray, lo: int, task: Task) -> np.ndarray:
    """Rows from `lo` on in the canonical form: without delimiters, or with a row after each end.

    If no observation was recorded after an end, the last row is repeated; no value is learnt there.
    """
    kept = part.kept[lo : lo + len(values)].copy()
    ends = part.last[(part.last >= lo) & (part.last < lo + len(values))] - lo
    if part.delimited or name not in PER_ROW:
        kept[ends] &= not part.delimited or name in PER_ROW
        return values[kept]
    following = values[ends]
    if f"next_{name}" in part.recording.columns and len(ends):
        column = part.recording.columns[f"next_{name}"]
        following = canonical(name, column.read(lo, lo + len(values))[ends], task)
        bad = np.zeros(len(values), bool)
        bad[ends] = ~all_true(np.isfinite(following))
        refuse(part.recording, column, lo, bad, FAULT)
    return np.insert(values, ends + 1, following, 0)[np.insert(kept, ends + 1, True)]
