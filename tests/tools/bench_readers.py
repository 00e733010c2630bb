"""How fast public layouts become canonical arrays here.

    .venv/bin/python tests/tools/bench_readers.py --rows 200000

Synthetic recordings of real tasks' shapes are written in each layout and converted, every one in a process of its own,
so that the memory it took at most can be told. Converting is the whole way: reading, checking, cutting into episodes,
writing and summing; loading is what every later start does: summing the arrays and mapping them.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import tensorstore
from tqdm import tqdm

from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.dataset import file_sum, read_folder
from offmarl.datasets.public.convert import convert
from offmarl.datasets.public.layouts import HDF5, VAULT, open_hdf5, open_npy, open_vault

HEAD = f"{'layout':8} {'task':22} {'rows':>9} {'MB':>7} {'on disk':>8} {'convert':>10} {'load':>10} {'memory':>9}"
FOOT = "MB of numbers as they lie in memory, per second of wall-clock time; memory: the most that the process held."
EPISODE = 25  # rows, and actions


def bench_data(rows: int) -> str:
    """A table: for every layout, megabytes a second of converting and of loading `rows` rows, and the peak memory."""
    lines = [HEAD]
    for layout in tqdm(LAYOUTS, desc="measuring", unit="layout", leave=False):
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool,
        ):
            pool.submit(_write, layout, rows, Path(folder)).result()
            lines.append(pool.submit(_measure, layout, rows, Path(folder)).result())
    return "\n".join([*lines, FOOT])


def synthetic(task: Task, rows: int) -> dict[str, np.ndarray]:
    """Numbers of three digits, which compress as observations do, in episodes of EPISODE rows."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(-999, 1000, (rows, *shape)).astype(np.float32) / 1000

    actions = rng.integers(task.actions, size=(rows, task.agents)) if task.discrete else None
    columns = {
        "obs": numbers(task.agents, task.obs),
        "state": numbers(task.state),
        "actions": numbers(task.agents, task.actions) if actions is None else actions.astype(np.int32),
        "rewards": numbers(task.agents),
        "ends": np.zeros((rows, task.agents), np.float32),
    }
    columns["ends"][EPISODE - 1 :: EPISODE] = 1
    if task.discrete:
        columns["legal"] = np.ones((rows, task.agents, task.actions), np.float32)
    return columns


def write_vault(folder: Path, columns: dict[str, np.ndarray]) -> None:
    """The columns as flashbax lays them out, by way of tensorstore."""
    folder.mkdir(parents=True)
    shapes: dict = {}
    for name, values in columns.items():
        *nest, leaf = VAULT[name].split(".")
        (shapes.setdefault(nest[0], {}) if nest else shapes)[leaf] = str((1, *values.shape))
        _zarr(folder, VAULT[name] + ".", values[None], min(len(values), 2**22 // values[0].nbytes))
    _zarr(folder, "vault_index", np.array([len(columns["obs"])], np.int32), 1)
    (folder / "metadata.json").write_text(json.dumps({"version": 1.2, "structure_shape": shapes}))


def _zarr(folder: Path, key: str, values: np.ndarray, chunk: int) -> None:
    chunks = [1, chunk, *values.shape[2:]] if values.ndim > 1 else [chunk]
    place = {"driver": "ocdbt", "base": f"file://{folder}/", "path": key}
    facts = {"shape": list(values.shape), "chunks": chunks, "dtype": values.dtype.str}
    spec = {"driver": "zarr", "kvstore": place, "metadata": facts | {"compressor": {"id": "gzip", "level": 5}}}
    tensorstore.open(spec, create=True).result().write(values).result()


def write_hdf5(file: Path, columns: dict[str, np.ndarray]) -> None:
    """The columns as OMIGA has them, without compression."""
    with h5py.File(file, "w") as out:
        for name, values in columns.items():
            out[HDF5[name]] = values[:, :1] if name in ("rewards", "ends") else values


def write_npy(folder: Path, columns: dict[str, np.ndarray]) -> None:
    """The columns as OMAR has them, all in one seed's folder."""
    seed = folder / "seed_0_data"
    seed.mkdir(parents=True)
    parts = {"obs": "obs", "next_obs": "obs", "acs": "actions", "rews": "rewards", "dones": "ends"}
    for name, column in parts.items():
        for i in range(columns["obs"].shape[1]):
            np.save(seed / f"{name}_{i}.npy", columns[column][:, i])


# How a layout is written and opened, the task whose shapes it has, and its convention of ends.
LAYOUTS: dict[str, tuple[Callable, Callable, str, str]] = {
    "vault": (write_vault, lambda path, task: open_vault(path), "smac/2s3z", "last"),
    "hdf5": (write_hdf5, lambda path, task: open_hdf5(path), "mamujoco/6halfcheetah", "delimiter"),
    "npy": (write_npy, lambda path, task: open_npy(path, task.agents), "mpe/spread", "limit"),
}


def _write(layout: str, rows: int, folder: Path) -> None:
    write, _, name, _ = LAYOUTS[layout]
    write(folder / "source", synthetic(tasks()[name], rows))


def _measure(layout: str, rows: int, folder: Path) -> str:
    """One line of the table."""
    _, opened, name, ends = LAYOUTS[layout]
    source, task = folder / "source", tasks()[name]
    disk = sum(f.stat().st_size for f in [source, *source.rglob("*")] if f.is_file())
    began = time.perf_counter()
    recordings = [(one, 1.0) for one in opened(source, task)]
    card = convert(recordings, task, ends, folder / "arrays", {})  # type: ignore[arg-type]
    converted = time.perf_counter() - began
    size = sum(array.nbytes for array in read_folder(folder / "arrays").arrays().values()) / 1e6
    began = time.perf_counter()
    assert all(file_sum(folder / "arrays" / f"{name}.npy") == sum_ for name, sum_ in card["arrays"].items())
    loaded = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return (
        f"{layout:8} {name:22} {rows:9,} {size:7.0f} {disk / 1e6:5.0f} MB {size / converted:5.0f} MB/s "
        f"{size / loaded:5.0f} MB/s {peak:6.0f} MB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Megabytes a second of reading the public layouts.")
    parser.add_argument("--rows", type=int, default=200_000, help="of each synthetic recording (default: 200000)")
    print(bench_data(parser.parse_args().rows))
