"""Columns of recordings as the task's agents have them: checked, read slice by slice, in the canonical types."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import PER_ROW
from offmarl.datasets.public.layouts import Column, Recording

SLICE_BYTES = 2**25  # of one column read at once
FLAGS, FLOATS = "fbiu", "f"  # numpy's letters
FOLLOWING = tuple(f"next_{name}" for name in PER_ROW)  # columns of what follows a row
KINDS = {"obs": FLOATS, "state": FLOATS, "rewards": FLOATS, "next_obs": FLOATS, "next_state": FLOATS}
KINDS |= {"next_legal": FLAGS} | {"legal": FLAGS, "ends": FLAGS, "timeouts": FLAGS}


def check_columns(recording: Recording, task: Task) -> None:
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
    allowed |= {name: allowed[name.removeprefix("next_")] for name in FOLLOWING}
    allowed |= {"ends": allowed["rewards"], "timeouts": allowed["rewards"]}
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


def slice_rows(column: Column) -> int:
    """Rows of a column that are read at once."""
    return max(1, SLICE_BYTES // (8 * max(1, int(np.prod(column.shape)))))


def slices(recording: Recording, column: Column, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """A column up to a row, slice by slice; the next slice is read while one is converted."""
    step = slice_rows(column)
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


def refuse(recording: Recording, column: Column, lo: int, bad: np.ndarray, fault: str) -> None:
    """Raises ValueError naming file, key, row and fault if any row of the slice from `lo` on is bad: [N] bool."""
    if bad.any():
        raise ValueError(f"{recording.where}: {column.key}, row {lo + bad.argmax()}: {fault}")


def learners(rows: np.ndarray, task: Task) -> np.ndarray:
    """The part of rows that belongs to the task's agents: their prey comes last, and what it has is padded."""
    return rows[:, : task.agents] if rows.ndim > 1 else rows


def canonical(name: str, raw: np.ndarray, task: Task) -> np.ndarray:
    """The part of a column that belongs to the learners, in the canonical type."""
    if name == "state":
        return (raw[:, 0] if raw.ndim == 3 else raw[:, : task.state]).astype(np.float32)
    if name == "rewards":
        each = learners(raw.reshape(len(raw), -1), task)
        return np.repeat(each, task.agents // each.shape[1], 1).astype(np.float32)
    if name == "legal":
        return raw.astype(bool)
    return learners(raw, task).astype(np.int64 if name == "actions" and task.discrete else np.float32)
