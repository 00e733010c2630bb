"""`offmarl run --log`: write training curves and evaluations to a logger, too.

They are written from the store when the grid has ended, so that a logger holds what the store holds, whenever it was
trained.
"""

import importlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.store.store import Store
from offmarl.reports.records.files import replacing
from offmarl.reports.records.schema import OWN

TENSORBOARD, PACKAGE = "tensorboard", "tensorboardX"


def check(name: str) -> None:
    """Refuse an unknown logger, and one whose package is missing, with the command that installs it."""
    check_name("logger of --log", name, [TENSORBOARD])
    try:
        importlib.import_module(PACKAGE)
    except ImportError as error:
        raise UserError(f"--log {name}: {PACKAGE} is missing; .venv/bin/pip install {PACKAGE}") from error


def write(results: Path, run_ids: Sequence[str]) -> None:
    """Write the finished ones of these runs to `<results>/tensorboard/<run id>`, where that is missing, or older."""
    from tensorboardX import SummaryWriter

    store = Store(results)
    for run_id in run_ids:
        record, folder, run = store.peek(run_id), store.root / TENSORBOARD / run_id, store.runs / run_id
        if not record or record["status"] != "done":
            continue
        if folder.exists() and folder.stat().st_mtime < run.stat().st_mtime:
            shutil.rmtree(folder)
        if not folder.exists():
            with replacing(folder) as draft, SummaryWriter(str(draft)) as writer:
                for step, name, value in scalars(record, run):
                    writer.add_scalar(name, value, step)


def scalars(record: dict[str, Any], folder: Path) -> Iterator[tuple[int, str, float]]:
    """Step, name and value of every training metric that is no NaN, and every evaluation's mean return and win rate."""
    for row in pd.read_parquet(folder / "curves.parquet").to_dict("records"):
        step = int(row.pop("step"))
        yield from ((step, f"training/{name}", float(value)) for name, value in row.items() if value == value)
    for evaluation in record["evaluations"]:
        what = "evaluation" if evaluation["play"] == OWN else f"evaluation_{evaluation['play']}"
        yield evaluation["step"], f"{what}/return", float(np.mean(evaluation["returns"]))
        if evaluation.get("won"):
            yield evaluation["step"], f"{what}/win_rate", float(np.mean(evaluation["won"]))
