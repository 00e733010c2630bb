"""Evaluation: every seed of a cell plays all its episodes at once."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from offmarl.benchmarks.env import BatchEnv


class Policy(Protocol):
    """Anything that acts for S seeds, in E episodes each."""

    def act(self, obs: torch.Tensor, legal: torch.Tensor | None = None, memory: Any = None) -> tuple[torch.Tensor, Any]:
        """obs [S,E,I,O], legal [S,E,I,A] -> actions [S,E,I] or [S,E,I,A], and the memory of the next call."""
        ...


@dataclass(frozen=True)
class Episodes:
    """What E episodes of one seed came to."""

    returns: list[float]  # undiscounted team return
    won: list[bool] | None
    lengths: list[int]


def lane_seeds(seeds: list[int], episodes: int) -> np.ndarray:
    """Environment seeds [S * E]: the same battles for every method and every evaluation, others for every seed."""
    return (np.array(seeds)[:, None] * 100_003 + np.arange(episodes) + 500_000_003).astype(np.int32).ravel()


def evaluate(policy: Policy, env: BatchEnv, seeds: list[int], device: torch.device | str = "cpu") -> list[Episodes]:
    """Play `env.lanes / len(seeds)` episodes of every seed, all in parallel."""
    S, E = len(seeds), env.lanes // len(seeds)
    view = env.reset(lane_seeds(seeds, E))
    total, length = np.zeros(env.lanes), np.zeros(env.lanes, int)
    won, over = np.zeros(env.lanes, bool), np.zeros(env.lanes, bool)
    knows_victory, memory = False, None
    while not over.all():
        obs = torch.from_numpy(view.obs).to(device).unflatten(0, (S, E))
        legal = None if view.legal is None else torch.from_numpy(view.legal).to(device).unflatten(0, (S, E))
        actions, memory = policy.act(obs, legal, memory)
        # A seed whose networks are no numbers any more must not break the simulator of the others.
        step = env.step(actions.flatten(0, 1).nan_to_num().cpu().numpy())
        reward = step.reward if step.reward.ndim == 1 else step.reward.mean(-1)
        total += np.where(over, 0.0, reward)
        length += ~over
        if step.won is not None:
            knows_victory = True
            won |= step.won & step.done & ~over
        over |= step.done
        view = step.view
    rows = [slice(k * E, (k + 1) * E) for k in range(S)]
    return [
        Episodes(total[r].round(5).tolist(), won[r].tolist() if knows_victory else None, length[r].tolist())
        for r in rows
    ]
