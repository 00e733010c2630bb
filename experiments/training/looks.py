"""How a run is looked at while it trains: in its task's simulator, or where there is none on episodes held out.

`look_of` decides. A look has the data that are left to train on, the type of its outcomes, of which a run keeps one a
seed, and where and with which status they stand in a record.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.env import BatchEnv
from offmarl.benchmarks.rollout import Episodes, lane_seeds, waves
from offmarl.benchmarks.tasks import Task, make_env
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.part import halves
from offmarl.experiments.grid.jobs import Job
from offmarl.reports.records.schema import TRAINED

SHARE, MOST = 0.1, 64  # of the episodes are held out, at most so many
Make = Callable[[Task, int, int], BatchEnv]
View = tuple[np.ndarray, np.ndarray | None]  # what one agent team sees, and what is legal: [I, O], [I, A]


class Played:
    """Evaluation episodes in the simulator."""

    status, field, outcome = "done", "evaluations", Episodes

    def __init__(self, job: Job, data: Dataset, make: Make):
        self.data, self.episodes = data, job.protocol.eval_episodes
        self.env = make(job.entry.task, len(job.seeds), self.episodes)

    def look(
        self, method: Algorithm, seeds: Sequence[int], device: torch.device | str, camera: BatchEnv | None = None
    ) -> Generator[None, None, list[Episodes]]:
        """The outcome of every seed; yields in between, where it may be given up."""
        return waves(method, camera or self.env, list(seeds), device, self.episodes)

    def views(self) -> list[View]:
        """What a team sees at the start of episodes."""
        view = self.env.reset(lane_seeds([0], self.env.lanes))
        return list(zip(view.obs, [None] * len(view.obs) if view.legal is None else view.legal))

    def pause(self) -> None:
        """Free what can be made again: games take about a gigabyte each."""
        if release := getattr(self.env, "release", None):
            release()

    def close(self) -> None:
        """Release the simulators."""
        self.env.close()


@dataclass(frozen=True)
class Agreement:
    """How far a policy agrees with the actions of held-out episodes."""

    agreement: float  # the share of actions that are the data's; where continuous, the RMS distance from them
    transitions: int


class HeldOut:
    """Whole episodes of the data, on which a method acts as if it played them."""

    status, field, outcome = TRAINED, "held_out", Agreement
    env: Any = None

    def __init__(self, job: Job, data: Dataset, make: Make):
        count = len(data.behaviour)
        self.data, held = halves(data, 1 - min(MOST, max(1, round(SHARE * count))) / count)
        if held is None:
            raise ValueError(f"{job.title}: without an environment it takes two episodes: one is held out")
        self.held, self.discrete = held, job.entry.task.discrete

    def look(
        self, method: Algorithm, seeds: Sequence[int], device: torch.device | str, camera: BatchEnv | None = None
    ) -> Generator[None, None, list[Agreement]]:
        """The outcome of every seed; yields in between, where it may be given up."""
        held, memory = self.held, None
        lengths = np.bincount(held.episode)
        start, E = np.cumsum(lengths) - lengths, len(lengths)
        lanes, total = torch.arange(E, device=device).expand(len(seeds), E), torch.zeros(len(seeds))
        for t in range(lengths.max()):
            step = start + np.minimum(t, lengths - 1)  # of an episode that is over, the last one
            obs, legal = (
                None if rows is None else self._of_all(rows[held.rows[step]], len(seeds), device)
                for rows in (held.obs, held.legal)
            )
            assert obs is not None
            with method.acting_for(lanes, E):
                chosen, memory = method.act(obs, legal, memory)
            theirs = self._of_all(held.actions[step], len(seeds), device)
            memory = method.rewarded(memory, self._of_all(held.rewards[step], len(seeds), device))
            # Other actions are clipped by simulators, and NaN of a seed that diverged is played as 0.
            found = (
                (chosen == theirs).float() if self.discrete else (chosen.nan_to_num().clamp(-1, 1) - theirs).square()
            )
            total += found[:, torch.from_numpy(t < lengths).to(device)].flatten(2).mean(2).sum(1).cpu()
            yield
        mean = total / len(held)
        return [Agreement(round(value, 6), len(held)) for value in (mean if self.discrete else mean.sqrt()).tolist()]

    def views(self) -> list[View]:
        """What a team sees at the start of episodes."""
        first = self.held.rows[np.unique(self.held.episode, return_index=True)[1]]
        legal = self.held.legal
        return [(self.held.obs[row], None if legal is None else legal[row]) for row in first]

    def pause(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""

    @staticmethod
    def _of_all(rows: np.ndarray, seeds: int, device: Any) -> torch.Tensor:
        """The same rows for every seed: [S, E, ...]."""
        return torch.from_numpy(np.ascontiguousarray(rows)).to(device).expand(seeds, *rows.shape)


def look_of(job: Job, data: Dataset, make: Make = make_env) -> Played | HeldOut:
    """How a job on these data is looked at; `make` makes the simulator.

    Raises ValueError where there is no environment and one episode.
    """
    return (Played if job.entry.task.played else HeldOut)(job, data, make)
