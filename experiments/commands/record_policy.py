"""Record what a policy of one's own choice does: random actions, or a method that was trained here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.env import Behaviour, View
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import Task, make_env
from offmarl.datasets.dataset import join
from offmarl.datasets.embedded.record import record
from offmarl.experiments.errors import UserError, check_name, refusing
from offmarl.experiments.grid.config import config_from
from offmarl.experiments.training.method import spec_of
from offmarl.reports.records import checksums as sums
from offmarl.reports.records.files import replacing

LANES = 64
SEED = 700_000_000  # apart from those of recordings and evaluations


class Played:
    """A trained method as a behaviour, for one wave of episodes."""

    def __init__(self, method: Algorithm):
        self.method, self.memory = method, None

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I] or [E,I,A] of E episodes."""
        legal = None if view.legal is None else torch.from_numpy(view.legal)[None]
        actions, self.memory = self.method.act(torch.from_numpy(view.obs)[None], legal, self.memory)
        return actions[0].numpy()


def record_policy(task: Task, policy: str, episodes: int, out: Path) -> dict[str, Any]:
    """Play episodes of a task and write them as one .npz in the canonical form; returns its statistics.

    Args:
        policy: `random`, or the folder of a run in a results store.

    Raises:
        UserError: when the run is not one of this task, or is damaged.
    """
    method = None if policy == "random" else load_run(Path(policy), task)
    env, parts = make_env(task, min(LANES, episodes)), []
    for start in range(0, episodes, env.lanes):
        behaviour: Behaviour = uniform(task) if method is None else Played(method)
        wave = record(env, [behaviour], min(env.lanes, episodes - start), 0.0, SEED + start)
        parts.append((wave, 1.0))
    env.close()
    data = join(parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as draft, draft.open("wb") as file:  # given a name, NumPy would add .npz to it
        np.savez(file, **data.arrays())  # type: ignore[arg-type]
    return data.statistics()


def load_run(folder: Path, task: Task) -> Algorithm:
    """The method that a finished run of the store holds.

    Raises:
        UserError: when there is none, or it was trained on another task.
    """
    with refusing(f"--policy {folder}: is not the folder of a finished run"):
        if sums.has_sums(folder) and (faults := sums.faults(folder)):
            raise ValueError(faults[0])
        record = json.loads((folder / "run.json").read_text())
        cell = record["cell"]
        if cell["task"] != task.name:
            raise UserError(f"--policy {folder}: was trained on {cell['task']}, not on {task.name}")
        kind = registry()[check_name("algorithm", cell["algorithm"], registry())]
        method = kind(spec_of(task), config_from(kind, record["config"]), [cell["seed"]], "cpu")
        method.load_nets(torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True))
    return method
