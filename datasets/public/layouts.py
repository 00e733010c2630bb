"""The layouts in which others publish offline multi-agent data, each opened as `Recording`s.

    vault   <map>.vlt/<quality>/   flashbax's Vault, as OG-MARL publishes it: zarr arrays in one OCDBT database
    hdf5    <robot>-<division>-<quality>.hdf5   OMIGA's: s, o, a, r, d
    npy     seed_<k>_data/{obs,acs,rews,next_obs,dones}_<i>.npy   OMAR's: a file for every agent i, the prey among them

A recording is a set of columns on one time axis, read in slices, so that no file is loaded completely. `convert`
decides where episodes end. Rows are as in the file; the shape of a row is without the time axis.

Source: flashbax 0.1.3 (vault.py); OMIGA's datasets/offline_dataset.py; OMAR's utils/buffer.py.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore

from offmarl.datasets.damaged import refuse_damaged

# The names of columns here, and in the file.
VAULT = {
    "obs": "observations",
    "state": "infos.state",
    "legal": "infos.legals",
    "actions": "actions",
    "rewards": "rewards",
    "ends": "terminals",
    "timeouts": "truncations",
}
HDF5 = {"obs": "o", "state": "s", "actions": "a", "rewards": "r", "ends": "d"}
NPY = {"obs": "obs", "actions": "acs", "rewards": "rews", "ends": "dones", "next_obs": "next_obs"}
OPTIONAL = ("state", "legal", "timeouts", "next_obs")
READ = {  # paths in a folder that belong to its layout: a copy, or what a file manager leaves there, does not
    "vault": r"metadata\.json|manifest\.(ocdbt|[0-9a-f]{16})|(.+/)?d/[0-9a-f]{32}|ocdbt\.process_[^/]+/.*",
    "npy": rf"seed_\d+_data/({'|'.join(NPY.values())}|states)_\d+\.npy",
}


@dataclass(frozen=True)
class Column:
    """One array of a file. `key` is its name there, `shape` that of a row, `kind` numpy's letter of its type."""

    key: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[int, int], np.ndarray]  # rows lo to hi: [hi - lo, *shape]


@dataclass(frozen=True)
class Recording:
    """Columns of `length` rows each; `where` names the file in messages."""

    where: str
    length: int
    columns: dict[str, Column]
    ends: str = "detect"  # the convention of its ends, where the layout has one
    whole: bool = False  # its flags are all the ends there are; else its states show where it broke off


def open_vault(path: Path) -> list[Recording]:
    """A vault's recordings, one for every entry of its leading axis (OMAR's five seeds).

    Raises ValueError when a file or a key of the vault is missing or damaged, naming it.
    """
    import pandas as pd  # here: `doctor` lists files without it

    # A small cache of chunks: neighbouring slices share one, which should not be decompressed twice.
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 2**28}})
    with refuse_damaged(path, "is not a complete vault"):
        keys = set(pd.json_normalize(json.loads((path / "metadata.json").read_bytes())["structure_shape"]))
        steps = int(_store(path, "vault_index", context).read().result()[0])
    stores = {name: _vault_store(path, key, context) for name, key in VAULT.items() if key in keys}
    ends = {"ends"} & stores.keys() or {"timeouts"} & stores.keys()  # a vault may mark them by one or both
    _check_keys(path, VAULT, stores.keys() | ({"ends"} if ends else set()), keys)
    if len(counts := {store.shape[0] for store in stores.values()}) > 1 or 0 in counts:
        raise ValueError(f"{path}: its arrays have leading axes of {sorted(counts)} entries")
    return [
        Recording(f"{path}", steps, {name: array_column(path, VAULT[name], stores[name][b]) for name in stores})
        for b in range(stores["obs"].shape[0])
    ]


def open_hdf5(path: Path) -> list[Recording]:
    """OMIGA's file: o and s [N,I,O], a [N,I,A], r [N] or [N,1], d [N,...].

    Raises ValueError when the file is damaged, a key is missing, or lengths differ.
    """
    with refuse_damaged(path, "is not a complete HDF5 file"):
        file = h5py.File(path, "r")
        found: dict[str, Any] = {n: file[key] for n, key in HDF5.items() if isinstance(file.get(key), h5py.Dataset)}
        present = [str(key) for key in file]  # h5py returns bytes for a damaged name
        columns = {name: array_column(path, HDF5[name], found[name]) for name in found}
        lengths = {HDF5[name]: len(array) for name, array in found.items()}
    _check_keys(path, HDF5, found, present)
    return [Recording(str(path), one_length(path, lengths), columns)]


