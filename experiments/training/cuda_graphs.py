"""CUDA graphs: the device's work in a function, captured once and replayed without the host's overhead."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")
WARM_UP = 3  # eager calls before the capture, in which everything is allocated


class Captured(Generic[T]):
    """A function without arguments that, from its fourth call on, replays a CUDA graph.

    The function must run the same operations on the same memory each time, without synchronising with the host, and
    draw random numbers from `generators` only; they are the same as without capture. Every replay writes into the same
    result tensors: read them before the next call. The first calls run eagerly on a side stream.

    Args:
        pool: `torch.cuda.graph_pool_handle()` of graphs that share memory and never run at the same time.
    """

    def __init__(self, function: Callable[[], T], generators: Sequence[torch.Generator], pool: Any = None):
        self.function, self.generators, self.pool = function, generators, pool
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0

    def __call__(self) -> T:
        """Run, capture or replay."""
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._on_side_stream()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                self.graph.register_generator_state(generator)
            with torch.cuda.graph(self.graph, pool=self.pool):
                self.results = self.function()
        self.graph.replay()
        return self.results

    def _on_side_stream(self) -> T:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            results = self.function()
        torch.cuda.current_stream().wait_stream(side)
        return results
