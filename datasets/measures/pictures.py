"""What the figures of a dataset show: returns, return against length, actions over time, places in battles.

Counts of whole episodes, at most EPISODES of them, evenly over the data; returns are of all episodes.
"""

from typing import Any

import numpy as np

from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.measures.returns import TENTHS, tenths
from offmarl.datasets.part import take

EPISODES = 1000
BARS, CELLS, PLACES = 40, 16, 24  # of returns; along heat maps
BATTLE = ("dead", "stop", "move", "attack")
MOVE, ATTACK = 2, 6  # the first action that moves and the first that attacks, in battles
NAMED = 5  # most frequent actions of other tasks, which have no names
THIRD = 1 / 3  # of continuous coordinates
HALF_MAP, MAP = 16.0, 32.0


def pictures(data: Dataset, task: Task) -> dict[str, Any]:
    """Every figure's numbers, for a file; `places` only of battles in SMAX."""
    returns, lengths = data.returns(), np.bincount(data.episode)
    found: dict[str, Any] = {"returns": _histogram(returns)}
    if len(np.unique(lengths)) > 1:
        found["lengths"] = _grid(lengths, returns)
    some = np.unique(np.linspace(0, len(lengths) - 1, EPISODES).astype(int))
    part = data if len(some) == len(lengths) else take(data, some)
    found |= {"episodes": len(some), "actions": actions_over_time(part, task)}
    return found | ({"places": places(part, task)} if task.engine == "smax" else {})


def _histogram(values: np.ndarray) -> dict[str, Any]:
    counts, edges = np.histogram(values, BARS)
    return {"ends": [float(edges[0]), float(edges[-1])], "counts": counts.tolist(), "mean": float(values.mean())}


def _grid(lengths: np.ndarray, returns: np.ndarray) -> dict[str, Any]:
    """Episodes by length (columns) and return (rows, the lowest first)."""
    counts, across, up = np.histogram2d(lengths, returns, CELLS)
    ends = {"lengths": [float(across[0]), float(across[-1])], "returns": [float(up[0]), float(up[-1])]}
    return {**ends, "counts": counts.T.astype(int).tolist()}


def actions_over_time(data: Dataset, task: Task) -> dict[str, Any]:
    """Shares of kinds of actions of every agent by tenths of the longest episode: `shares` [I][TENTHS][kinds].

    A tenth without steps has none. Kinds are those of battles, else the NAMED most frequent actions and the rest; of
    continuous actions thirds of [-1, 1], all coordinates together.
    """
    kinds, names = _kinds(data.actions, task)
    tenth, shares = tenths(data), []
    for agent in range(kinds.shape[1]):
        own = kinds[:, agent].reshape(len(data), -1)
        cells = tenth[:, None] * len(names) + own
        counts = np.bincount(cells.ravel(), minlength=TENTHS * len(names)).reshape(TENTHS, len(names))
        total = counts.sum(1, keepdims=True)
        shares.append((counts / np.maximum(total, 1)).round(4).tolist())
    return {"names": names, "shares": shares, "steps": int(np.bincount(data.episode).max())}


def _kinds(actions: np.ndarray, task: Task) -> tuple[np.ndarray, list[str]]:
    """The kind of every action [N, I] or coordinate [N, I, A], and the kinds' names."""
    if actions.ndim == 3:
        return np.digitize(actions, [-THIRD, THIRD]), ["below −⅓", "between", "above ⅓"]
    if task.family in ("smac", "smacv2"):
        return np.digitize(actions, [1, MOVE, ATTACK]), list(BATTLE)
    order = np.argsort(-np.bincount(actions.ravel()), kind="stable")[:NAMED]
    order = np.sort(order)
    kind = np.full(int(actions.max()) + 1, len(order))
    kind[order] = np.arange(len(order))
    rest = ["others"] if actions.max() >= len(order) else []
    return kind[actions], [*(f"action {k}" for k in order), *rest]


def places(data: Dataset, task: Task) -> dict[str, Any]:
    """Units that start and that die, ours and theirs, by place: counts [PLACES, PLACES], the lowest row first."""
    ours, theirs = _units(data.state, task)
    first = data.rows[np.searchsorted(data.episode, np.arange(len(data.behaviour)))]
    found: dict[str, Any] = {"size": MAP}
    for side, (health, here) in {"ours": ours, "theirs": theirs}.items():
        died = (health[data.rows] > 0) & (health[data.rows + 1] <= 0)
        found[side] = {"start": _map(here[first].reshape(-1, 2)), "death": _map(here[data.rows][died])}
    return found


def _units(state: np.ndarray, task: Task) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Health [R, K] and places [R, K, 2] of both sides, from SMAC's state."""
    roster, n = task.roster, task.agents
    m, bits = task.actions - ATTACK, roster.get("type_bits", 0)
    shield = [any(UNITS[unit].shield for unit in roster.get(side, ())) for side in ("allies", "enemies")]
    wide, narrow = 4 + shield[0] + bits, 3 + shield[1] + bits
    mine = state[:, : n * wide].reshape(-1, n, wide)
    others = state[:, n * wide : n * wide + m * narrow].reshape(-1, m, narrow)
    return (mine[..., 0], mine[..., 2:4] * MAP + HALF_MAP), (others[..., 0], others[..., 1:3] * MAP + HALF_MAP)


def _map(points: np.ndarray) -> list[list[int]]:
    x, y = points.clip(0, MAP).T  # who stands outside is at its edge
    counts, _, _ = np.histogram2d(y, x, PLACES, ((0, MAP), (0, MAP)))
    return counts.astype(int).tolist()
