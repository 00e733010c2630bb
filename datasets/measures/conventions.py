"""Conventions: how many distinct joint behaviours the episodes need.

A mixture of K behaviours, one for each episode: p(a_1 .. a_T) = sum_k w_k prod_t prod_i p_k(a_i | o_i, a_1 .. a_i-1).
A behaviour is an output layer of its own on what the network of `coordination` sees (its last hidden layer and the
others' actions), so that fitting is quick. It starts from groups of episodes whose gradients of the log-likelihood at
one common layer are alike (Fisher vectors: Perronnin and Dance, CVPR 2007; k-means on their first directions):
episodes of one behaviour differ in them by chance alone. Then the mixture's likelihood is raised, and judged by other
episodes.

K grows as long as one or two behaviours more are significantly better on episodes that were not seen.
"""

from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from offmarl.datasets.measures.likelihood import TRAIN, Network, Rows, Sample

MOST = 8  # behaviours
AGENT_STEPS, EPISODES = 24_000, 600  # at most so many rows and episodes are looked at
OTHERS, DIRECTIONS, TRIES = 32, 16, 8  # dimensions of others' actions, of gradients; starts of k-means
UPDATES, RATE, DECAY = 60, 0.03, 1e-3
SIGNIFICANT = 2.5  # standard errors of a mean difference over episodes


def conventions(seen: Sample, rows: Rows, network: Network, others: Tensor) -> dict[str, Any]:
    """The number of behaviours, what it gains in nats a step, and the number that recorded the episodes."""
    rng = np.random.default_rng(0)
    many = min(EPISODES, max(8, AGENT_STEPS * len(seen.behaviour) // len(rows.part)))
    chosen = rng.permutation(len(seen.behaviour))[:many]
    which = np.flatnonzero(np.isin(np.repeat(seen.episode, rows.agents), chosen))
    picked = torch.from_numpy(which)
    illegal = None if rows.illegal is None else rows.illegal[picked]
    own = Rows(rows.obs[picked], rows.tokens[picked], illegal, rows.part[which], rows.agents)
    _, episode = np.unique(np.repeat(seen.episode, rows.agents)[which], return_inverse=True)
    mixtures = _Mixtures(own, episode, _inputs(network, own, others[picked], rng), network)
    scores = {1: mixtures.score(1)}
    number = 1
    while number < MOST:
        for more in (number + 1, number + 2):
            if more not in scores:
                scores[more] = mixtures.score(more)
        better = [more for more in (number + 1, number + 2) if _better(scores[more], scores[number])]
        if not better:
            break
        number = better[0]
    steps = mixtures.steps[mixtures.judge].sum() / rows.agents
    gain = float((scores[number] - scores[1]).sum() / steps)
    return {"number": number, "at_most": MOST, "gain": gain, "recorded_by": len(np.unique(seen.behaviour))}


def _inputs(network: Network, rows: Rows, others: Tensor, rng: np.random.Generator) -> Tensor:
    """What the output layers see: [rows, D]."""
    with torch.no_grad():
        hidden = network.features(rows.obs, others)
    if others.shape[-1] > OTHERS:  # a random projection keeps their differences
        turn = rng.normal(0, OTHERS**-0.5, (others.shape[-1], OTHERS)).astype(np.float32)
        others = others @ torch.from_numpy(turn)
    return torch.cat([hidden, others], -1)


def _better(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether episodes are significantly likelier: [episodes] each."""
    difference = one - other
    return difference.mean() > SIGNIFICANT * difference.std(ddof=1) / len(difference) ** 0.5


class _Mixtures:
    """Mixtures of output layers on the same episodes."""

    def __init__(self, rows: Rows, episode: np.ndarray, inputs: Tensor, network: Network):
        self.rows, self.inputs, self.episode = rows, inputs, torch.from_numpy(episode)
        self.steps = np.bincount(episode).astype(float)  # of all agents together
        part = np.zeros(len(self.steps), int)
        part[episode] = rows.part
        self.train, self.judge = part == TRAIN, part != TRAIN
        self.first = slice(int((rows.part == TRAIN).sum()))  # rows that train: a sample lists their episodes first
        last = network.last
        weight = torch.cat([last.weight.T, torch.zeros(inputs.shape[-1] - last.in_features, last.out_features)])
        self.common = [weight[None].detach(), last.bias[None, None].detach()]  # [1, D, C * P], [1, 1, C * P]
        self.directions = self._directions(self._fitted(1)[0])

    def score(self, number: int) -> np.ndarray:
        """Log-likelihood of every episode that was not trained on, in nats."""
        layers, weights = self._fitted(number)
        with torch.no_grad():
            each = self._episodes(layers, slice(None)) + weights.log_softmax(0)[:, None]
        return each.logsumexp(0).numpy()[self.judge]

    def _fitted(self, number: int) -> tuple[list[Tensor], Tensor]:
        """Layers and log-weights of a mixture, from groups of episodes first and then by its own likelihood."""
        layers = [part.repeat(number, 1, 1).requires_grad_() for part in self.common]
        weights = torch.zeros(number, requires_grad=True)
        start = torch.from_numpy(self._grouped(number))
        optimizer = torch.optim.AdamW([*layers, weights], RATE, weight_decay=DECAY)
        train, count = torch.from_numpy(self.train), self.steps[self.train].sum()
        for update in range(UPDATES):
            each = self._episodes(layers, self.first) + weights.log_softmax(0)[:, None]
            own = each.gather(0, start[None])[0] if update < UPDATES // 2 else each.logsumexp(0)
            loss = -own[train].sum() / count
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return layers, weights

    def _episodes(self, layers: list[Tensor], which: slice) -> Tensor:
        """Log-likelihood of every episode's rows among some under every layer: [K, episodes]."""
        each = self.rows.log_likelihood(self.inputs[which] @ layers[0] + layers[1], which)
        return torch.zeros(len(each), len(self.steps)).index_add(1, self.episode[which], each)

    @torch.no_grad()
    def _directions(self, layers: list[Tensor]) -> np.ndarray:
        """The first principal components of the episodes' gradients at a common layer: [episodes, DIRECTIONS]."""
        logits = (self.inputs @ layers[0] + layers[1])[0].unflatten(-1, (self.rows.tokens.shape[-1], -1))
        logits = logits if self.rows.illegal is None else logits + self.rows.illegal
        missed = torch.zeros_like(logits).scatter(-1, self.rows.tokens[..., None], 1.0) - logits.softmax(-1)
        flat, sums = missed.flatten(1), []
        bounds = np.append(0, np.cumsum(self.steps)).astype(int)
        for begin, end in zip(bounds[:-1], bounds[1:]):
            sums.append((self.inputs[begin:end].T @ flat[begin:end]).flatten() / (end - begin) ** 0.5)
        found = torch.stack(sums)
        found = found - found[torch.from_numpy(self.train)].mean(0)
        left, sizes, _ = torch.linalg.svd(found, full_matrices=False)
        return (left * sizes)[:, :DIRECTIONS].numpy()

    def _grouped(self, number: int) -> np.ndarray:
        """The group of every episode: [episodes]."""
        if number == 1:
            return np.zeros(len(self.steps), int)
        found = [kmeans2(self.directions, number, minit="++", rng=k, missing="warn") for k in range(TRIES)]
        spreads = [np.square(self.directions - centres[group]).sum() for centres, group in found]
        return found[int(np.argmin(spreads))][1].astype(np.int64)
