"""Record episodes of behaviour policies, many at once."""

from collections.abc import Sequence

import numpy as np

from offmarl.benchmarks.env import BatchEnv, Behaviour, View
from offmarl.benchmarks.random_policy import random_legal
from offmarl.datasets.cache import Progress, no_progress
from offmarl.datasets.dataset import Dataset, from_episodes


def record(
    env: BatchEnv,
    behaviours: Sequence[Behaviour],
    episodes: int,
    epsilon: float,
    seed: int,
    progress: Progress = no_progress,
) -> Dataset:
    """Record `episodes` episodes; the behaviours take turns. `progress` is called with numbers of completed episodes.

    Each discrete action is replaced by a random legal one with probability `epsilon`.
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
        chosen = _chosen(view, behaviours, turn, rng)
        if view.legal is not None:
            slip = rng.random(chosen.shape) < epsilon
            chosen = np.where(slip, random_legal(view.legal, rng), chosen)
        step = env.step(chosen)
        for k, behaviour in enumerate(behaviours):
            if rewarded := getattr(behaviour, "rewarded", None):  # a trained method may remember its rewards
                rewarded(step.reward[turn == k])
        view = step.view
        views.append(view)
        actions.append(chosen)
        rewards.append(step.reward)
        length += ~over
        timeout |= step.timeout & step.done & ~over
        over |= step.done
    columns = {name: np.stack(part, 1) for name, part in zip(View._fields, zip(*views)) if part[0] is not None}
    joint, reward = np.stack(actions, 1), np.stack(rewards, 1).astype(np.float32)
    if reward.ndim == 2:  # every agent gets the team's reward
        reward = np.repeat(reward[..., None], view.obs.shape[1], -1)
    return [
        {
            **{name: column[e, : n + 1] for name, column in columns.items()},
            "actions": joint[e, :n],
            "rewards": reward[e, :n],
            "timeout": timeout[e],
            "done": ~timeout[e],
        }
        for e, n in enumerate(length)
    ]


def _chosen(view: View, behaviours: Sequence[Behaviour], turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every lane's joint action, from the behaviour that plays it."""
    order = np.argsort(turn, kind="stable")
    parts = [
        behaviours[k](View(*(None if part is None else part[turn == k] for part in view)), rng) for k in np.unique(turn)
    ]
    chosen = np.concatenate(parts).astype(np.int64 if view.legal is not None else np.float32)
    return chosen[np.argsort(order)]
