"""The latency protocol: what a decision takes from the host's observation to the host's action.

Batch one; sending, random numbers, every network call, masks and fetching are part of it, the environment's step is
not. Observations are cycled; after a warm-up, decisions are timed one by one until there are enough of them.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch

from offmarl.benchmarks.rollout import Policy

Sight = tuple[np.ndarray, np.ndarray | None]  # obs [I, O] and legal [I, A] of one moment
WARM_UP, MOST, LEAST = 50, 500, 3  # decisions
WARM_UP_SHARE = 0.2  # of the time, at most


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of n decisions; `cpu_share` is the processor's time over the wall clock's."""

    median_ms: float
    p95_ms: float
    min_ms: float
    n: int
    cpu_share: float

    def times(self, factor: float) -> "Timing":
        """The same with all times scaled."""
        centre, high, low = (round(factor * value, 4) for value in (self.median_ms, self.p95_ms, self.min_ms))
        return Timing(centre, high, low, self.n, self.cpu_share)


class Decisions:
    """Decisions of a method with one seed, in one episode that never ends.

    Args:
        capture: makes a CUDA graph of what a decision does on the device; None: decisions run eagerly.
    """

    def __init__(
        self,
        policy: Policy,
        device: torch.device | str,
        capture: Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]] | None = None,
    ):
        self.policy, self.device = policy, device
        self.memory: torch.Tensor | None = None
        self.obs: torch.Tensor | None = None
        self.legal: torch.Tensor | None = None
        self.decide = self._on_device if capture is None else capture(self._on_device)

    def __call__(self, obs: np.ndarray, legal: np.ndarray | None) -> np.ndarray:
        """Observations [I, O] of this moment, legal [I, A] -> actions."""
        self.obs, self.legal = self._send(obs, self.obs), self._send(legal, self.legal)
        return self.decide().cpu().numpy()

    def _send(self, array: np.ndarray | None, place: torch.Tensor | None) -> torch.Tensor | None:
        if array is None:
            return None
        sent = torch.from_numpy(array)[None, None]
        return sent.to(self.device, copy=True) if place is None else place.copy_(sent)

    def _on_device(self) -> torch.Tensor:
        assert self.obs is not None
        actions, memory = self.policy.act(self.obs, self.legal, self.memory)
        if self.memory is None:
            self.memory = None if memory is None else memory.clone()
        else:
            self.memory.copy_(memory)  # a captured decision reads it where it was
        return actions


def time_decisions(decide: Callable[..., Any], sights: Sequence[Sight], seconds: float, least: int = LEAST) -> Timing:
    """Time decisions for so many seconds: 500 at most, `least` at least."""
    moments, began = cycle(sights), time.perf_counter()
    for done in range(WARM_UP):
        if done and time.perf_counter() - began > WARM_UP_SHARE * seconds:
            break
        decide(*next(moments))
    spent, began, processor = [], time.perf_counter(), time.process_time()
    while len(spent) < least or (len(spent) < MOST and time.perf_counter() - began < seconds):
        moment, start = next(moments), time.perf_counter_ns()
        decide(*moment)
        spent.append(1e-6 * (time.perf_counter_ns() - start))
    share = (time.process_time() - processor) / (time.perf_counter() - began)
    centre, high = statistics.median(spent), float(np.quantile(spent, 0.95))
    return Timing(round(centre, 4), round(high, 4), round(min(spent), 4), len(spent), round(share, 2))
