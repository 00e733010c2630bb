"""The user's files, opened as recordings whatever their layout and the names of their arrays.

    npz, hdf5       arrays on one time axis, in one file, under the names of `NAMES` or those that a key map gives
    Minari          `data/main_data.hdf5`: a group `episode_<k>` for each, agents side by side or as a Dict by agent
    vault, npy      as in `datasets/public/layouts.py`

Source of Minari's layout: minari 0.5.4 (dataset/_storages/hdf5_storage.py). Its environment's name is not looked up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.damaged import refuse_damaged
from offmarl.datasets.dataset import FORM
from offmarl.datasets.imported.episodes import Episode, recording_of
from offmarl.datasets.public.layouts import Recording, array_column, one_length, open_npy, open_vault

NAMES = {  # of a column here, and in files; the first that is there is read
    "obs": ("obs", "observations", "o"),
    "state": ("state", "states", "s", "infos/state", "infos.state"),
    "legal": ("legal", "legals", "action_mask", "infos/legals", "infos.legals"),
    "actions": ("actions", "a"),
    "rewards": ("rewards", "r"),
    "ends": ("terminals", "terminations", "terminated", "dones", "d"),
    "timeouts": ("truncations", "truncated", "timeouts"),
    "next_obs": ("next_obs", "next_observations"),
    "next_state": ("next_state", "next_states"),
    "next_legal": ("next_legal", "next_legals"),
}
NEEDED = ("obs", "actions", "rewards")
MINARI = "main_data.hdf5"


def is_canonical(path: Path) -> bool:
    """Whether a file is an .npz of the canonical form. A damaged one is none."""
    with suppress(Exception), np.load(path, allow_pickle=False) as file:
        return path.suffix == ".npz" and {"rows", "episode", "behaviour"} <= set(file.files) <= set(FORM)
    return False


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files and folders of a layout behind some paths: a folder of files stands for these.

    Raises ValueError for one that is not there, or has nothing to read.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
        inside = [path] if path.is_file() or _opener(path) else sorted(file for file in path.iterdir() if _opener(file))
        if not inside or not _opener(inside[0]):
            raise ValueError(f"{path}: is no .npz, .hdf5, Minari dataset or vault, and no folder of them")
        found += inside
    return found


def open_files(path: Path, task: Task, keys: Mapping[str, str]) -> list[Recording]:
    """The recordings of a file, or of the folder of a layout; `keys` has the file's names of columns.

    Raises ValueError when it is damaged, or an array is missing, and says which there are.
    """
    opener = _opener(path)
    assert opener is not None
    return opener(path, task, keys)


def _opener(path: Path) -> Callable[[Path, Task, Mapping[str, str]], list[Recording]] | None:
    """What opens a path; None where nothing does."""
    if path.suffix == ".npz":
        return _npz
    if path.name == MINARI or _minari_file(path):
        return _minari
    if path.suffix in (".h5", ".hdf5"):
        return _hdf5
    if (path / "metadata.json").exists() and any(path.glob("manifest.*")):
        return lambda path, task, keys: _unmapped(path, keys) or open_vault(path)
    if any(path.glob("seed_*_data")):
        return lambda path, task, keys: _unmapped(path, keys) or open_npy(path, task.agents)
    return None


def _unmapped(path: Path, keys: Mapping[str, str]) -> None:
    if keys:
        raise ValueError(f"{path}: names of arrays are fixed in this layout; leave out --keys")


def _npz(path: Path, task: Task, keys: Mapping[str, str]) -> list[Recording]:
    damage = "is not a complete .npz of plain arrays"
    with refuse_damaged(path, damage), np.load(path, allow_pickle=False) as file:
        present = file.files
    names = _names(path, present, keys)
    with refuse_damaged(path, damage), np.load(path, allow_pickle=False) as file:
        found = {name: file[key] for name, key in names.items()}
    return [_flat(path, names, found)]


def _hdf5(path: Path, task: Task, keys: Mapping[str, str]) -> list[Recording]:
    with refuse_damaged(path, "is not a complete HDF5 file"):
        file, present = h5py.File(path, "r"), []
        file.visititems(lambda key, item: present.append(str(key)) if isinstance(item, h5py.Dataset) else None)
    names = _names(path, present, keys)
    return [_flat(path, names, {name: file[key] for name, key in names.items()})]


def _names(path: Path, present: Sequence[str], keys: Mapping[str, str]) -> dict[str, str]:
    """The file's name of every column that it has. Raises ValueError for what is missing or ambiguous."""
    there = ", ".join(sorted(present)) or "nothing"
    for name, key in keys.items():
        if key not in present:
            raise ValueError(f"{path}: has no '{key}' ({name}); it has {there}")
    free = [key for key in present if key not in keys.values()]
    usual = {name: key for name, known in NAMES.items() for key in known[::-1] if key in free}
    found = usual | dict(keys)
    for name in NEEDED:
        if name not in found:
            raise ValueError(f"{path}: has no {name} under a usual name; it has {there}: write --keys {name}=…")
    return found


