"""How a run is looked at while it trains: in its task's simulator, or where there is none on episodes held out.

`look_of` decides. A look has the data that are left to train on, the type of its outcomes, of which a run keeps one a
seed, and where and with which status they stand in a record.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
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
            raise ValueError(f"{job.title}: without an environment, the data need two episodes: one is held out")
        self.held, self.discrete = held, job.entry.task.discrete

    def look(
        self, method: Algorithm, seeds: Sequence[int], device: torch.device | str, camera: BatchEnv | None = None
    ) -> Generator[None, None, list[Agreement]]:
        """The outcome of every seed; yields in between, where it may be given up."""
        total = torch.zeros(len(seeds))
        for step, alive, chosen in along(method, self.held, device):
            theirs = torch.from_numpy(self.held.actions[step[alive]]).to(device)
            # Other actions are clipped by simulators, and NaN of a seed that diverged is played as 0.
            own = chosen[:, torch.from_numpy(alive).to(device)]
            found = (own == theirs).float() if self.discrete else (own.nan_to_num().clamp(-1, 1) - theirs).square()
            total += found.flatten(2).mean(2).sum(1).cpu()
            yield
        mean, count = total / len(self.held), len(self.held)
        return [Agreement(round(value, 6), count) for value in (mean if self.discrete else mean.sqrt()).tolist()]

    def views(self) -> list[View]:
        """What a team sees at the start of episodes."""
        first = self.held.rows[np.unique(self.held.episode, return_index=True)[1]]
        legal = self.held.legal
        return [(self.held.obs[row], None if legal is None else legal[row]) for row in first]

    def pause(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""


def along(
    method: Algorithm, data: Dataset, device: torch.device | str = "cpu", ends: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, torch.Tensor]]:
    """What a method does along the episodes of a dataset, side by side, with the memory that they leave.

    At each step: the transition of every episode [E] and whether it is still going [E], and actions [S,E,I] or
    [S,E,I,A]. Of an episode that is over the last one stays. With `ends` each has one step more, at the observation
    that its last transition led to.
    """
    lengths, seeds, memory = np.bincount(data.episode), len(method.seeds), None
    start, E = np.cumsum(lengths) - lengths, len(lengths)
    lanes = torch.arange(E, device=device).expand(seeds, E)

    def of_all(values: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[rows])).to(device).expand(seeds, E, *values.shape[1:])

    for t in range(lengths.max() + ends):
        step, row = (start + np.minimum(t, lengths - 1), data.rows[start] + np.minimum(t, lengths - 1 + ends))
        with method.acting_for(lanes, E), torch.no_grad():
            legal = None if data.legal is None else of_all(data.legal, row)
            actions, memory = method.act(of_all(data.obs, row), legal, memory)
            memory = method.rewarded(memory, of_all(data.rewards, step))
        yield step, t < lengths + ends, actions


def look_of(job: Job, data: Dataset, make: Make = make_env) -> Played | HeldOut:
    """How a job on these data is looked at; `make` makes the simulator.

    Raises ValueError where there is no environment and one episode.
    """
    return (Played if job.entry.task.played else HeldOut)(job, data, make)
