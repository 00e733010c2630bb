"""A first timing of `act`: one joint decision on this host, batch of one, without the environment's step."""

import statistics
import time

import torch

from offmarl.benchmarks.rollout import Policy
from offmarl.benchmarks.tasks import Task

WARM_UP, CALLS, SECONDS = 20, 200, 0.5


def time_act(policy: Policy, task: Task, device: torch.device | str = "cpu") -> dict[str, float | int | str]:
    """Median and minimum milliseconds of a joint decision, host observation to host action.

    Methods that take long are timed for half a second, but over three decisions at least.

    Args:
        policy: a method with one seed.
    """
    generator = torch.Generator().manual_seed(0)
    obs = torch.rand(1, 1, task.agents, task.obs, generator=generator)
    legal = torch.ones(1, 1, task.agents, task.actions, dtype=torch.bool) if task.discrete else None
    spent = []
    began = time.perf_counter()
    while len(spent) < WARM_UP + CALLS and (len(spent) < 6 or time.perf_counter() - began < SECONDS):
        start = time.perf_counter()
        actions, _ = policy.act(obs.to(device), None if legal is None else legal.to(device))
        actions.cpu()
        spent.append(1e3 * (time.perf_counter() - start))
    spent = spent[min(WARM_UP, len(spent) // 2) :]
    return {
        "joint_ms": round(statistics.median(spent), 4),
        "min_ms": round(min(spent), 4),
        "n": len(spent),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "what": "one joint decision, batch 1, host to host, eager",
    }
