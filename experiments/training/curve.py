"""What curves keep of a training: means of all terms since the last point, and a critic's mean value.

The value stands beside the data's own discounted return, both on the data: they should be near each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import LARGEST_Q, Algorithm
from offmarl.algorithms.parts.batch import Data
from offmarl.algorithms.parts.returns import returns_to_go
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.grid.jobs import Job
from offmarl.reports.records.schema import LARGEST

VALUE, DATA = "critic_value", "data_value"  # in curves, where methods have losses called value
SAMPLE = 1024  # transitions whose values are averaged, the same for every method and evaluation


class Since:
    """Metrics [S] since the last point, summed on the device; of the largest |Q| the largest.

    A term that only some updates have is averaged over these, and is no part of a point without any.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add an update's metrics, without waiting for the device. ValueError for one that has not a number a seed."""
        for name, values in metrics.items():
            before = self.sums.get(name)
            if before is None and values.dim() != 1:
                raise ValueError(f"the loss '{name}' has the shape {[*values.shape]}; give a number for each seed, [S]")
            join = torch.maximum if name == LARGEST_Q else torch.add
            self.sums[name] = values.clone() if before is None else join(before, values)
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, list[float]]:
        """The point, by seed; the next one begins."""
        counts = self.counts | {LARGEST_Q: 1}
        point = {name: (total / counts[name]).tolist() for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return point

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact resume needs."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Resume from a `state_dict`."""
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.counts = dict(state["counts"])


class Values:
    """Measures the mean value of a method's critic."""

    def __init__(self, sampler: Sampler, job: Job):
        count = len(sampler.data.rows)
        index = torch.randint(count, (SAMPLE,), generator=torch.Generator().manual_seed(0))
        self.sampler, self.index = sampler, index.to(sampler.data.rows.device).expand(len(job.seeds), -1)
        self.discount, self.data = job.config.discount, None

    def point(self, algorithm: Algorithm) -> dict[str, list[float]]:
        """Mean value and the data's discounted return, by seed; empty for a method without a critic."""
        if "critic" not in algorithm.nets:
            return {}
        values = algorithm.mean_value(self.sampler.at(self.index))
        if self.data is None:
            self.data = discounted_return(self.sampler.data, self.discount)
        return {} if values is None else {VALUE: values.tolist(), DATA: [self.data] * len(values)}


def of_seed(point: Mapping[str, Sequence[float]], k: int) -> dict[str, float] | None:
    """The numbers of one seed in a curve's point, as its record holds them; None without, or where a critic is lost."""
    found = {"value": point[VALUE][k], "data_value": point[DATA][k]} if VALUE in point else {}
    return found if found and all(abs(value) < LARGEST for value in found.values()) else None


def discounted_return(data: Data, discount: float) -> float:
    """The mean over transitions of the team's discounted return from there.

    A time-out that is bootstrapped is followed by what the data's states are worth on average, G: the mean return to
    the cut is a, the mean discount until it b (0 for other ends), and G = a + b G.
    """
    rewards, goes_on = data.rewards.mean(-1), (data.last & (data.done == 0)).float()
    a = returns_to_go(rewards, data.last, discount).mean()
    b = discount * returns_to_go(goes_on, data.last, discount).mean()
    return float(a / (1.0 - b))
