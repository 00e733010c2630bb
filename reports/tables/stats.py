"""Means with intervals, aggregates over datasets, tests between methods, and the agreement of two rankings.

Scores over several datasets are a matrix `[N, D]` of seeds and datasets for each method. rliable is imported where it
is used: it takes seconds.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from offmarl.reports.tables.table import Row, Run

MIN_SEEDS = 3  # below this an interval over seeds says next to nothing
RESAMPLES = 2000
TARGET = 1.0  # what the optimality gap is short of
METRICS = ("iqm", "median", "mean", "optimality_gap")
Interval = tuple[Any, Any, Any]  # a number or an array of them, and the limits of its interval
Scores = Mapping[str, np.ndarray]


def estimate(cells: Sequence[Mapping[int, Sequence[float]]]) -> dict[str, Any]:
    """Mean return of a method over one cell or several, each given as {seed: returns of its episodes}.

    The mean is the mean of the cells, a cell's the mean of its seeds. The 95 % interval is Student's t over the means
    of the seeds, which cells share; where they have different seeds, it is Welch's, of cells that know nothing of each
    other. NaN, and `ci_over` None, below three seeds. `two_std` is twice the standard deviation (n - 1) of the means of
    the seeds that all cells have, as the papers print it; NaN for one seed.
    """
    means = [{seed: float(np.mean(episodes)) for seed, episodes in cell.items()} for cell in cells]
    mean = float(np.mean([np.mean(list(cell.values())) for cell in means]))
    common = set.intersection(*(set(cell) for cell in means))
    seeds = [np.mean([cell[seed] for cell in means]) for seed in sorted(common)]
    std = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else np.nan
    half, over = float(half_width(std, len(seeds))), "seeds" if len(seeds) >= MIN_SEEDS else None
    if over and any(cell.keys() != common for cell in means):
        error, freedom = error_of_mean([np.array([*cell.values()]) / len(means) for cell in means])
        half = float(stats.t.ppf(0.975, freedom)) * error
    interval = {"ci_low": mean - half, "ci_high": mean + half, "ci_over": over}
    return {"n_seeds": len(seeds), "mean": mean, "two_std": 2 * std, **interval}


def half_width(std: Any, count: Any) -> np.ndarray:
    """Half of Student's 95 % interval of a mean over `count` seeds, from their standard deviation (n - 1).

    Numbers or arrays; NaN below three seeds.
    """
    half = stats.t.ppf(0.975, np.maximum(count, MIN_SEEDS) - 1) * std / np.sqrt(count)
    return np.where(np.asarray(count) < MIN_SEEDS, np.nan, half)


def on_common_datasets(runs: Sequence[Run]) -> tuple[dict[str, dict[str, Any]], int]:
    """Title to mean return with its interval and `latency_ms`, over the datasets that all methods have; how many.

    A method does not have a dataset on which it lost a seed. No method has a point where they share none.
    """
    cells: dict[str, dict[tuple, list[Run]]] = {}
    for run in (run for run in runs if not run["n_lost"]):
        cells.setdefault(run["title"], {}).setdefault((run["task"], run["quality"]), []).append(run)
    common = sorted(set.intersection(*map(set, cells.values()))) if cells else []
    points = {}
    for title, own in cells.items() if common else ():
        latency = np.mean([np.mean([run["latency_ms"] for run in own[dataset]]) for dataset in common])
        returns = [{run["seed"]: run["episodes"] for run in own[dataset]} for dataset in common]
        points[title] = {"latency_ms": float(latency), **estimate(returns)}
    return points, len(common)


def part_of(values: Any, share: float) -> Any:
    """Numbers, all lowered by what their mean lacks to a share of it, of a negative mean as much as of a positive."""
    return values - (1 - share) * np.abs(np.mean(values))


def standings(values: Sequence[float]) -> list[str]:
    """ "best" for the highest value and all that equal it, "second" for the next lower one, otherwise empty."""
    values = [round(value, 9) for value in values]  # means of the same numbers in another order are equal
    named = dict(zip(sorted(set(values), reverse=True), ("best", "second")))
    return [named.get(value, "") for value in values]


def aggregates(scores: Scores) -> dict[str, dict[str, Interval]]:
    """Method to interquartile mean, median, mean and optimality gap (`METRICS`) with their 95 % intervals.

    `scores` are `[N, D]`, on one scale. The optimality gap is how far scores fall short of 1.0 in the mean, those above
    counting as 1.0. Intervals are percentiles of a bootstrap over the seeds of each dataset, the datasets kept fixed.
    """
    from rliable import metrics

    theirs = (metrics.aggregate_iqm, metrics.aggregate_median, metrics.aggregate_mean, metrics.aggregate_optimality_gap)
    found = {}
    for method, matrix in scores.items():
        _, low, high = _interval([matrix], _all_four)
        found[method] = dict(zip(METRICS, zip([one(matrix) for one in theirs], low, high)))
    return found


def _all_four(matrix: np.ndarray) -> np.ndarray:
    """`METRICS` as rliable defines them: its trimmed mean checks its input for ten times as long as it takes."""
    flat = np.sort(matrix, axis=None)
    cut, means = len(flat) // 4, matrix.mean(axis=0)
    gap = TARGET - np.minimum(flat, TARGET).mean()
    return np.array([flat[cut : len(flat) - cut].mean(), np.median(means), means.mean(), gap])


def profiles(scores: Scores, thresholds: np.ndarray) -> dict[str, Interval]:
    """Method to its performance profile: the share of runs above each threshold `[T]`, and the limits of its band."""
    return {
        method: _interval([matrix], lambda one: (one[..., None] > thresholds).mean(axis=(0, 1)))
        for method, matrix in scores.items()
    }


def improvement(scores: Scores, over: str) -> dict[str, Interval]:
    """Every other method to the probability that a run of it beats one of `over`, a tie counting half.

    The share of all pairs of seeds on a dataset, averaged over datasets: Mann and Whitney's U. Both are resampled.
    """

    def share(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return np.array([(np.sign(ours[:, None] - theirs[None]) + 1).mean() / 2])

    found = {name: _interval([matrix, scores[over]], share) for name, matrix in scores.items() if name != over}
    return {name: (point[0], low[0], high[0]) for name, (point, low, high) in found.items()}


def average_ranks(scores: Scores) -> dict[str, float]:
    """Method to its rank by mean score, 1 the best and ties sharing theirs, averaged over datasets."""
    means = pd.DataFrame({method: matrix.mean(axis=0) for method, matrix in scores.items()})
    ranks = means.round(9).rank(axis=1, ascending=False).to_numpy().mean(axis=0)
    return dict(zip(scores, ranks.tolist()))


def against(scores: Scores, best: str) -> dict[str, tuple[float, float]]:
    """Every other method to the p-value of its difference from `best`, raw and by Holm; NaN below three seeds.

    A two-sided Welch test of the means over all datasets: the variance of a difference is the sum of those of the
    seed means of each dataset, with Welch and Satterthwaite's degrees of freedom. Seeds are what was sampled, not
    datasets; methods differ too much in variance to pool it. `best` is picked by the same scores: it favours small p.
    """
    others = [method for method in scores if method != best]
    raw = [welch(scores[method], scores[best]) for method in others]
    return dict(zip(others, zip(raw, holm(raw))))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down rule; a NaN stays one and does not count."""
    p = np.array(values, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = np.arange(len(order), 0, -1)
    p[order] = np.minimum(np.maximum.accumulate(steps * p[order]), 1)
    return p.tolist()


def welch(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The p-value of a difference between two means over datasets, as `against` has it; NaN below three seeds.

    The two may be over different datasets, of different number.
    """
    if min(len(ours), len(theirs)) < MIN_SEEDS:
        return np.nan
    error, freedom = error_of_mean([*ours.T / ours.shape[1], *theirs.T / theirs.shape[1]])
    difference = abs(ours.mean() - theirs.mean())
    return float(2 * stats.t.sf(difference / error, freedom)) if error else float(difference == 0)


def error_of_mean(samples: Sequence[np.ndarray]) -> tuple[float, float]:
    """The standard error of a sum of independent samples' means, and Welch and Satterthwaite's degrees of freedom."""
    variances = np.array([np.var(own, ddof=1) / len(own) for own in samples])
    if not (total := variances.sum()):
        return 0.0, math.inf
    return float(total**0.5), float(total**2 / sum(variances**2 / [len(own) - 1 for own in samples]))


def _interval(matrices: list[np.ndarray], func: Callable[..., np.ndarray]) -> Interval:
    """`func` of the scores and the limits of its 95 % interval, which are NaN below three seeds.

    rliable draws from NumPy's global state whatever state it is given, so that is set here, and put back.
    """
    point = func(*matrices)
    if min(map(len, matrices)) < MIN_SEEDS:
        return point, np.full_like(point, np.nan), np.full_like(point, np.nan)
    from rliable import library

    state = np.random.get_state()
    np.random.seed(0)
    try:
        limits = library.get_interval_estimates({"": matrices}, func, reps=RESAMPLES)[1][""]
    finally:
        np.random.set_state(state)
    return point, limits[0], limits[1]


def rank_agreement(rows: Iterable[Row]) -> dict[tuple[str, str], tuple[float, int]]:
    """(task, quality) to Kendall's tau-b between our means and the published ones, and the number of methods.

    For each dataset and average with three methods or more on both sides; where one side ranks them all equal there is
    no tau and no entry.
    """
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row.counts and not np.isnan(row.published_mean):
            pairs.setdefault((row.task, row.quality), []).append((row.mean, row.published_mean))
    taus: dict[tuple[str, str], tuple[float, int]] = {}
    for key, both in pairs.items():
        tau: Any = stats.kendalltau(*zip(*both))[0] if len(both) >= 3 else np.nan
        if not np.isnan(tau):
            taus[key] = float(tau), len(both)
    return taus