def _flat(path: Path, names: Mapping[str, str], found: Mapping[str, Any]) -> Recording:
    """Arrays on one time axis."""
    for name, array in found.items():
        if not array.shape:
            raise ValueError(f"{path}: {names[name]} holds one value, not rows")
    length = one_length(path, {names[name]: len(array) for name, array in found.items()})
    return Recording(str(path), length, {name: array_column(path, names[name], array) for name, array in found.items()})


def _minari_file(path: Path) -> Path | None:
    """The file of a Minari dataset's folder, or of the folder `data` in it."""
    return next((file for file in (path / MINARI, path / "data" / MINARI) if file.is_file()), None)


def _minari(path: Path, task: Task, keys: Mapping[str, str]) -> list[Recording]:
    _unmapped(path, keys)
    file = _minari_file(path) or path
    with refuse_damaged(file, "is not a complete HDF5 file of Minari"):
        groups = h5py.File(file, "r")
        numbers = sorted(int(str(name).removeprefix("episode_")) for name in groups)
    return [recording_of(_minari_episodes(file, groups, numbers, task), task, str(path))]


def _minari_episodes(path: Path, file: Any, numbers: Sequence[int], task: Task) -> Iterator[Episode]:
    """Minari says nothing of several agents: rewards may be of the team, of each in `rewards`, or in `infos`."""
    for k in numbers:
        with refuse_damaged(path, f"episode_{k}: cannot be read"):
            part = file[f"episode_{k}"]
            infos = part.get("infos", {})
            seen = {"obs": part["observations"], "actions": part["actions"]}
            seen |= {name: infos[name] for name in ("state", "legal") if name in infos}
            seen["rewards"] = infos.get("rewards", part["rewards"])
            flags = {name: bool(part[f"{name[:-2]}ions"][-1]) for name in ("terminated", "truncated")}
            one = {name: _agents(values, task) for name, values in seen.items()} | flags
        yield one


def _agents(group: Any, task: Task) -> np.ndarray:
    """An array as it is, or a group of one for each agent side by side, padded with zeros: [T, I, ...]."""
    if isinstance(group, h5py.Dataset):
        return np.asarray(group)
    parts = [np.asarray(group[name]) for name in _in_order(list(group), list(task.roster.get("agents", ())))]
    width = max(part.shape[1] if part.ndim > 1 else 0 for part in parts)
    return np.stack([np.pad(part, ((0, 0), (0, width - part.shape[1]))) if width else part for part in parts], 1)


def _in_order(names: list[str], agents: list[str]) -> list[str]:
    """As the task has its agents; else, where all names end in one, by number: agent_2 goes before agent_10."""
    if set(names) <= set(agents):
        return sorted(names, key=agents.index)
    stems = {name: name.rstrip("0123456789") for name in names}
    if any(stem == name for name, stem in stems.items()):
        return names
    return sorted(names, key=lambda name: (stems[name], int(name.removeprefix(stems[name]))))
