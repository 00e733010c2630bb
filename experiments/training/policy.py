"""Stored policies: load one, let it play, record what it plays."""

import contextlib
import io
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import PLAYS, Algorithm
from offmarl.benchmarks.env import Behaviour, View
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.rollout import Episodes, agent_rewards, evaluate
from offmarl.benchmarks.tasks import Task, make_env, tasks, unavailable
from offmarl.datasets.dataset import join
from offmarl.datasets.embedded.record import record
from offmarl.experiments.errors import UserError, check_name, refusing
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.config import config_from
from offmarl.experiments.store.reading import read_folder
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.method import acting_networks, load_networks, spec_of
from offmarl.reports.records.checksums import POLICY
from offmarl.reports.records.files import replacing
from offmarl.reports.records.schema import plays_of

LANES = 64
SEED = 700_000_000  # far from those of recordings and evaluations


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


class Script:
    """The function `act` of a user's file as a behaviour."""

    def __init__(self, act: Behaviour, task: Task, name: str):
        self.act, self.task, self.name = act, task, name

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I] or [E,I,A]. Raises UserError where the function does, or gives another shape."""
        with refusing(f"--policy {self.name}: act(view, rng) fails"):
            actions = np.asarray(self.act(view, rng))
            wanted = (len(view.obs), self.task.agents, *(() if self.task.discrete else (self.task.actions,)))
            if actions.shape != wanted:
                raise ValueError(f"actions: shape {actions.shape}, should be {wanted}")
        return actions


def load_policy(folder: Path, task: Task, name: str = "") -> Algorithm:
    """The trained method of a finished run, on the CPU. Raises UserError where it is damaged, or of another task.

    `name` is what messages call the run, by default the option that names its folder.
    """
    name = name or f"--policy {folder}"
    with refusing(f"{name}: is not the folder of a finished run"):
        stored = read_folder(folder)
        cell = stored["cell"]
        if cell["task"] != task.name:
            raise UserError(f"{name}: was trained on {cell['task']}, not on {task.name}")
        kind = registry()[check_name("algorithm", cell["algorithm"], registry())]
        method = kind(spec_of(task), config_from(kind, stored["config"]), [cell["seed"]], "cpu")
        method.play = plays_of(stored["protocol"])[0]
        if not (folder / POLICY).exists():
            raise UserError(f"{name}: its policy was not kept with its record; `offmarl rerun` trains it again")
        if reason := why_stale(stored):
            print(f"offmarl: {folder.name}: stale: {reason}; it plays with the current code", file=sys.stderr)
        load_networks(method, torch.load(folder / POLICY, map_location="cpu", weights_only=True))
    return method


def acting_policy(folder: Path) -> bytes:
    """The checkpoint of a finished run with no more than what acts. Raises UserError as `load_policy`."""
    task = tasks()[check_name("task", read_folder(folder)["cell"]["task"], tasks())]
    content = io.BytesIO()
    torch.save(acting_networks(load_policy(folder, task, folder.name)), content)
    return content.getvalue()


def stored_policy(store: Store, run_id: str) -> tuple[Algorithm, Task]:
    """The trained method of a run, and its task. Raises UserError for a run that is unknown, damaged or failed."""
    record = store.peek(check_name("run", run_id, store.run_ids()))
    if record is None or record["status"] == "failed":
        raise UserError(f"{run_id}: is damaged or failed, so there is no policy; `offmarl run` trains it again")
    task = tasks()[check_name("task", record["cell"]["task"], tasks())]
    return load_policy(store.runs / run_id, task, run_id), task


def evaluate_stored(method: Algorithm, task: Task, episodes: int, seed: int, play: str | None = None) -> Episodes:
    """Play `episodes` episodes of a seed, in one of PLAYS or as the method does. Raises UserError where it cannot."""
    if reason := unavailable(task):
        raise UserError(f"{task.name}: {reason}")
    if episodes < 1:
        raise UserError(f"--episodes {episodes}: write a number of at least 1")
    method.play = check_name("play", play or method.play, PLAYS)
    with contextlib.closing(make_env(task, 1, episodes)) as env:
        return evaluate(method, env, [seed], episodes=episodes)[0]


def behaviours_of(policy: str, task: Task) -> Callable[[], Behaviour]:
    """What makes a policy for one set of episodes: of `random`, a script's function `act`, or the folder of a run.

    Raises UserError for a damaged run, one of another task, or a script without such a function.
    """
    if policy == "random":
        return lambda: uniform(task)
    if not policy.endswith(".py"):
        method = load_policy(Path(policy), task)
        return lambda: Player(method)
    with refusing(f"--policy {policy}: has no function act(view, rng)"):
        act = runpy.run_path(policy)["act"]
    return lambda: Script(act, task, policy)


def record_policy(task: Task, policy: str, episodes: int, out: Path, epsilon: float = 0.0) -> dict[str, Any]:
    """Play episodes of a task, write them as one .npz in the canonical form, and return its statistics.

    `policy` is as in `behaviours_of`, which says what is refused.
    """
    behaviour_of = behaviours_of(policy, task)
    env, parts = make_env(task, min(LANES, episodes)), []
    for start in range(0, episodes, env.lanes):
        played = record(env, [behaviour_of()], min(env.lanes, episodes - start), epsilon, SEED + start)
        parts.append((played, 1.0))
    env.close()
    data = join(parts)
    data = replace(data, behaviour=np.zeros_like(data.behaviour))  # `join` takes each batch for another policy's
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as draft:
        data.save(draft)
    return data.statistics()
