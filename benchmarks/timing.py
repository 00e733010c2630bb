"""A first timing of `act`: one joint decision on this host, batch of one, without the environment's step."""

import statistics
import time

import torch

from offmarl.benchmarks.rollout import Policy
from offmarl.benchmarks.tasks import Task

WARM_UP, CALLS = 20, 200


def time_act(policy: Policy, task: Task, device: torch.device | str = "cpu") -> dict[str, float | int | str]:
    """Median and minimum milliseconds of a joint decision, host observation to host action.

    Args:
        policy: a method with one seed.
    """
    generator = torch.Generator().manual_seed(0)
    obs = torch.rand(1, 1, task.agents, task.obs, generator=generator)
    legal = torch.ones(1, 1, task.agents, task.actions, dtype=torch.bool) if task.discrete else None
    spent = []
    for _ in range(WARM_UP + CALLS):
        start = time.perf_counter()
        actions, _ = policy.act(obs.to(device), None if legal is None else legal.to(device))
        actions.cpu()
        spent.append(1e3 * (time.perf_counter() - start))
    spent = spent[WARM_UP:]
    return {
        "joint_ms": round(statistics.median(spent), 4),
        "min_ms": round(min(spent), 4),
        "n": CALLS,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "what": "one joint decision, batch 1, host to host, eager",
    }
