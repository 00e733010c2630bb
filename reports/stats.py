"""Means with intervals, and the agreement of two rankings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

MIN_SEEDS = 3  # below this an interval over seeds says next to nothing


def estimate(cells: Sequence[Mapping[int, Sequence[float]]]) -> dict[str, Any]:
    """Mean return of a method over one cell or several, each given as {seed: returns of its episodes}.

    The mean is the mean of the cells, a cell's the mean of its seeds. With three seeds or more (common to all
    cells) the 95 % interval is Student's t over the means of the seeds and `ci_over` says "seeds"; with fewer there is
    none, NaN. `two_std` is twice the standard deviation (n - 1) of the means of the seeds, as the papers print it; NaN
    for one seed.
    """
    means = [{seed: float(np.mean(episodes)) for seed, episodes in cell.items()} for cell in cells]
    mean = float(np.mean([np.mean(list(cell.values())) for cell in means]))
    common = set.intersection(*(set(cell) for cell in means))
    seeds = [np.mean([cell[seed] for cell in means]) for seed in sorted(common)]
    std = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else np.nan
    half, over = np.nan, None
    if len(seeds) >= MIN_SEEDS:
        half, over = float(stats.t.ppf(0.975, len(seeds) - 1)) * std / len(seeds) ** 0.5, "seeds"
    interval = {"ci_low": mean - half, "ci_high": mean + half, "ci_over": over}
    return {"n_seeds": len(seeds), "mean": mean, "two_std": 2 * std, **interval}


def rank_agreement(table: pd.DataFrame) -> dict[tuple[str, str], tuple[float, int]]:
    """(task, quality) to Kendall's tau-b between our means and the published ones, and the number of methods.

    For each row of the long table, averages too, with three methods or more on both sides; where one side
    ranks them all equal there is no tau and no entry.
    """
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cell in table.dropna(subset=["mean", "published_mean"]).to_dict("records"):
        pairs.setdefault((cell["task"], cell["quality"]), []).append((cell["mean"], cell["published_mean"]))
    taus: dict[tuple[str, str], tuple[float, int]] = {}
    for key, both in pairs.items():
        tau: Any = stats.kendalltau(*zip(*both))[0] if len(both) >= 3 else np.nan
        if not np.isnan(tau):
            taus[key] = float(tau), len(both)
    return taus
