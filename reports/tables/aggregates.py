"""Aggregates of a group of datasets: rliable's numbers, tests and ranks for every method that has all of them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from offmarl.reports.tables import stats
from offmarl.reports.tables.markdown import escape
from offmarl.reports.tables.markdown import table as markdown_table
from offmarl.reports.tables.table import NAMES as PLAYS
from offmarl.reports.tables.table import SCORE, Run, Table, span

BASELINE = "bc"  # improved upon where a suite has no headline method
NAMES = {"iqm": "IQM", "median": "median", "mean": "mean", "optimality_gap": "optimality gap ↓"}
ENDS = [f"{metric}{end}" for metric in [*stats.METRICS, "improvement"] for end in ("", "_low", "_high")]
COLUMNS = ["group", "play", "algorithm", "title", "profile", "source", "n_datasets", "n_seeds", *ENDS, "over"]
COLUMNS += ["rank", "best", "p", "p_holm"]
Row = dict[str, Any]
Dataset = tuple[str, str]


class Scale(NamedTuple):
    """The returns that count as 0 and as 1 on a dataset."""

    low: float
    high: float
    own: bool  # the task's own, not the data's


Scales = dict[Dataset, Scale]
RULE = (
    "Scores on one scale: the mean return of a run's last evaluation, {scales}. Optimality gap: the mean shortfall of "
    "scores from 1.0, higher ones counted as 1.0 (↓: lower is better). P: the probability that a run beats a run of "
    "the named method, averaged over datasets. Rank: by mean on each dataset, averaged over datasets. p: two-sided "
    "Welch test against the group's best mean, over the means of seeds on each dataset, corrected by Holm for the "
    "group's methods."
)
OVER_SEEDS = "Brackets: 95 % intervals, a bootstrap over the seeds of each dataset (rliable, {:,} resamples)."
TOO_FEW = "fewer than three seeds: no interval and no test"


@dataclass(frozen=True)
class Aggregates:
    """The numbers of every group and method; no rows where no method has all datasets of a group."""

    title: str
    rows: list[Row]  # a dict per group and method, with the keys of COLUMNS
    notes: list[str]
    profiles: dict[str, tuple[np.ndarray, dict[str, stats.Interval]]]  # `block_name` to thresholds, and curves

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame; `aggregates.csv` is this."""
        return pd.DataFrame(self.rows, columns=pd.Index(COLUMNS))


def build(table: Table, suite: dict) -> Aggregates:
    """The aggregates of the runs that a suite's table shows."""
    rows, notes, scales, profiles = [], [], {}, {}
    place = {"profile": table.rows[0].profile, "source": table.rows[0].source}
    for group, play in product(table.groups, table.plays):
        runs, datasets = _members(table, group, play)
        found = scales_of(runs)
        scores, incomplete = _matrices(runs, datasets, found)
        if scores:
            notes += _notes(
                block_name(group, play), incomplete, [name for key, name in datasets.items() if key not in found]
            )
            scales |= found
            rows += [
                row | place | {"play": play} for row in _rows(group, scores, runs, suite.get("headline", BASELINE))
            ]
            taus = np.linspace(0, 1.02 * max(1, *(matrix.max() for matrix in scores.values())), 101)
            profiles[block_name(group, play)] = taus, stats.profiles(scores, taus)
    few = any(row["n_seeds"] < stats.MIN_SEEDS for row in rows)
    intervals = OVER_SEEDS.format(stats.RESAMPLES) if any(row["n_seeds"] >= stats.MIN_SEEDS for row in rows) else ""
    below = [RULE.format(scales=_words(scales)), intervals, f"With {TOO_FEW}." if few else "", *notes, *table.mixed]
    return Aggregates(f"{suite['title']}: aggregates", rows, [text for text in below if text], profiles)


