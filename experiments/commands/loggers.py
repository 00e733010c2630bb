"""Optional places that training curves and evaluations go to as well: `run --log tensorboard`.

They are written from the store when a grid has ended, so that they hold what it holds, whenever that was trained.
Parquet and JSON in the store stay the truth.
"""

import importlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.store.store import Store

PACKAGES = {"tensorboard": "tensorboardX"}


def check(name: str) -> str:
    """The sink, if its package is here.

    Raises:
        UserError: with the command that installs it.
    """
    package = PACKAGES[check_name("sink of --log", name, PACKAGES)]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"--log {name}: needs {package}; install it: .venv/bin/pip install {package}") from error
    return name


def write(name: str, results: Path, run_ids: Sequence[str]) -> Path:
    """Write the finished ones of these runs to a sink; returns where under the results directory."""
    store, folder = Store(results), results / name
    for run_id in run_ids:
        record = store.peek(run_id)
        if record and record["status"] == "done" and not (folder / run_id).exists():
            draft = f".{run_id}.{uuid.uuid4().hex[:8]}"
            SINKS[name](folder, draft, record, list(scalars(record, store.runs / run_id)))
            os.replace(folder / draft, folder / run_id)
    return folder


def scalars(record: dict[str, Any], folder: Path) -> Iterator[tuple[int, str, float]]:
    """Step, name and value of every training metric and every evaluation's mean return and win rate."""
    for row in pd.read_parquet(folder / "curves.parquet").to_dict("records"):
        step = int(row.pop("step"))
        yield from ((step, f"training/{metric}", float(value)) for metric, value in row.items())
    for look in record["evaluations"]:
        yield look["step"], "evaluation/return", float(np.mean(look["returns"]))
        if look.get("won"):
            yield look["step"], "evaluation/win_rate", float(np.mean(look["won"]))


def _tensorboard(folder: Path, run_id: str, record: dict[str, Any], found: list[tuple[int, str, float]]) -> None:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder / run_id)) as writer:
        for step, name, value in found:
            writer.add_scalar(name, value, step)


SINKS = {"tensorboard": _tensorboard}
