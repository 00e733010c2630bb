"""How well small networks predict the actions of held-out episodes, by what they see.

One network serves all agents: p(a_i | o_i, i, more), two hidden layers, trained on some episodes, stopped by others and
judged by the rest. A network that sees more begins as the one that sees the observation alone, so what it gains
is what the rest brings. Continuous actions are cut into parts of equal frequency, coordinate by coordinate, so that no
shape of distribution is assumed; nats are then those of the parts, and a lower bound of the actions' own.

Shapes: n steps, I agents, O observation, C coordinates of an action (1 where discrete), P parts of each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from offmarl.datasets.dataset import Dataset

STEPS, AGENT_STEPS = 24_000, 120_000  # at most so many are looked at
EPISODES = 400  # at most, unless so many do not have these steps
EPISODES_NEEDED = 8
PARTS = 12  # of a continuous coordinate
HIDDEN, BATCH, RATE = 64, 512, 4e-3
UPDATES, LOOK, PATIENCE = 1500, 10, 12  # at most, between two looks at the episodes that stop, looks without a gain
DECAY = 0.95  # of the average of the weights, which is judged: it sees small gains that one network's noise hides
LEAST = 1e-3  # nats an action that count as a gain
SHARES = (0.6, 0.15, 0.25)  # of episodes that train, stop and judge
TRAIN, STOP, JUDGE = range(3)


class TooFew(ValueError):
    """There are too few episodes to train on some and to judge by others."""


@dataclass(frozen=True)
class Sample:
    """Steps of whole episodes, or some steps of each where episodes are long."""

    obs: np.ndarray  # [n, I, O] in deviations of the training steps
    tokens: np.ndarray  # [n, I, C] int64
    legal: np.ndarray | None  # [n, I, P] bool
    history: np.ndarray  # [n, I, H]: see `_history`
    episode: np.ndarray  # [n], counted from 0
    part: np.ndarray  # [n]: TRAIN, STOP or JUDGE, the same for a whole episode
    origin: np.ndarray  # [n]: the dataset, counted from 0
    behaviour: np.ndarray  # [episodes]
    parts: int  # P

    def others(self) -> np.ndarray:
        """The actions of the agents before each, others zero: [n, I, I * C * P]; so gains add up to a joint one."""
        n, I, _ = self.tokens.shape
        before = np.tri(I, k=-1, dtype=np.float32)[None, :, :, None]
        return (before * one_hot(self.tokens, self.parts)[:, None]).reshape(n, I, -1)


def sample(*datasets: Dataset, seed: int = 0) -> Sample:
    """At most STEPS steps (fewer of many agents), drawn evenly, of each dataset the same share.

    They are all steps of whole episodes, or some steps of EPISODES where these are long.

    Raises TooFew below EPISODES_NEEDED.
    """
    rng, edges, columns, behaviours = np.random.default_rng(seed), _edges(datasets), [], []
    for origin, data in enumerate(datasets):
        most = min(STEPS, AGENT_STEPS // data.obs.shape[1]) // len(datasets)
        many = max(EPISODES // len(datasets), most * len(data.behaviour) // len(data))
        chosen = rng.permutation(len(data.behaviour))[:many]
        if len(chosen) < EPISODES_NEEDED:
            raise TooFew(f"{len(chosen)} episodes: too few to train on some and to judge by others")
        whole = len(chosen) * len(data) <= most * len(data.behaviour)
        each = len(data) if whole else max(4, most // len(chosen))
        ends = np.round(np.cumsum(SHARES) * len(chosen))[:-1]
        for k, e in enumerate(chosen):
            part = np.searchsorted(ends, k, side="right")
            columns.append((*_steps_of(data, e, each, edges, rng), len(columns), part, origin))
        behaviours.append(data.behaviour[chosen])
    lengths = [len(column[0]) for column in columns]
    obs, tokens, legal, history, *facts = map(list, zip(*columns))
    del columns  # each list below is given up as it is joined: histories of many agents are large
    episode, part, origin = (np.repeat(values, lengths) for values in facts)
    legal = None if legal[0] is None else _joined(legal)
    obs, history = (_scaled(_joined(values), part == TRAIN) for values in (obs, history))
    tokens = _joined(tokens)
    parts = PARTS if legal is None else legal.shape[-1]
    return Sample(obs, tokens, legal, history, episode, part, origin, np.concatenate(behaviours), parts)


def _steps_of(
    data: Dataset, episode: int, most: int, edges: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Observations, tokens, legal actions and history of some steps of an episode."""
    steps = np.arange(*np.searchsorted(data.episode, [episode, episode + 1]))
    kept = np.sort(rng.choice(len(steps), min(most, len(steps)), replace=False))
    obs, tokens = data.obs[data.rows[steps]], _tokens(data.actions[steps], edges)
    legal = None if data.legal is None else _with_chosen(data.legal[data.rows[steps[kept]]], tokens[kept])
    return obs[kept], tokens[kept], legal, _history(obs, tokens, PARTS if legal is None else legal.shape[-1])[kept]


