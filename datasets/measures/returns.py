"""Returns, lengths, what remains to be gained, and how free the choice of actions is over time."""

from typing import Any

import numpy as np
from scipy.signal import find_peaks
from scipy.stats import gaussian_kde, kurtosis, skew

from offmarl.datasets.dataset import Dataset

TENTHS = 10  # of the longest episode's length
BINS = 10  # of [-1, 1], for the entropy of continuous actions
LEAST_PEAK = 0.05  # prominence of a mode, of the highest density


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Mean, deviation, quartiles, skew, excess kurtosis and modes of some episodes' values: [episodes].

    Skew and kurtosis are those of moments; None where all values are equal.
    """
    values = np.asarray(values, float)
    spread = float(values.std())
    quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    varied = spread > 1e-9 * max(1.0, abs(values.mean()))
    shape = [float(skew(values)), float(kurtosis(values))] if varied else [None, None]
    facts = {"mean": float(values.mean()), "deviation": spread, "quartiles": quartiles}
    return facts | {"skew": shape[0], "kurtosis": shape[1], "modes": modes(values) if varied else 1}


def modes(values: np.ndarray) -> int:
    """Peaks of a Gaussian kernel density with Silverman's width (1986), by the smaller of deviation and quartiles."""
    spread = np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.349
    scale = min(values.std(), spread) if spread > 0 else values.std()
    width = max(0.9 * scale * len(values) ** -0.2, np.ptp(values) / 128)  # a grid sees no narrower ones
    grid = np.linspace(values.min() - 3 * width, values.max() + 3 * width, 512)
    density = gaussian_kde(values, width / values.std(ddof=1))(grid)
    return len(find_peaks(density, prominence=LEAST_PEAK * density.max())[0])


def settled(data: Dataset) -> float:
    """Share of transitions in which nothing can be gained any more.

    From there to its episode's end, no agent receives a reward other than the commonest one of the data, which is what
    is paid where nothing happens. It looks back: nothing was gained any more, whether or not it could have been.
    """
    last = np.append(np.flatnonzero(np.diff(data.episode)), len(data) - 1)
    values, counts = np.unique(np.asarray(data.rewards), return_counts=True)
    moving = (data.rewards != values[counts.argmax()]).any(1)
    latest = np.maximum.accumulate(np.where(moving, np.arange(len(data)), -1))[last][data.episode]
    return float((np.arange(len(data)) > latest).mean())


def tenths(data: Dataset) -> np.ndarray:
    """The tenth of the longest episode's time in which every transition is: [N]."""
    time = np.arange(len(data)) - np.searchsorted(data.episode, data.episode)
    return time * TENTHS // (time.max() + 1)


def freedom(data: Dataset) -> dict[str, Any]:
    """By tenths of the longest episode: the actions' entropy, and that of an even choice among legal ones, in nats.

    Of agents and steps with a choice, all agents together; of continuous actions, coordinates by BINS parts of [-1, 1].
    Also the share of an agent's steps with a choice. Plug-in entropies: biased down by about (actions - 1) / 2n.
    """
    tenth = tenths(data)
    found = [_freedom(data, np.flatnonzero(tenth == k)) for k in range(TENTHS)]
    names = ("entropy", "even", "choice")
    return {name: [None if np.isnan(v) else float(v) for v in column] for name, column in zip(names, zip(*found))}


def _freedom(data: Dataset, steps: np.ndarray) -> tuple[float, float, float]:
    if not len(steps):
        return np.nan, np.nan, np.nan
    actions = data.actions[steps]
    if data.legal is None:
        parts = ((actions + 1) / 2 * BINS).astype(int).clip(0, BINS - 1).reshape(-1, actions.shape[-1])
        return float(np.mean([_entropy(column) for column in parts.T])), float(np.log(BINS)), 1.0
    count = data.legal[data.rows[steps]].sum(-1)
    free = count > 1
    if not free.any():
        return 0.0, 0.0, 0.0
    return _entropy(actions[free]), float(np.log(count[free]).mean()), float(free.mean())


def _entropy(values: np.ndarray) -> float:
    shares = np.bincount(values) / len(values)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
