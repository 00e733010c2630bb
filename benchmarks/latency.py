"""The latency protocol: the time of one decision, from the observation on the host to the action on the host.

Batch size one. Copies to and from the device, random numbers, every network call and masks are included, the
environment's step is not. Observations are cycled; after a warm-up, decisions are timed one by one.
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

Observation = tuple[np.ndarray, np.ndarray | None]  # obs [I, O] and legal [I, A] of one step
WARM_UP, MOST, LEAST = 50, 500, 3  # decisions
WARM_UP_SHARE = 0.2  # of the seconds, at most


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of n decisions; `cpu_share` is CPU time over wall-clock time."""

    median_ms: float
    p95_ms: float
    min_ms: float
    n: int
    cpu_share: float

    def times(self, factor: float) -> "Timing":
        """All times multiplied by a factor."""
        centre, high, low = (round(factor * value, 4) for value in (self.median_ms, self.p95_ms, self.min_ms))
        return Timing(centre, high, low, self.n, self.cpu_share)


def common(timings: Sequence[Timing]) -> Timing:
    """What several measurements of the same work have in common: the median of each statistic; decisions are added."""
    one = [round(statistics.median(column), 4) for column in zip(*((t.median_ms, t.p95_ms, t.min_ms) for t in timings))]
    share = round(statistics.median(timing.cpu_share for timing in timings), 2)
    return Timing(*one, n=sum(timing.n for timing in timings), cpu_share=share)


class Decisions:
    """Decisions of a method with one seed, as in one endless episode; `capture` makes a CUDA graph of their work."""

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
        """Observations [I, O] and legal actions [I, A] -> actions [I] or [I, A]."""
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
            self.memory.copy_(memory)  # a captured graph reads the same memory again
        return actions


def time_decisions(
    decide: Callable[..., Any], observations: Sequence[Observation], seconds: float, least: int = LEAST
) -> Timing:
    """Time decisions for some seconds: at most 500, at least `least` of them."""
    steps, began = cycle(observations), time.perf_counter()
    for done in range(WARM_UP):
        if done and time.perf_counter() - began > WARM_UP_SHARE * seconds:
            break
        decide(*next(steps))
    spent, began, processor = [], time.perf_counter(), time.process_time()
    while len(spent) < least or (len(spent) < MOST and time.perf_counter() - began < seconds):
        observation, start = next(steps), time.perf_counter_ns()
        decide(*observation)
        spent.append(1e-6 * (time.perf_counter_ns() - start))
    share = (time.process_time() - processor) / (time.perf_counter() - began)
    centre, high = statistics.median(spent), float(np.quantile(spent, 0.95))
    return Timing(round(centre, 4), round(high, 4), round(min(spent), 4), len(spent), round(share, 2))