def one_hot(tokens: np.ndarray, parts: int) -> np.ndarray:
    """[..., C] -> [..., C * P] float32."""
    return np.eye(parts, dtype=np.float32)[tokens].reshape(*tokens.shape[:-1], -1)


def _edges(datasets: Sequence[Dataset]) -> np.ndarray | None:
    """Inner ends of the parts of continuous actions: [I, A, PARTS - 1]; None for discrete ones."""
    if datasets[0].actions.ndim == 2:
        return None
    some = np.concatenate([data.actions[:: max(1, len(data) // STEPS)] for data in datasets])
    return np.moveaxis(np.quantile(some, np.arange(1, PARTS) / PARTS, axis=0), 0, -1)


def _tokens(actions: np.ndarray, edges: np.ndarray | None) -> np.ndarray:
    """The class of each coordinate: [n, I, C]."""
    return actions[..., None].astype(np.int64) if edges is None else (actions[..., None] > edges).sum(-1)


def _with_chosen(legal: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Legal actions, and the one that was taken even so."""
    return legal | one_hot(tokens, legal.shape[-1]).astype(bool)


def _history(obs: np.ndarray, tokens: np.ndarray, parts: int) -> np.ndarray:
    """What an agent has seen and done: one and two steps before, and on average since the start; zeros before it."""
    own = np.concatenate([obs, one_hot(tokens, parts)], -1)
    own = np.concatenate([own, np.ones_like(own[..., :1])], -1)  # that there was such a step
    past = np.concatenate([np.zeros((2, *own.shape[1:]), own.dtype), own])
    count = np.maximum(np.arange(len(own)), 1)[:, None, None]
    return np.concatenate([past[1:-1], past[:-2], (np.cumsum(own, 0) - own) / count], -1).astype(np.float32)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """One array of a list's, which is emptied."""
    joined = np.concatenate(arrays)
    arrays.clear()
    return joined


def _scaled(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """In deviations of some steps, in place; what does not vary in them is zero."""
    mean, deviation = values[of].mean((0, 1)), values[of].std((0, 1))
    values -= mean
    np.divide(values, deviation, out=values, where=deviation > 1e-6)
    values[..., deviation <= 1e-6] = 0
    return values.clip(-10, 10, out=values)


class Network(nn.Module):
    """Logits of an action's parts from an observation and, from zero weights on, from what else is shown."""

    def __init__(self, obs: int, more: int, outputs: int):
        super().__init__()
        self.first, self.more = nn.Linear(obs, HIDDEN), nn.Linear(more, HIDDEN, bias=False)
        self.second, self.last = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, outputs)
        nn.init.zeros_(self.more.weight)

    def features(self, obs: Tensor, more: Tensor) -> Tensor:
        """The last hidden layer."""
        return F.relu(self.second(F.relu(self.first(obs) + self.more(more))))

    def forward(self, obs: Tensor, more: Tensor) -> Tensor:
        """Logits [rows, C * P]."""
        return self.last(self.features(obs, more))


class Rows(NamedTuple):
    """A sample with one row for each step and agent."""

    obs: Tensor  # [n * I, O + I]
    tokens: Tensor  # [n * I, C]
    illegal: Tensor | None  # [n * I, 1, P]: -inf where illegal, else 0
    part: np.ndarray  # [n * I]
    agents: int

    def log_likelihood(self, logits: Tensor, which: Tensor | slice) -> Tensor:
        """Of the actions taken in some rows, from logits [..., rows, C * P]: [..., rows]."""
        tokens = self.tokens[which]
        logits = logits.unflatten(-1, (tokens.shape[-1], -1))
        if self.illegal is not None:
            logits = logits + self.illegal[which]
        index = tokens.expand(*logits.shape[:-3], *tokens.shape)[..., None]
        return logits.log_softmax(-1).gather(-1, index)[..., 0].sum(-1)


def rows_of(seen: Sample) -> Rows:
    """The rows of a sample, agents within steps."""
    n, I, _ = seen.obs.shape
    named = np.concatenate([seen.obs, np.broadcast_to(np.eye(I, dtype=np.float32), (n, I, I))], -1)
    legal = None if seen.legal is None else torch.from_numpy(seen.legal).flatten(0, 1)[:, None]
    illegal = None if legal is None else torch.zeros(legal.shape).masked_fill(~legal, -math.inf)
    obs, tokens = (torch.from_numpy(values).flatten(0, 1) for values in (named, seen.tokens))
    return Rows(obs, tokens, illegal, np.repeat(seen.part, I), I)


class Fitted(NamedTuple):
    """A trained network, and the log-likelihood of the actions that judge: [rows], nats; 0 in other rows."""

    network: Network
    scores: np.ndarray


def fit(rows: Rows, more: Tensor, start: Network | None = None, seed: int = 0) -> Fitted:
    """Train a network that sees `more` [rows, M] beside observations, from `start` on, with its input's weights zero.

    Judged and returned is the running average of its weights. Training ends when the episodes for that gain nothing any
    more. An agent's actions are judged by the network as it was when it was best for this agent, so that agents with
    nothing to learn do not end it for the others.
    """
    network = _network(rows, more.shape[-1], start, seed)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    train, stop, judge = (np.flatnonzero(rows.part == part) for part in (TRAIN, STOP, JUDGE))
    rng = np.random.default_rng(seed)
    best, idle, kept = np.full(rows.agents, -math.inf), 0, {}
    scores = np.zeros(len(rows.part), np.float32)
    for update in range(UPDATES + 1):
        if update % LOOK == 0:
            seen = cast(Network, average.module)
            found = log_likelihood(seen, rows, more, stop).reshape(-1, rows.agents).mean(0)
            better, idle = found > best + LEAST, idle + 1
            if better.any():
                idle, kept = 0, {name: value.clone() for name, value in seen.state_dict().items()}
                own = judge[better[judge % rows.agents]]
                scores[own], best = log_likelihood(seen, rows, more, own), np.where(better, found, best)
            if idle == PATIENCE:
                break
        batch = torch.from_numpy(rng.choice(train, BATCH))
        loss = -rows.log_likelihood(network(rows.obs[batch], more[batch]), batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
    network.load_state_dict(kept)
    return Fitted(network, scores)


def _network(rows: Rows, more: int, start: Network | None, seed: int) -> Network:
    """A new network, with the weights of another where it is given."""
    outputs = rows.tokens.shape[-1] * (PARTS if rows.illegal is None else rows.illegal.shape[-1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(rows.obs.shape[-1], more, outputs)
    if start is not None:
        network.load_state_dict(start.state_dict() | {"more.weight": network.more.weight})
    return network


@torch.no_grad()
def log_likelihood(network: Network, rows: Rows, more: Tensor, which: np.ndarray) -> np.ndarray:
    """Of the actions of some rows, in nats."""
    chunks = torch.from_numpy(which).split(16 * BATCH)
    return torch.cat([rows.log_likelihood(network(rows.obs[i], more[i]), i) for i in chunks]).numpy()


def permuted(groups: np.ndarray, contexts: np.ndarray, seed: int = 0, leaf: int = 8) -> np.ndarray:
    """A permutation of rows within their group and among rows of near contexts: [rows].

    A tree of random projections cuts each group's contexts [rows, D] in halves until `leaf` rows are left, and
    these are shuffled (a local permutation: Kim, Neykov, Balakrishnan and Wasserman, Annals of Statistics 2022).
    """
    rng = np.random.default_rng(seed)
    taken = np.arange(len(groups))
    for group in np.unique(groups):
        blocks = [np.flatnonzero(groups == group)]
        while len(blocks[0]) > leaf:
            direction = rng.normal(size=contexts.shape[-1])
            ordered = (block[np.argsort(contexts[block] @ direction, kind="stable")] for block in blocks)
            blocks = [half for block in ordered for half in np.array_split(block, 2)]
        for block in blocks:
            taken[block] = rng.permutation(block)
    return taken
