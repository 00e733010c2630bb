"""CUDA graphs: what a device does in a function, recorded once and replayed without the host's part of the cost."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")
WARM_UP = 3  # calls before the capture, so that whatever is made once has been made


class Captured(Generic[T]):
    """A function without arguments; from its fourth call on, the replay of a CUDA graph.

    The function must do the same each time, on tensors that stay where they are, without a question to the host; its
    random numbers must come from `generators`, and are those of a run without a capture. Results are the same tensors
    in every replay: read them before the next. The first calls run as they are, on a stream aside.

    Args:
        pool: `torch.cuda.graph_pool_handle()` of graphs that share their memory, which must not run at once.
    """

    def __init__(self, function: Callable[[], T], generators: Sequence[torch.Generator], pool: Any = None):
        self.function, self.generators, self.pool = function, generators, pool
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0

    def __call__(self) -> T:
        """Run, record or replay."""
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._aside()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                self.graph.register_generator_state(generator)
            with torch.cuda.graph(self.graph, pool=self.pool):
                self.results = self.function()
        self.graph.replay()
        return self.results

    def _aside(self) -> T:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            results = self.function()
        torch.cuda.current_stream().wait_stream(aside)
        return results
