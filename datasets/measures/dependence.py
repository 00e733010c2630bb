"""Coordination and memory: what an agent's action still owes to the others' actions, and to the past.

    coordination   E sum_i [log p(a_i | o_i, a_1 .. a_i-1) - log p(a_i | o_i, a~_1 .. a~_i-1)], nats a step
    memory         E sum_i [log p(a_i | o_i, h_i) - log p(a_i | o_i, h~_i)], nats a step

over held-out episodes. By the chain rule the first terms add up to the likelihood of the joint action, so that
coordination estimates the total correlation of the actions given own observations (Watanabe, IBM J. 4, 1960). It is
zero for independent policies of one's own observation, and positive where agents mix over conventions together, as well
as where they act on something that an agent does not see.

The null a~ is what keeps capacity, and a poor fit of p(a_i | o_i), from counting as dependence: the same network from
the same start, shown the other agents' actions of other steps, in which these agents had nearly the same
distribution of actions. That distribution is all that an independent action tells of its context (a balancing score:
Rosenbaum and Rubin, Biometrika 70, 1983), so a~ tells as much of the context, and nothing of a_i beyond. The past h~
comes from steps at which the network sees nearly the same as here (its last hidden layer).
"""

import numpy as np
import torch
from torch import Tensor

from offmarl.datasets.measures.likelihood import JUDGE, Fitted, Network, Rows, Sample, fit, permuted


def coordination(seen: Sample, rows: Rows, plain: Fitted) -> tuple[dict[str, float], Network]:
    """Gain, null and difference with its standard error, and the network that sees the others' actions."""
    n, I, _ = seen.tokens.shape
    real = seen.others().reshape(n, I, I, -1)  # [n, agent, other, C * P]
    null = real.copy()
    probabilities = _probabilities(plain.network, rows).reshape(n, I, -1)
    for j in range(I - 1):
        taken = permuted(seen.part, probabilities[:, j], seed=j)
        null[:, j + 1 :, j] = real[taken][:, j + 1 :, j]
    return _compared(seen, rows, plain, *(torch.from_numpy(values.reshape(n * I, -1)) for values in (real, null)))


def memory(seen: Sample, rows: Rows, plain: Fitted) -> dict[str, float]:
    """Gain, null and difference with its standard error."""
    n, I, _ = seen.tokens.shape
    real = torch.from_numpy(seen.history).flatten(0, 1)
    groups = np.repeat(seen.part, I) * I + np.tile(np.arange(I), n)
    with torch.no_grad():
        contexts = plain.network.features(rows.obs, nothing(rows)).numpy()
    return _compared(seen, rows, plain, real, real[permuted(groups, contexts)])[0]


def nothing(rows: Rows) -> Tensor:
    """What a network is shown that sees observations alone."""
    return torch.zeros(len(rows.obs), 1)


def _probabilities(plain: Network, rows: Rows) -> np.ndarray:
    """Of every part of an action by the observation alone: [rows, C * P]."""
    with torch.no_grad():
        logits = plain(rows.obs, nothing(rows)).unflatten(-1, (rows.tokens.shape[-1], -1))
        return (logits if rows.illegal is None else logits + rows.illegal).softmax(-1).flatten(1).numpy()


def _compared(seen: Sample, rows: Rows, plain: Fitted, real: Tensor, null: Tensor) -> tuple[dict[str, float], Network]:
    shown = [fit(rows, more, plain.network) for more in (real, null)]
    base, *found = (fitted.scores.reshape(-1, rows.agents).sum(1) for fitted in (plain, *shown))
    gain, chance, net = (held_out(seen, part) for part in (found[0] - base, found[1] - base, found[0] - found[1]))
    return {"nats": net[0], "error": net[1], "gain": gain[0], "null": chance[0]}, shown[0].network


def held_out(seen: Sample, values: np.ndarray) -> tuple[float, float]:
    """Mean over steps of the episodes that judge, and its standard error by episodes: values [n]."""
    which = seen.part == JUDGE
    _, number = np.unique(seen.episode[which], return_inverse=True)
    sums, counts = np.bincount(number, values[which]), np.bincount(number)
    mean = sums.sum() / counts.sum()
    return float(mean), float(np.sqrt(np.square(sums - mean * counts).sum()) / counts.sum())
