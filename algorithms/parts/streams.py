"""Random draws, with one generator per seed."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


class SeedStreams:
    """One random generator per seed. Draws have shape [S, *shape].

    Args:
        seeds: the seeds that train together.
        purpose: gives one seed different streams for initialisation, training, acting and batches.
    """

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.generators = []
        for seed in seeds:
            entropy = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(2, np.uint64)
            self.generators.append(torch.Generator(self.device).manual_seed(int(entropy[0] >> np.uint64(1))))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws."""
        return torch.stack([torch.randn(shape, generator=g, device=self.device) for g in self.generators])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws from [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g, device=self.device) for g in self.generators])

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers from 0 to high - 1."""
        return torch.stack([torch.randint(high, shape, generator=g, device=self.device) for g in self.generators])

    def gumbel(self, *shape: int) -> Tensor:
        """Standard Gumbel draws: the argmax of logits plus these is a sample from the softmax of the logits."""
        return -torch.log(-torch.log(self.uniform(*shape).clamp(1e-20, 1 - 1e-7)))

    def state_dict(self) -> list[Tensor]:
        """The state of each generator."""
        return [g.get_state() for g in self.generators]

    def load_state_dict(self, states: Sequence[Tensor]) -> None:
        """Resume from a `state_dict`."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state.cpu())


class LaneStreams(SeedStreams):
    """Draws for some of many lanes as if it drew for all, so that a lane's draws do not depend on the others.

    Draws have shape [S,E,...] or [S,E*K,...]; what has another shape is drawn as it is.

    Args:
        streams: what it draws from.
        lanes: [S,E] int64, which.
        total: how many lanes each seed has.
    """

    def __init__(self, streams: SeedStreams, lanes: Tensor, total: int):
        self.device, self.generators = streams.device, streams.generators
        self.rows, self.lanes, self.total = torch.arange(len(lanes), device=lanes.device)[:, None], lanes, total

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws."""
        return self._of_lanes(super().normal, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws from [0, 1)."""
        return self._of_lanes(super().uniform, *shape)

    def _of_lanes(self, draw: Callable[..., Tensor], first: int, *rest: int) -> Tensor:
        each, other = divmod(first, self.lanes.shape[1])
        if other or not each:
            return draw(first, *rest)
        drawn = draw(each * self.total, *rest).unflatten(1, (self.total, each))
        return drawn[self.rows, self.lanes].flatten(1, 2)
