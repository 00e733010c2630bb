"""Recordings as a task needs them: casts that lose nothing are made, what may be left out is filled in, all is told.

What cannot be settled without guessing is refused, with file, key and row.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import PER_ROW
from offmarl.datasets.public.boundaries import all_true
from offmarl.datasets.public.columns import refuse
from offmarl.datasets.public.layouts import Column, Recording

NUMBERS = "biuf"  # numpy's letters
SLACK = 1e-4  # of an action's bounds
Change = Callable[[int, np.ndarray], np.ndarray]


def fitted(recording: Recording, task: Task) -> tuple[Recording, list[str]]:
    """A recording whose columns have the types of the canonical form, and what was done for it, a line each."""
    columns, notes = dict(recording.columns), []
    if not task.discrete:
        columns = {name: column for name, column in columns.items() if name not in ("legal", "next_legal")}
    for name, column in columns.items():
        if column.kind not in NUMBERS:
            raise ValueError(f"{recording.where}: {column.key} has values of type '{column.kind}', not numbers")
        if name == "actions" and task.discrete:
            columns[name] = _choices(recording, column, task, notes)
        elif name == "actions":
            columns[name] = _bounded(recording, _floats(recording, column, notes))
        elif name == "rewards":
            columns[name] = _floats(recording, column, notes)
        elif name.removeprefix("next_") in ("obs", "state"):
            columns[name] = _unpadded(recording, _floats(recording, column, notes), notes)
    for prefix in ("", "next_"):
        if f"{prefix}obs" in columns and f"{prefix}state" not in columns and "state" not in recording.columns:
            columns[f"{prefix}state"] = _joined(columns[f"{prefix}obs"])
    if "state" not in recording.columns:
        notes.append("state: there is none, so it is all observations joined")
    if task.discrete and "legal" not in columns:
        columns["legal"] = _all_legal(task)
        notes.append("legal: there is none, so all actions are legal")
    if "next_obs" in columns:
        absent = [name for name in PER_ROW if name in recording.columns and f"next_{name}" not in columns]
        notes += [f"next_obs: left out, since there is no next_{name}" for name in absent]
        columns = {name: column for name, column in columns.items() if not (absent and name.startswith("next_"))}
    return replace(recording, columns=columns), notes


def _changed(column: Column, shape: tuple[int, ...], kind: str, change: Change) -> Column:
    """The column with its slices changed: `change` takes their first row's number and themselves."""
    return Column(column.key, shape, kind, lambda lo, hi: change(lo, column.read(lo, hi)))


def _floats(recording: Recording, column: Column, notes: list[str]) -> Column:
    """Whole numbers as floats."""
    if column.kind == "f":
        return column

    def change(lo: int, values: np.ndarray) -> np.ndarray:
        found = values.astype(np.float32)
        lost = ~all_true(found.astype(np.float64) == values)
        refuse(recording, column, lo, lost, "a whole number that float32 cannot hold; scale it")
        return found

    notes.append(f"{column.key}: whole numbers became floats")
    return _changed(column, column.shape, "f", change)


def _choices(recording: Recording, column: Column, task: Task, notes: list[str]) -> Column:
    """The numbers of actions, of integers, of floats that are whole, or of one-hot rows."""
    hot = column.shape[1:] == (task.actions,) and task.actions > 1
    shape = column.shape[:1] if hot or column.shape[1:] == (1,) else column.shape

    def change(lo: int, values: np.ndarray) -> np.ndarray:
        if hot:
            bad = (((values != 0) & (values != 1)).any(-1) | (values.sum(-1) != 1)).any(1)
            refuse(recording, column, lo, bad, "not one-hot")
            return values.argmax(-1)
        values = values.reshape(len(values), *shape)
        with np.errstate(invalid="ignore"):
            found = values.astype(np.int64)
        refuse(recording, column, lo, ~all_true(found == values), "not the number of an action")
        return found

    if hot or column.kind not in "iu":
        notes.append(f"{column.key}: {'one-hot rows' if hot else 'floats'} became numbers of actions")
    return _changed(column, shape, "i", change)


def _bounded(recording: Recording, column: Column) -> Column:
    """Numbers in [-1, 1]; beyond, a step is refused instead of clipped, as its actions have another scale."""

    def change(lo: int, values: np.ndarray) -> np.ndarray:
        bad = ~all_true(~(abs(values) > 1 + SLACK))
        refuse(
            recording, column, lo, bad, f"an action of {abs(values[bad]).max(initial=0):.4g}; scale actions to -1 … 1"
        )
        return values.clip(-1, 1)

    return _changed(column, column.shape, "f", change)


def _unpadded(recording: Recording, column: Column, notes: list[str]) -> Column:
    """Zeros where every row has -inf: padding of agents that are unlike others, as in OG-MARL's particle worlds."""
    padded = np.isneginf(column.read(0, 1)).any(0)
    if not padded.any():
        return column

    def change(lo: int, values: np.ndarray) -> np.ndarray:
        uneven = ~all_true(np.isneginf(values[:, padded]))
        refuse(recording, column, lo, uneven, "a number where the first row has -inf, so that is no padding")
        return np.where(padded, 0, values)

    notes.append(f"{column.key}: {int(padded.sum())} features are -inf in every row: padding, which became zeros")
    return _changed(column, column.shape, "f", change)


def _joined(obs: Column) -> Column:
    """All observations side by side."""
    return _changed(obs, (int(np.prod(obs.shape)),), "f", lambda _, values: values.reshape(len(values), -1))


def _all_legal(task: Task) -> Column:
    shape = (task.agents, task.actions)
    return Column("legal", shape, "b", lambda lo, hi: np.ones((hi - lo, *shape), bool))
