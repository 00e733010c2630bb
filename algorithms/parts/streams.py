"""Random draws, with one generator per seed."""

from collections.abc import Sequence

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
