"""The canonical form of every dataset: episodes end to end, with one convention of episode ends.

An episode of T transitions has T + 1 rows of `obs`, `state` and `legal` (the last row follows the last action), so each
observation is stored once. Transition k leads from row `rows[k]` to row `rows[k] + 1`; none joins two episodes.
Shapes: N transitions, R rows, I agents, O observation, G state, A actions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.damaged import refuse_damaged

FORM: dict[str, tuple[str, int]] = {  # a field's type and number of axes in a file; discrete actions differ
    "obs": ("float32", 3),
    "state": ("float32", 2),
    "legal": ("bool", 3),
    "actions": ("float32", 3),
    "rewards": ("float32", 2),
    "done": ("bool", 1),
    "timeout": ("bool", 1),
    "rows": ("int64", 1),
    "episode": ("int32", 1),
    "behaviour": ("int16", 1),
}

PER_ROW = ("obs", "state", "legal")  # these have one row more than an episode has transitions


@dataclass
class Dataset:
    """Real transitions only. `done` marks terminal ones, `timeout` those at the time limit."""

    obs: np.ndarray  # [R, I, O] float32
    state: np.ndarray  # [R, G] float32
    legal: np.ndarray | None  # [R, I, A] bool
    actions: np.ndarray  # [N, I] int64, or [N, I, A] float32
    rewards: np.ndarray  # [N, I] float32
    done: np.ndarray  # [N] bool
    timeout: np.ndarray  # [N] bool
    rows: np.ndarray  # [N] int64
    episode: np.ndarray  # [N] int32
    behaviour: np.ndarray  # [episodes] int16: the policy that recorded it (never an input of a method)

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other."""
        for name in ("actions", "rewards", "done", "timeout", "episode", "state", "legal"):
            wanted, what = (self.obs, "rows of obs") if name in PER_ROW else (self.rows, "transitions")
            values = getattr(self, name)
            if values is not None and len(values) != len(wanted):
                raise ValueError(f"{name}: {len(values)} entries for {len(wanted)} {what}")
        if not len(self.rows):
            raise ValueError("rows: there is no transition")
        ends = self.done | self.timeout
        last = np.append(self.episode[1:] != self.episode[:-1], True)
        if not np.array_equal(ends, last):
            k = int(np.flatnonzero(ends != last)[0])
            raise ValueError(f"done/timeout, transition {k}: ends and episode numbers disagree")
        numbers = np.append(0, last[:-1].cumsum())
        if not np.array_equal(self.episode, numbers):
            k = int(np.flatnonzero(self.episode != numbers)[0])
            raise ValueError(f"episode, transition {k}: {self.episode[k]}, should be {numbers[k]}; count them from 0")
        if len(self.obs) != len(self.rows) + len(self.behaviour):
            raise ValueError(
                f"obs: {len(self.obs)} rows for {len(self.rows)} transitions in {len(self.behaviour)} episodes; "
                "an episode of T transitions has T + 1 rows"
            )
        expected = np.arange(len(self.rows)) + self.episode  # every earlier episode has one row more than transitions
        if not np.array_equal(self.rows, expected):
            k = int(np.flatnonzero(self.rows != expected)[0])
            raise ValueError(f"rows, transition {k}: {self.rows[k]}, should be {expected[k]}")

    def check(self, task: Task) -> None:
        """Refuse what does not fit the task. Raises ValueError naming the field, and the row if one is wrong."""
        per_agent = (task.agents, task.actions)
        shapes = {"obs": (task.agents, task.obs), "state": (task.state,), "rewards": (task.agents,)}
        shapes["actions"] = (task.agents,) if task.discrete else per_agent
        shapes |= {"legal": per_agent} if task.discrete else {}
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values is None:
                raise ValueError(f"{name}: missing; {task.name} has discrete actions")
            if values.shape[1:] != shape:
                raise ValueError(f"{name}: rows of shape {values.shape[1:]}, but {task.name} has {shape}")
            bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
            if bad.any():
                raise ValueError(f"{name}, row {bad.argmax()}: not a finite number")
        low, high = (0, task.actions - 1) if task.discrete else (-1.0, 1.0)
        bad = ((self.actions < low) | (self.actions > high)).reshape(len(self.actions), -1).any(1)
        if bad.any():
            raise ValueError(f"actions, row {bad.argmax()}: outside {low} to {high}")

    @property
    def successors(self) -> np.ndarray:
        """Whether the observation that follows a transition was recorded: [N] bool.

        A layout that cuts episodes without one has the last row of each twice. Where rows differ at any cut, the others
        are of teams that stood still, but for the last one, after which a recording may break off. What follows a
        terminal is not needed.
        """
        found = np.ones(len(self.rows), bool)
        cut = np.flatnonzero(self.timeout)
        differs = (self.obs[self.rows[cut] + 1] != self.obs[self.rows[cut]]).any((1, 2))
        found[cut] = differs
        found[cut[:-1]] |= differs.any()
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def returns(self) -> np.ndarray:
        """Undiscounted return of every episode, averaged over agents: [episodes]."""
        return np.bincount(self.episode, self.rewards.mean(1), len(self.behaviour))

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name, for storage."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def save(self, file: Path) -> None:
        """Write the arrays into one .npz."""
        with file.open("wb") as out:  # given a name, NumPy would add .npz to it
            np.savez(out, **self.arrays())  # type: ignore[arg-type]

    def statistics(self) -> dict[str, Any]:
        """Counts and the mean and deviation of the returns."""
        returns = self.returns()
        return {
            "episodes": len(returns),
            "transitions": len(self),
            "return_mean": round(float(returns.mean()), 4),
            "return_std": round(float(returns.std()), 4),
            "length_mean": round(len(self) / len(returns), 2),
        }


