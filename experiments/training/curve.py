"""What curves keep of a training: means of all terms since the last point."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import LARGEST_Q


class Since:
    """Metrics [S] since the last point, summed on the device; of the largest |Q| the largest.

    A term that only some updates have is averaged over these, and is no part of a point without any.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add an update's metrics, without waiting for the device."""
        for name, values in metrics.items():
            before = self.sums.get(name)
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