def scores_of(table: Table, group: str, qualities: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Method to its scaled scores `[N, D]` on a group's datasets, or on those of some qualities, in the first play."""
    runs, datasets = _members(table, group, table.plays[0])
    datasets = {place: label for place, label in datasets.items() if not qualities or place[1] in qualities}
    runs = [run for run in runs if (run["task"], run["quality"]) in datasets]
    return _matrices(runs, datasets, scales_of(runs))[0]


def _members(table: Table, group: str, play: str) -> tuple[list[Run], dict[Dataset, str]]:
    """The runs of a group in one play, without cells that lost a seed, and its datasets with their labels."""
    runs = [run for run in table.runs if (run["group"], run["play"], run["n_lost"]) == (group, play, 0)]
    own = [row for row in table.rows if (row.group, row.play) == (group, play) and not row.is_average]
    return runs, {(row.task, row.quality): row.label for row in own}


def markdown(found: Aggregates) -> str:
    """A table per group, and what its numbers are."""
    parts = [f"### {escape(found.title)}"]
    for group, (sizes, head, body) in tabulated(found).items():
        head, *body = ([escape(text) for text in row] for row in (head, *body))
        parts += [f"{escape(group)} ({sizes})", markdown_table(head, body, numbers=True)]
    return "\n\n".join([*parts, *map(escape, found.notes)]) + "\n"


def tabulated(found: Aggregates) -> dict[str, tuple[str, list[str], list[list[str]]]]:
    """Group, in each play, to the sizes that it pools, and the head and rows of its table, in words."""
    tables = {}
    for group, play in dict.fromkeys((row["group"], row["play"]) for row in found.rows):
        methods = [row for row in found.rows if (row["group"], row["play"]) == (group, play)]
        over, best = (next(filter(None, (row[key] for row in methods)), "") for key in ("over", "best"))
        head = ["method", *NAMES.values(), f"P(better than {over})", "rank", f"p against {best}"]
        sizes = [span((row[f"n_{unit}s"] for row in methods), unit) for unit in ("dataset", "seed")]
        tables[block_name(group, play)] = ", ".join(sizes), head, [[row["title"], *_cells(row)] for row in methods]
    return tables


def block_name(group: str, play: str) -> str:
    """What the aggregates of a group in one play are called: 'SMACv1', 'SMACv1 (zero noise)'."""
    return " ".join(filter(None, [group, PLAYS.get(play)]))


def _cells(row: Row) -> list[str]:
    """The numbers of a method: four aggregates, probability of improvement, rank and corrected p."""
    numbers = [_number(row, metric) for metric in [*stats.METRICS, "improvement"]]
    p = "–" if pd.isna(row["p_holm"]) else "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
    return [*numbers, f"{row['rank']:.2f}", p]


def _number(row: Row, metric: str) -> str:
    if pd.isna(row[metric]):
        return "–"
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return f"{row[metric]:.2f}" + ("" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]")


def scales_of(runs: list[Run]) -> Scales:
    """The scale of every dataset that can be pooled: its task's own if all runs agree on it, else its data's."""
    limits: dict[Dataset, set[tuple[float, ...]]] = defaultdict(set)
    scales: Scales = {}
    for run in runs:
        place = run["task"], run["quality"]
        score = (0.0, 100.0) if run["unit"] == SCORE else run["score"]
        limits[place].add(tuple(score or ()))
        if run["dataset_mean"] > 0:
            scales[place] = Scale(0.0, run["dataset_mean"], False)
    own = {place: found.pop() for place, found in limits.items() if len(found) == 1}
    return scales | {place: Scale(score[0], score[1], True) for place, score in own.items() if score}


def _matrices(
    runs: list[Run], datasets: dict[Dataset, str], scales: Scales
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Method to scaled scores `[N, D]` of the seeds that all its datasets have, and title to why it has none."""
    cells: dict[tuple[str, str], dict[Dataset, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        cells[run["algorithm"], run["title"]][run["task"], run["quality"]][run["seed"]] = run["final"]
    scores, incomplete = {}, {}
    pooled = [place for place in datasets if place in scales]
    for (method, title), own in cells.items():
        seeds = sorted(set.intersection(*(set(own.get(place, ())) for place in pooled))) if pooled else []
        if len(own) < len(datasets):
            incomplete[title] = f"{len(own)} of {len(datasets)} datasets"
        elif seeds:
            columns = [[own[place][seed] for place in pooled] for seed in seeds]
            low, high, _ = (np.array(ends) for ends in zip(*(scales[place] for place in pooled)))
            scores[method] = (np.array(columns) - low) / (high - low)
        else:
            incomplete[title] = "no seed on every dataset"
    return scores, incomplete


def _notes(group: str, incomplete: dict[str, str], unscaled: Sequence[str]) -> list[str]:
    """The methods and datasets that are missing from a group's aggregates."""
    notes = []
    if incomplete:
        methods = ", ".join(f"{title} ({reason})" for title, reason in incomplete.items())
        notes.append(f"{group}: not among the aggregates: {methods}.")
    if unscaled:
        notes.append(f"{group}: excluded, because they have no scale: {', '.join(unscaled)}.")
    return notes


def _rows(group: str, scores: dict[str, np.ndarray], runs: list[Run], headline: str) -> list[Row]:
    """All numbers of a group's methods."""
    titles = {run["algorithm"]: run["title"] for run in runs}
    best = max(scores, key=lambda method: scores[method].mean())
    four, ranks, tests = stats.aggregates(scores), stats.average_ranks(scores), stats.against(scores, best)
    better = stats.improvement(scores, headline) if headline in scores else {}
    nothing = (np.nan,) * 3
    rows = []
    for method, matrix in scores.items():
        row: Row = {"group": group, "algorithm": method, "title": titles[method], "best": titles[best]}
        row |= {"over": titles[headline] if better else "", "rank": ranks[method]}
        row |= {"n_seeds": len(matrix), "n_datasets": matrix.shape[1]}
        for metric, three in {**four[method], "improvement": better.get(method, nothing)}.items():
            row |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), map(float, three)))
        rows.append(row | dict(zip(("p", "p_holm"), tests.get(method, nothing))))
    return rows


def _words(scales: Scales) -> str:
    """How returns become scores, in words: which tasks have a scale of their own."""
    own = sorted({task.split("/")[-1] for (task, _), scale in scales.items() if scale.own})
    divided = "divided by the mean return of the data (1 is as good as the data)"
    if not own:
        return divided
    text = f"on {', '.join(own)} as a share of the way from a random policy's (0) to an expert's (1)"
    return text if all(scale.own for scale in scales.values()) else f"{text}, elsewhere {divided}"