def read(file: Path, task: Task) -> Dataset:
    """A dataset from its arrays in one .npz, checked against the task.

    Raises ValueError naming the file, the field and the row of the first fault.
    """
    file.stat()  # a missing file is not a damaged one
    with refuse_damaged(file, "is not a complete .npz of plain arrays"), np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = {f.name for f in fields(Dataset)}
    missing = sorted(names - {"legal"} - arrays.keys())
    if missing or not arrays.keys() <= names:
        unknown = sorted(arrays.keys() - names)
        raise ValueError(f"{file}: fields missing: {missing}; unknown: {unknown}")
    try:
        typed = {name: _typed(name, values, task) for name, values in arrays.items()}
        data = Dataset(**{"legal": None, **typed})
        data.check(task)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return data


def read_folder(folder: Path) -> Dataset:
    """The dataset of a folder, its arrays memory-mapped. Raises ValueError when an array is damaged."""
    arrays: dict[str, Any] = {"legal": None}
    for field in fields(Dataset):
        file = folder / f"{field.name}.npy"
        if file.exists() or field.name != "legal":
            with refuse_damaged(file, "is not a complete array"):
                arrays[field.name] = np.load(file, mmap_mode="c", allow_pickle=False)
    return Dataset(**arrays)


def _typed(name: str, values: np.ndarray, task: Task) -> np.ndarray:
    """A field in its canonical type; other kinds of values, or other axes, are refused."""
    kind, axes = ("int64", 2) if name == "actions" and task.discrete else FORM[name]
    if values.dtype.kind not in {"i": "iu"}.get(kind[0], kind[0]) or values.ndim != axes:
        raise ValueError(f"{name}: {values.dtype} with {values.ndim} axes, but {task.name} has {kind} with {axes}")
    return values.astype(kind, copy=False)


def from_episodes(episodes: list[dict[str, np.ndarray]], behaviours: list[int]) -> Dataset:
    """Join recorded episodes and the policy behind each.

    An episode has obs, state and legal of T + 1 rows, actions and rewards of T, and the flags done and timeout.
    """
    lengths = np.array([len(e["actions"]) for e in episodes])
    done, timeout = (np.array([e[name] for e in episodes], bool) for name in ("done", "timeout"))
    names = ("obs", "state", "legal", "actions", "rewards")
    joined = {name: np.concatenate([e[name] for e in episodes]) for name in names if name in episodes[0]}
    return Dataset(**{"legal": None, **joined}, **index(lengths, done, timeout, behaviours))


def index(
    lengths: np.ndarray, done: np.ndarray, timeout: np.ndarray, behaviours: Sequence[int] | np.ndarray
) -> dict[str, Any]:
    """The fields that say where transitions belong, from length, flags and policy of every episode: [episodes] each."""
    count, last = int(lengths.sum()), np.cumsum(lengths) - 1
    episode = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    marks = {"done": np.zeros(count, bool), "timeout": np.zeros(count, bool)}
    marks["done"][last], marks["timeout"][last] = done, timeout
    rows = np.arange(count, dtype=np.int64) + episode
    return marks | {"rows": rows, "episode": episode, "behaviour": np.array(behaviours, np.int16)}


def join(parts: Sequence[tuple[Dataset, float]]) -> Dataset:
    """Join datasets, each with the first share of its episodes: (dataset, share)."""
    episodes, behaviours = [], []
    for data, share in parts:
        before = max(behaviours, default=-1) + 1
        starts = np.searchsorted(data.episode, np.arange(len(data.behaviour) + 1))
        for e in range(round(share * len(data.behaviour))):
            steps = slice(starts[e], starts[e + 1])
            rows = slice(data.rows[steps][0], data.rows[steps][-1] + 2)
            episode = {name: values[rows] for name, values in data.arrays().items() if name in PER_ROW}
            episode |= {"actions": data.actions[steps], "rewards": data.rewards[steps]}
            episodes.append(episode | {"done": data.done[steps][-1], "timeout": data.timeout[steps][-1]})
            behaviours.append(before + int(data.behaviour[e]))
    return from_episodes(episodes, behaviours)


def is_whole(file: Path) -> bool:
    """Whether a file of arrays is there and not cut off, told by opening it; its checksum tells the rest."""
    try:
        np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception:  # whatever a parser meets
        return False
    return True


def file_sum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
