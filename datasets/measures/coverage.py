"""Coverage: how many different pairs of situation and action the data hold.

    SACo   different pairs of state and joint action, by the number of transitions
    OACo   different pairs of observation and action of an agent, by the number of transitions, averaged over agents

SACo is Schweighofer et al.'s (arXiv 2111.04714) with the number of transitions as reference; that of joint pairs and
the count curve behind it (how many pairs occur once, twice, ...) are Formanek et al.'s (arXiv 2409.12001). Both are
exact: all transitions count and pairs are equal if all their numbers are, so where positions are continuous they are
near 1, and shares of datasets of different size do not compare. 64-bit sums of the pairs stand for the pairs.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from offmarl.datasets.dataset import Dataset

CHUNK = 10_000  # transitions


def coverage(data: Dataset) -> dict[str, Any]:
    """Both shares, OACo of each agent too, and the curve: joint pairs that occur once, 2 or 3, 4 to 7, ... times."""
    _, counts = np.unique(_digests(data, data.state, lambda steps: data.actions[steps]), return_counts=True)
    ends = 2 ** np.arange(int(np.log2(counts.max())) + 1)
    curve = np.add.reduceat(np.bincount(counts), ends).tolist()
    single = [len(np.unique(column)) / len(column) for column in _own(data).T]
    return {"saco": len(counts) / len(data), "oaco": float(np.mean(single)), "oaco_agents": single, "curve": curve}


def overlap(ours: Dataset, theirs: Dataset) -> tuple[float, float]:
    """Shares of our agents' pairs of observation and action that are among theirs, and of theirs among ours.

    Steps at which an agent has no choice, such as those of the dead, do not count.
    """
    one, other = ([pairs[free] for pairs, free in zip(_own(data).T, _free(data).T)] for data in (ours, theirs))
    ours_in, theirs_in = ([np.isin(a, b) for a, b in zip(*pair)] for pair in ((one, other), (other, one)))
    return float(np.concatenate(ours_in).mean()), float(np.concatenate(theirs_in).mean())


def _free(data: Dataset) -> np.ndarray:
    """Whether an agent has a choice: [N, I]."""
    return np.ones(data.actions.shape[:2], bool) if data.legal is None else data.legal[data.rows].sum(-1) > 1


def _own(data: Dataset) -> np.ndarray:
    """Sums of every agent's pairs of observation and action: [N, I]."""
    columns = range(data.actions.shape[1])
    return np.stack([_digests(data, data.obs[:, i], lambda steps, i=i: data.actions[steps, i]) for i in columns], 1)


def _digests(data: Dataset, situations: np.ndarray, acted: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Sums of what was seen [R, D] and done at every transition: [N] uint64. -0 and 0 are equal."""
    found = []
    for k in range(0, len(data), CHUNK):
        steps = slice(k, k + CHUNK)
        seen, done = situations[data.rows[steps]], acted(steps)
        numbers = np.concatenate([seen, done.reshape(len(seen), -1)], 1).astype(np.float32) + 0.0
        found.append(b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in numbers))
    return np.frombuffer(b"".join(found), np.uint64)
