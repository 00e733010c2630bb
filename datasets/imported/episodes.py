"""Episodes, one after another, as a recording: every episode's last row is a delimiter with what followed it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import PER_ROW
from offmarl.datasets.public.layouts import Recording, array_column

Episode = Mapping[str, Any]  # see `recording_of`
ENDS = {"ends": ("terminated", "done"), "timeouts": ("truncated", "timeout")}
KNOWN = (*PER_ROW, "actions", "rewards", *(key for keys in ENDS.values() for key in keys), "behaviour")


def recording_of(episodes: Iterable[Episode], task: Task, where: str = "episodes") -> Recording:
    """One recording of episodes, each with `obs` of T + 1 rows, and `actions` and `rewards` of T.

    `state` and `legal` (T + 1 rows) may be left out. The flags `terminated` and `truncated`, or `done` and `timeout`,
    say how it ended; without one that is set, it must be as long as the task's limit, and ended by the clock. Where
    `obs`, `state` or `legal` has T rows, what followed is unknown: the last row is repeated, and is not learnt from.
    Raises ValueError naming the episode at fault.
    """
    columns: dict[str, list[np.ndarray]] = {}
    names: set[str] | None = None
    for k, episode in enumerate(episodes):
        rows = _rows(episode, f"{where}: episode {k}", task.limit)
        names = names or set(rows)
        if names != set(rows):
            raise ValueError(f"{where}: episode {k} has not the arrays of those before: {sorted(names ^ set(rows))}")
        for name, values in rows.items():
            columns.setdefault(name, []).append(values)
    if names is None:
        raise ValueError(f"{where}: there are no episodes")
    try:
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    except ValueError as error:
        raise ValueError(f"{where}: rows of different shapes ({error})") from error
    found = {name: array_column(where, name, values) for name, values in joined.items()}
    return Recording(where, len(joined["obs"]), found, "delimiter", whole=True)


def _rows(episode: Episode, where: str, limit: int) -> dict[str, np.ndarray]:
    """The columns of one episode, of T + 1 rows."""
    if strange := sorted(set(episode) - set(KNOWN)):
        raise ValueError(f"{where}: '{strange[0]}' is not known; an episode has {', '.join(KNOWN)}")
    found = {name: np.asarray(episode[name]) for name in KNOWN[:5] if episode.get(name) is not None}
    for name in ("obs", "actions", "rewards"):
        if name not in found or not found[name].ndim:
            raise ValueError(f"{where}: has no {name}")
    steps = len(found["actions"])
    if not steps:
        raise ValueError(f"{where}: has no actions")
    for name, values in found.items():
        if len(values) not in ((steps, steps + 1) if name in PER_ROW else (steps,)):
            wanted = steps + (name in PER_ROW)
            raise ValueError(f"{where}: {name} has {len(values)} rows for {steps} actions; give {wanted}")
        if len(values) == steps:  # a delimiter's action and reward mean nothing
            found[name] = np.concatenate([values, values[-1:]])
    flags = {name: any(bool(episode.get(key, False)) for key in keys) for name, keys in ENDS.items()}
    if not any(flags.values()):
        if steps < limit:
            raise ValueError(f"{where}: neither terminated nor truncated after {steps} of {limit} steps; say which")
        flags["timeouts"] = True
    return found | {name: np.append(np.zeros(steps, bool), flag) for name, flag in flags.items()}
