"""Record episodes of behaviour policies, many at once."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from offmarl.benchmarks.env import BatchEnv, View
from offmarl.datasets.canonical import Dataset, from_episodes


class Behaviour(Protocol):
    """A policy to record."""

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I] of E episodes."""
        ...


def random_legal(legal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random legal action for every agent: [E,I,A] -> [E,I]."""
    return (rng.random(legal.shape) * legal).argmax(-1)


def record(
    env: BatchEnv,
    behaviours: Sequence[Behaviour],
    episodes: int,
    epsilon: float,
    seed: int,
    progress: Callable[[int], object] = lambda _: None,
) -> Dataset:
    """Record `episodes` episodes, the behaviours taking turns.

    Each action is replaced by a random legal one with probability `epsilon`.

    Args:
        progress: called with the number of episodes that have just been completed.
    """
    rng = np.random.default_rng(seed)
    recorded: list[dict[str, np.ndarray]] = []
    authors: list[int] = []
    wave = 0
    while len(recorded) < episodes:
        turn = (np.arange(env.lanes) + wave * env.lanes) % len(behaviours)
        done = _wave(env, behaviours, turn, epsilon, seed + wave * env.lanes, rng)
        kept = min(env.lanes, episodes - len(recorded))
        recorded += done[:kept]
        authors += turn[:kept].tolist()
        progress(kept)
        wave += 1
    return from_episodes(recorded, authors)


def _wave(
    env: BatchEnv,
    behaviours: Sequence[Behaviour],
    turn: np.ndarray,
    epsilon: float,
    seed: int,
    rng: np.random.Generator,
) -> list[dict[str, np.ndarray]]:
    """One episode in every lane; lane e follows behaviour turn[e]."""
    view = env.reset(seed + np.arange(env.lanes))
    views, actions, rewards = [view], [], []
    length = np.zeros(env.lanes, int)
    timeout = np.zeros(env.lanes, bool)
    over = np.zeros(env.lanes, bool)
    while not over.all():
        chosen = np.empty(view.obs.shape[:2], np.int64)
        for k in np.unique(turn):
            lanes = turn == k
            chosen[lanes] = behaviours[k](View(*(part[lanes] for part in view)), rng)
        slip = rng.random(chosen.shape) < epsilon
        chosen = np.where(slip, random_legal(view.legal, rng), chosen)
        step = env.step(chosen)
        view = step.view
        views.append(view)
        actions.append(chosen)
        rewards.append(step.reward)
        length += ~over
        timeout |= step.timeout & step.done & ~over
        over |= step.done
    columns = {name: np.stack([getattr(v, name) for v in views], 1) for name in View._fields}
    joint, reward = np.stack(actions, 1), np.stack(rewards, 1)
    agents = joint.shape[-1]
    return [
        {
            **{name: column[e, : n + 1] for name, column in columns.items()},
            "actions": joint[e, :n],
            "rewards": np.repeat(reward[e, :n, None], agents, -1).astype(np.float32),
            "timeout": timeout[e],
            "done": ~timeout[e],
        }
        for e, n in enumerate(length)
    ]
