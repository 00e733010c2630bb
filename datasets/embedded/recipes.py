"""The embedded datasets: recorded on first use from committed behaviours, cached, and checked at every load.

A cached dataset is two files, `<task>-<quality>-<key>.npz` and `.json`: the arrays, and the card with their SHA-256.
The key is made of all that decides the content (recipe, behaviours, simulator), so a new version records anew.
"""

import dataclasses
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from offmarl.benchmarks.env import Behaviour, cache_dir
from offmarl.benchmarks.fingerprint import fingerprint
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import Task, make_env, tasks
from offmarl.datasets.dataset import Dataset, file_sum, join, read
from offmarl.datasets.embedded import actors as behaviours
from offmarl.datasets.embedded.controllers import controller
from offmarl.datasets.embedded.mujoco_policies import Pilot
from offmarl.datasets.embedded.record import record
from offmarl.datasets.embedded.tactics import Tactic

LANES = 64  # episodes recorded at once; quick evaluations use as many, so a simulator compiles once for both
SCRIPTED = {"smac": Tactic, "mpe": controller}  # what a recipe's entry is made into, by family
TRAINED = {"smax": behaviours.Actor, "mujoco": Pilot}  # what committed weights are made into, by simulator
FORMAT = 2
COMMON = ("episodes", "epsilon", "lanes", "training")  # of all qualities of a task


@dataclass(frozen=True)
class Recipe:
    """How one dataset is made. `target` is the real dataset's mean return and its standard deviation."""

    task: Task
    quality: str
    episodes: int
    epsilon: float
    target: tuple[float, float]
    behaviours: Any = None  # "trained", or keyword arguments of scripted ones
    training: dict[str, Any] | None = None  # the budget behind trained ones
    lanes: int = LANES
    mix: dict[str, float] | None = None  # instead of behaviours: shares of the task's other datasets

    def team(self) -> list[Behaviour]:
        """The policies to record."""
        if self.behaviours == "trained":
            return behaviours.load(self.task, self.quality, TRAINED[self.task.engine])
        return [SCRIPTED[self.task.family](self.task, **settings) for settings in self.behaviours]

    def make(self, progress: Callable[[int], object]) -> Dataset:
        """Record the dataset, or join it from others."""
        if self.mix:
            parts = [(catalogue()[self.task.name, q].load()[0], share) for q, share in self.mix.items()]
            progress(self.episodes)
            return join(parts)
        env = make_env(self.task, self.lanes)
        return record(env, self.team(), self.episodes, self.epsilon, self.seed(), progress)

    def key(self) -> str:
        """Eight hex digits of what decides the content; FORMAT stands for the code."""
        facts = [FORMAT, self.lanes, self.episodes, self.epsilon, self.behaviours, self.task.roster, self.task.limit]
        facts += [dataclasses.astuple(UNITS[name]) for name in sorted(UNITS) if name in json.dumps(self.task.roster)]
        facts += [self.mix, *(catalogue()[self.task.name, quality].key() for quality in self.mix or ())]
        digest = hashlib.sha256(json.dumps([*facts, self.seed()], sort_keys=True).encode())
        digest.update(json.dumps(fingerprint(self.task), sort_keys=True).encode())
        if self.behaviours == "trained":
            digest.update(behaviours.path(self.task).read_bytes())
        return digest.hexdigest()[:8]

    def seed(self) -> int:
        """Seed of the recording, different for every dataset."""
        return int(hashlib.sha256(f"{self.task.name}:{self.quality}".encode()).hexdigest()[:7], 16)

    def place(self) -> Path:
        """The cached arrays; the card lies beside them."""
        name = f"{self.task.name.replace('/', '-')}-{self.quality}-{self.key()}.npz"
        return cache_dir() / "data" / name

    @property
    def work(self) -> int:
        """Episodes to record."""
        return self.episodes

    def disk(self) -> int:
        """An upper bound in bytes: episodes that last half their limit."""
        task = self.task
        row = 4 * (task.agents * task.obs + task.state) + task.agents * (task.actions + 12)
        return self.episodes * task.limit // 2 * row

    def absent(self) -> str:
        """Nothing ever is: all that it takes is part of offmarl."""
        return ""

    def missing(self) -> str:
        """Nothing ever is."""
        return ""

    def changed(self) -> list[str]:
        """Nothing is downloaded."""
        return []

    def state(self) -> str:
        """How it will come about."""
        return "joined on first use" if self.mix else "recorded on first use"

    def load(self, progress: Callable[[int], object] = lambda _: None) -> tuple[Dataset, dict[str, Any]]:
        """The dataset and its card; recorded now if the cache has none, or a damaged one (which is said)."""
        card = self.ready()
        if card is None:
            data = self.make(progress)
            return data, _store(self, self.place(), data)
        return read(self.place(), self.task), card

    def card(self) -> dict[str, Any] | None:
        """The card of the cached dataset, whose arrays are not looked at; None where there is none."""
        try:
            card = json.loads(self.place().with_suffix(".json").read_text())
        except (OSError, ValueError):
            return None
        return card if isinstance(card, dict) and "return_mean" in card else None

    def ready(self) -> dict[str, Any] | None:
        """The card of an intact cached dataset; None when it must be recorded."""
        file = self.place()
        try:
            card = json.loads(file.with_suffix(".json").read_text())
            intact = file_sum(file) == card["sha256"]
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            intact, card = False, None
        if not intact:
            print(f"{file}: does not match its SHA-256, the file is damaged; recording it anew", file=sys.stderr)
            return None
        return card


@cache
def catalogue() -> dict[tuple[str, str], Recipe]:
    """Every embedded dataset by task and quality."""
    entries = yaml.safe_load(resources.files("offmarl.datasets.embedded").joinpath("recipes.yaml").read_text())
    epsilon = entries.pop("epsilon")
    found = {}
    for name, entry in entries.items():
        common = {"epsilon": epsilon} | {key: entry.pop(key) for key in COMMON if key in entry}
        for quality, how in entry.items():
            facts = common | how | {"target": tuple(how["target"])}
            found[name, quality] = Recipe(tasks()[name], quality, **facts)
    return found


def _store(recipe: Recipe, file: Path, data: Dataset) -> dict[str, Any]:
    """Write arrays, then the card that makes them valid; both appear whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{uuid.uuid4().hex}.npz")
    np.savez(draft, **data.arrays())  # type: ignore[arg-type]
    sha256 = file_sum(draft)
    card = {
        "dataset": f"{recipe.task.name}:{recipe.quality}",
        "source": "embedded",
        "sha256": sha256,
        **data.statistics(),
        "published_mean": recipe.target[0],
        "published_std": recipe.target[1],
        "epsilon": recipe.epsilon,
        "behaviours": recipe.mix or recipe.behaviours,
        "engine": fingerprint(recipe.task),
        "note": recipe.task.note,
    }
    os.replace(draft, file)
    text = file.with_name(f".{uuid.uuid4().hex}.json")
    text.write_text(json.dumps(card, indent=1))
    os.replace(text, file.with_suffix(".json"))
    return card