def open_npy(path: Path, agents: int) -> list[Recording]:
    """OMAR's folder of one quality: a recording for every seed_<k>_data in it, of the first `agents` agents.

    The others (the prey) are not read. States are those of agent 0 (`states_0`), or all observations together.
    Raises ValueError when a file is missing or damaged, or lengths differ.
    """
    folders = sorted(folder for folder in path.glob("seed_*_data") if re.fullmatch(r"seed_\d+_data", folder.name))
    if not folders:
        raise ValueError(f"{path}: has no folder seed_<k>_data")
    return [_npy_seed(folder, agents) for folder in folders]


def _npy_seed(folder: Path, agents: int) -> Recording:
    parts = {name: [_npy_file(folder, f"{stem}_{i}.npy") for i in range(agents)] for name, stem in NPY.items()}
    lengths = {f"{NPY[name]}_{i}.npy": len(part) for name, own in parts.items() for i, part in enumerate(own)}
    columns = {name: _stacked(folder, f"{NPY[name]}_<i>.npy", own, 1) for name, own in parts.items()}
    if (folder / "states_0.npy").exists():
        states = _npy_file(folder, "states_0.npy")
        lengths["states_0.npy"] = len(states)
        columns["state"] = array_column(folder, "states_0.npy", states)
    else:
        columns["state"] = _stacked(folder, "obs_<i>.npy", parts["obs"], -1)
    return Recording(str(folder), one_length(folder, lengths), columns)


def _npy_file(folder: Path, name: str) -> np.ndarray:
    if not (folder / name).exists():
        raise ValueError(f"{folder}: {name} is missing")
    with refuse_damaged(folder / name, "is not a complete .npy of plain numbers"):
        values = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    if values.ndim == 0:
        raise ValueError(f"{folder / name}: holds one number, not rows")
    return values


def _stacked(folder: Path, key: str, parts: list[np.ndarray], axis: int) -> Column:
    """The agents' arrays as one column, side by side (axis 1) or joined (axis -1)."""
    rows, kinds = {part.shape[1:] for part in parts}, {part.dtype.kind for part in parts}
    for what, found in (("rows of different shapes", rows), ("values of different types", kinds)):
        if len(found) > 1:
            raise ValueError(f"{folder}: {key} have {what}: {sorted(found)}")
    join: Any = np.stack if axis == 1 else np.concatenate
    shape = join([np.empty((0, *part.shape[1:])) for part in parts], axis).shape[1:]
    return Column(key, shape, kinds.pop(), lambda lo, hi: join([np.array(part[lo:hi]) for part in parts], axis))


def array_column(path: Path | str, key: str, array: Any) -> Column:
    """A column of an array or of a lazy view of one, whose slices are read when they become an array."""

    def read(lo: int, hi: int) -> np.ndarray:
        with refuse_damaged(path, f"{key}, rows {lo} to {hi}: cannot be read"):
            return np.asarray(array[lo:hi])

    kind = getattr(array.dtype, "numpy_dtype", array.dtype).kind
    return Column(key, tuple(array.shape[1:]), kind, read)


def _vault_store(path: Path, key: str, context: tensorstore.Context) -> Any:
    with refuse_damaged(path, f"{key} cannot be opened"):
        store = _store(path, key + ".", context)  # flashbax's names of arrays end in a dot
    if len(store.shape) < 2:
        raise ValueError(f"{path}: {key} has shape {tuple(store.shape)}, without a leading and a time axis")
    return store


def _store(path: Path, key: str, context: tensorstore.Context) -> Any:
    base = f"file://{path.resolve()}/"  # the database refuses relative paths
    place = {"driver": "ocdbt", "base": base, "path": key}
    spec = {"driver": "zarr", "kvstore": place, "fill_missing_data_reads": False}  # else a missing chunk reads as zeros
    return tensorstore.open(spec, read=True, context=context).result()


def files_read(path: Path) -> list[Path]:
    """The files behind a dataset, a file or a folder of any layout, in order."""
    if path.is_file():
        return [path]
    belongs = re.compile(READ["vault" if (path / "metadata.json").exists() else "npy"])
    found = (file for file in path.rglob("*") if belongs.fullmatch(file.relative_to(path).as_posix()))
    return sorted(file for file in found if file.is_file())


def _check_keys(path: Path, names: Mapping[str, str], found: Iterable[str], present: Iterable[str]) -> None:
    for name, key in names.items():
        if name not in OPTIONAL and name not in found:
            raise ValueError(f"{path}: key '{key}' is missing; it has {', '.join(sorted(present)) or 'none'}")


def one_length(path: Path, lengths: Mapping[str, int]) -> int:
    """The one length of columns, by their keys in the file. Raises ValueError where they differ."""
    first, length = next(iter(lengths.items()))
    for key, other in lengths.items():
        if other != length:
            raise ValueError(f"{path}: {key} has {other} rows, but {first} has {length}")
    return length
