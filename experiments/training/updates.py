"""Updates: draw a batch and take a gradient step; on CUDA this is captured as a graph and replayed."""

from collections.abc import Hashable
from typing import Protocol

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.cuda_graphs import Captured
from offmarl.algorithms.parts.streams import SeedStreams


class Batches(Protocol):
    """Draws batches, from random streams of its own."""

    streams: SeedStreams

    def sample(self, size: int) -> Batch:
        """`size` transitions for each seed."""
        ...


class Updates:
    """Calls draw a batch and update; they return the loss terms [S].

    Args:
        capture: replay CUDA graphs, which include the drawing of the batch and give the same numbers; one graph for
            each variant of the method's gradient step. Methods that are not `capturable` run eagerly all the same.
    """

    def __init__(self, algorithm: Algorithm, sampler: Batches, capture: bool = False):
        self.algorithm, self.sampler, self.size = algorithm, sampler, algorithm.config.batch_size
        self.capture = capture and algorithm.capturable
        self.graphs: dict[Hashable, Captured[dict[str, Tensor]]] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.capture else None

    def __call__(self) -> dict[str, Tensor]:
        """One update."""
        if not self.capture:
            return self.algorithm.update(self.sampler.sample(self.size))
        self.algorithm.begin_update()
        variant = self.algorithm.step_variant()
        if variant not in self.graphs:
            generators = [*self.algorithm.streams.generators, *self.sampler.streams.generators]
            self.graphs[variant] = Captured(self._on_device, generators, self.pool)
        return self.graphs[variant]()

    def _on_device(self) -> dict[str, Tensor]:
        return self.algorithm.gradient_step(self.sampler.sample(self.size))
