"""Evaluation: all episodes of all seeds are played at once."""

from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from offmarl.benchmarks.env import BatchEnv

ASKED = 8  # a seed's lanes are asked for actions in multiples of it: few rows may be multiplied with other round-off


class Policy(Protocol):
    """Anything that acts for S seeds in E episodes each."""

    def act(self, obs: torch.Tensor, legal: torch.Tensor | None = None, memory: Any = None) -> tuple[torch.Tensor, Any]:
        """obs [S,E,I,O], legal [S,E,I,A] -> actions [S,E,I] or [S,E,I,A], and the memory for the next call."""
        ...

    def rewarded(self, memory: Any, rewards: torch.Tensor) -> Any:
        """The memory after the last actions were rewarded [S,E,I]."""
        ...

    def acting_for(self, lanes: torch.Tensor, total: int) -> AbstractContextManager[None]:
        """While `act` is given these lanes [S,E] alone, of `total` episodes of each seed."""
        ...


@dataclass(frozen=True)
class Episodes:
    """The outcome of E episodes of one seed."""

    returns: list[float]  # undiscounted team return
    won: list[bool] | None
    lengths: list[int]


def lane_seeds(seeds: list[int], episodes: int, first: int = 0) -> np.ndarray:
    """Environment seeds [S * E] of the episodes from `first` on: the same for every method and evaluation."""
    found = np.array(seeds)[:, None] * 100_003 + np.arange(first, first + episodes) + 500_000_003
    return found.astype(np.int32).ravel()


def evaluate(
    policy: Policy, env: BatchEnv, seeds: list[int], device: torch.device | str = "cpu", episodes: int | None = None
) -> list[Episodes]:
    """`waves` to its end."""
    playing = waves(policy, env, seeds, device, episodes)
    while True:
        try:
            next(playing)
        except StopIteration as end:
            return end.value


def waves(
    policy: Policy, env: BatchEnv, seeds: list[int], device: torch.device | str = "cpu", episodes: int | None = None
) -> Generator[None, None, list[Episodes]]:
    """Play `episodes` episodes of every seed (default: one a lane), in as many waves as the lanes require.

    Yields between waves. Episodes whose game crashed do not count; others are played instead.
    Raises RuntimeError when more episodes crashed than were wanted.
    """
    lanes, broken, count = env.lanes // len(seeds), 0, 0
    wanted = lanes if episodes is None else episodes
    played: list[list[Episodes]] = [[] for _ in seeds]
    while min(map(len, played)) < wanted:
        outcome, void = _wave(policy, env, lane_seeds(seeds, lanes, count * lanes), len(seeds), device)
        for lane in np.flatnonzero(~void):
            played[lane // lanes].append(outcome[lane])
        count, broken = count + 1, broken + int(void.sum())
        if broken > wanted * len(seeds):
            raise RuntimeError(f"{broken} evaluation episodes crashed before {wanted} of every seed were complete")
        if min(map(len, played)) < wanted:
            yield
    return [_joined(own[:wanted]) for own in played]


def _wave(
    policy: Policy, env: BatchEnv, starts: np.ndarray, S: int, device: torch.device | str
) -> tuple[list[Episodes], np.ndarray]:
    """One episode in every lane, and which of them crashed [S * E]."""
    view, memory, can_win, actions = env.reset(starts), None, False, None
    total, length = np.zeros(env.lanes), np.zeros(env.lanes, int)
    won, over, void = (np.zeros(env.lanes, bool) for _ in range(3))
    asked = np.arange(env.lanes).reshape(S, -1)  # the lanes of every seed that still need actions, and some to fill up
    while not over.all():
        obs = torch.from_numpy(view.obs[asked]).to(device)
        legal = None if view.legal is None else torch.from_numpy(view.legal[asked]).to(device)
        with policy.acting_for(torch.from_numpy(asked % (env.lanes // S)).to(device), env.lanes // S):
            chosen, memory = policy.act(obs, legal, memory)
        # NaN from the networks of one seed must not stop the simulator of the others.
        chosen = chosen.nan_to_num().cpu().numpy()
        actions = np.zeros((env.lanes, *chosen.shape[2:]), chosen.dtype) if actions is None else actions
        actions[asked] = chosen
        step = env.step(actions)
        memory = policy.rewarded(memory, agent_rewards(step.reward[asked.ravel()], obs).to(device))
        reward = step.reward if step.reward.ndim == 1 else step.reward.mean(-1)
        total += np.where(over, 0.0, reward)
        length += ~over
        if step.won is not None:
            can_win = True
            won |= step.won & step.done & ~over
        if step.void is not None:
            void |= step.void & ~over
        over |= step.done
        view = step.view
        asked, memory = _without(over, asked, memory)
    victories = won[:, None].tolist() if can_win else [None] * env.lanes
    return [Episodes([r], w, [n]) for r, w, n in zip(total.round(5).tolist(), victories, length.tolist())], void


def _without(over: np.ndarray, asked: np.ndarray, memory: Any) -> tuple[np.ndarray, Any]:
    """Lanes [S,E] and memory without episodes that are over; all of them, where the memory is not of lanes."""
    going = (~over)[asked].sum(1).max()
    fewer = -(-going // ASKED) * ASKED
    own = memory is None or isinstance(memory, torch.Tensor) and memory.shape[:2] == asked.shape
    if not going or fewer >= asked.shape[1] or not own:
        return asked, memory
    kept = np.sort(np.argsort(over[asked], 1, kind="stable")[:, :fewer], 1)
    rows = np.arange(len(asked))[:, None]
    return asked[rows, kept], None if memory is None else memory[rows, kept]


def agent_rewards(reward: np.ndarray, obs: torch.Tensor) -> torch.Tensor:
    """A step's reward, of the team [lanes] or of each agent [lanes, I], as every agent's own [S,E,I]."""
    own = torch.as_tensor(reward, dtype=torch.float32)
    own = own[:, None] if own.ndim == 1 else own
    return own.expand(-1, obs.shape[2]).unflatten(0, obs.shape[:2])


def _joined(episodes: list[Episodes]) -> Episodes:
    """The episodes of one seed as one."""
    won = [flag for e in episodes for flag in e.won or ()]
    return Episodes([r for e in episodes for r in e.returns], won or None, [n for e in episodes for n in e.lengths])
