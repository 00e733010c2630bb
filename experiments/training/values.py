"""A critic's values beside the data's own discounted return, both on the data: whether they are near each other."""

from collections.abc import Mapping, Sequence

import torch

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Data
from offmarl.algorithms.parts.returns import returns_to_go
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.grid.jobs import Job

LARGEST = 1e15  # no number of a record is larger
VALUE, DATA = "critic_value", "data_value"  # in curves, where methods have losses called value
SAMPLE = 1024  # transitions whose values are averaged, the same for every method and evaluation


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
