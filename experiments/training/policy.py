"""Stored policies: load one, and let it play."""

from pathlib import Path

import numpy as np
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.env import View
from offmarl.benchmarks.rollout import agent_rewards
from offmarl.benchmarks.tasks import Task
from offmarl.experiments.errors import UserError, check_name, refusing
from offmarl.experiments.grid.config import config_from
from offmarl.experiments.store.reading import read_folder
from offmarl.experiments.training.method import spec_of
from offmarl.reports.records.schema import plays_of


class Player:
    """A trained method as a behaviour, for one set of parallel episodes: it keeps the method's memory."""

    def __init__(self, method: Algorithm):
        self.method, self.memory = method, None

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I] or [E,I,A] of E episodes."""
        legal = None if view.legal is None else torch.from_numpy(view.legal)[None]
        self.obs = torch.from_numpy(view.obs)[None]
        actions, self.memory = self.method.act(self.obs, legal, self.memory)
        return actions[0].numpy()

    def rewarded(self, reward: np.ndarray) -> None:
        """Take the rewards of the last actions: the team's [E], or each agent's [E,I]."""
        self.memory = self.method.rewarded(self.memory, agent_rewards(reward, self.obs))


def load_policy(folder: Path, task: Task) -> Algorithm:
    """The trained method of a finished run, on the CPU.

    Raises:
        UserError: when the folder holds none, is damaged, or the run was trained on another task.
    """
    with refusing(f"--policy {folder}: is not the folder of a finished run"):
        record = read_folder(folder)
        cell = record["cell"]
        if cell["task"] != task.name:
            raise UserError(f"--policy {folder}: was trained on {cell['task']}, not on {task.name}")
        kind = registry()[check_name("algorithm", cell["algorithm"], registry())]
        method = kind(spec_of(task), config_from(kind, record["config"]), [cell["seed"]], "cpu")
        method.play = plays_of(record["protocol"])[0]
        method.load_nets(torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True))
    return method
