"""The embedded datasets and the tuning datasets: recorded on first use from committed behaviours, kept in the cache.

A cached dataset is two files, `<task>-<quality>-<key>.npz` and `.json`: the arrays, and the card with their SHA-256.
The key covers all that decides the content: recipe, behaviours, simulator.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from offmarl.benchmarks.env import Behaviour
from offmarl.benchmarks.fingerprint import fingerprint
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import UserTask, make_env, tasks, unavailable
from offmarl.benchmarks.yaml_files import Pair, Strict, known_name, packaged
from offmarl.datasets import Quality
from offmarl.datasets.cache import Entry, Progress, no_progress, write
from offmarl.datasets.dataset import Dataset, join
from offmarl.datasets.embedded import actors as behaviours
from offmarl.datasets.embedded.controllers import controller
from offmarl.datasets.embedded.foraging import Foragers
from offmarl.datasets.embedded.mujoco_policies import Pilot
from offmarl.datasets.embedded.record import record
from offmarl.datasets.embedded.tactics import Tactic
from offmarl.datasets.embedded.warehouse import Robots

LANES = 64  # episodes recorded at once; quick evaluations use as many, so a simulator compiles once for both
SCRIPTED = {
    "smac": Tactic,
    "mpe": controller,
    "lbf": Foragers,
    "rware": Robots,
}  # makes behaviours from a recipe's entry, by family
TRAINED = {"smax": behaviours.Actor, "mujoco": Pilot}  # makes behaviours from committed weights, by simulator
FORMAT = 2
RANDOM = 8  # episodes of random play, of tasks that no paper gives a scale
FILES = {"embedded": "recipes.yaml", "tuning": "tuning.yaml"}  # by source


class Training(Strict):
    """The budget behind trained behaviours: runs, each of so many environment steps, or up to a target return."""

    runs: int
    steps: int
    target: float = math.inf
    seed: int = 0  # of the first run
    noise: float = 0.0  # standard deviation of the noise on continuous actions, in training as in recording


class Team(Strict):
    """Where the episodes of a dataset come from: trained or scripted behaviours, or a mix of other datasets."""

    target: Pair | None = None
    episodes: int | None = None  # instead of the task's
    behaviours: Literal["trained"] | list[dict[str, Any]] | None = None
    mix: dict[Quality, float] | None = None


class TaskRecipes(Strict):
    """The recipes of one task, as in recipes.yaml."""

    episodes: int
    epsilon: float
    lanes: int = LANES
    seed: int = 0  # of the first training; added to the seeds of recordings
    training: Training | None = None
    datasets: dict[Quality, Team]


@dataclass(frozen=True)
class Recipe(Entry):
    """How one dataset is made; `target` is the return of the real dataset that it imitates, if there is one."""

    episodes: int
    epsilon: float
    behaviours: Any  # "trained", or keyword arguments of scripted ones; None for a mix
    training: Training | None  # of trained ones
    lanes: int
    source: str
    first_seed: int

    def team(self) -> list[Behaviour]:
        """The policies to record."""
        if self.behaviours == "trained":
            kind = partial(TRAINED[self.task.engine], **self.noise())
            return behaviours.load(self.weights(), self.quality, kind)
        return [SCRIPTED[self.task.family](self.task, **settings) for settings in self.behaviours]

    def weights(self) -> Path:
        """The committed file of its trained behaviours."""
        return behaviours.path(self.task, self.source)

    def noise(self) -> dict[str, float]:
        """The noise on continuous actions that its behaviours were trained with; empty where there is none."""
        return {"noise": self.training.noise} if self.training and self.training.noise else {}

    def key(self) -> str:
        """Eight hex digits of what decides the content; FORMAT is the version of the code."""
        facts = [FORMAT, self.lanes, self.episodes, self.epsilon, self.behaviours, self.task.roster, self.task.limit]
        facts += [dataclasses.astuple(UNITS[name]) for name in sorted(UNITS) if name in json.dumps(self.task.roster)]
        facts += [self.task.code] if isinstance(self.task, UserTask) else []
        facts += [self.mix, *(self.sibling(quality).key() for quality in self.mix or ())]
        digest = hashlib.sha256(json.dumps([*facts, self.seed()], sort_keys=True).encode())
        digest.update(json.dumps(fingerprint(self.task), sort_keys=True).encode())
        if self.behaviours == "trained":
            digest.update(self.weights().read_bytes())
            digest.update("".join(map(str, self.noise().values())).encode())
        return digest.hexdigest()[:8]

    def seed(self) -> int:
        """Seed of the recording, different for every dataset."""
        return int(hashlib.sha256(f"{self.task.name}:{self.quality}".encode()).hexdigest()[:7], 16) + self.first_seed

    def sibling(self, quality: str) -> "Recipe":
        """The same task's dataset of another quality."""
        return catalogue(self.source)[self.task.name, quality]

    @property
    def work(self) -> int:
        """Episodes to record or to join."""
        if self.mix:
            return sum(round(share * self.sibling(q).episodes) for q, share in self.mix.items())
        return self.episodes

    def disk(self) -> int:
        """An upper bound in bytes: episodes that last to their limit."""
        task = self.task
        row = 4 * (task.agents * task.obs + task.state) + task.agents * (4 * task.actions + 12) + 14
        return self.work * (task.limit + 1) * row

    def unavailable(self) -> str:
        """Which packages of its simulator are missing."""
        return unavailable(self.task)

    def state(self) -> str:
        """How it will be made."""
        return self.unavailable() or ("joined on first use" if self.mix else "recorded on first use")

    def make(self, progress: Progress = no_progress) -> dict[str, Any]:
        """Record the dataset, or join it from others, and write it into the cache; returns its card."""
        facts = {
            "source": self.source,
            "published_mean": self.target and self.target[0],
            "published_std": self.target and self.target[1],
            "epsilon": self.epsilon,
            "behaviours": self.mix or self.behaviours,
            "engine": fingerprint(self.task),
            "note": self.task.note,
        }
        if isinstance(self.task, UserTask):
            facts["random_return_mean"] = self._random_return()
        return write(self, self.record(progress), facts)

    def _random_return(self) -> float:
        """The mean return of random play."""
        env = make_env(self.task, RANDOM)
        returns = record(env, [uniform(self.task)], RANDOM, 0.0, self.first_seed).returns()
        env.close()
        return round(float(returns.mean()), 4)

    def record(self, progress: Progress) -> Dataset:
        """Record the episodes, or join other datasets' episodes."""
        if self.mix:
            parts = [(self.sibling(q).load()[0], share) for q, share in self.mix.items()]
            progress(self.work)
            return join(parts)
        env = make_env(self.task, self.lanes)
        return record(env, self.team(), self.episodes, self.epsilon, self.seed(), progress)


def catalogue(source: str = "embedded") -> dict[tuple[str, str], Recipe]:
    """Every dataset of a source of FILES by task and quality.

    Raises FileError naming the key of the source's file that is wrong, and the reason.
    """
    return _catalogue(source)


@cache
def _catalogue(source: str) -> dict[tuple[str, str], Recipe]:
    kind = dict[Annotated[str, known_name("task", tasks())], TaskRecipes]
    return {
        (name, quality): Recipe(
            task=tasks()[name],
            quality=quality,
            target=team.target and (team.target[0], team.target[1]),
            mix=team.mix,
            episodes=team.episodes or entry.episodes,
            epsilon=entry.epsilon,
            behaviours=team.behaviours,
            training=entry.training and entry.training.model_copy(update={"seed": entry.seed}),
            lanes=entry.lanes,
            source=source,
            first_seed=entry.seed,
        )
        for name, entry in packaged(kind, "offmarl.datasets.embedded", FILES[source]).items()
        for quality, team in entry.datasets.items()
    }
