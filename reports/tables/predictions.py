"""What data predict: the measures of datasets against what methods gain on them.

A question sets a measure against the gain of one kind of method over another. The gain on a dataset is the mean
difference of scores over the pairs of methods that both have all their seeds there; a pair is as alike as possible but
for the kind. A task's datasets share one scale, its own or 0 to their highest mean return: if each had its own, gains
would be divided by what spreads of returns are divided by, and agree with them on whatever data. The answer is
Spearman's rank correlation over datasets, with a bootstrap interval that resamples tasks, since a task's datasets are
not independent, and the correlations that are left when one task is left out.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from offmarl.reports.tables.aggregates import Scale, scales_of
from offmarl.reports.tables.table import Table

RESAMPLES, LEVEL = 2000, 95
LEAST_TASKS = 6  # fewer cannot tell: five that have nothing to do with a claim agree on it, or against it, once in 16
Dataset = tuple[str, str]  # task and quality


class Question(NamedTuple):
    """A measure, the claim about it, and the pairs of methods (with what it should help, and without)."""

    title: str
    claim: str
    measure: str  # in words
    read: Callable[[Mapping[str, Any]], float]
    pairs: tuple[tuple[str, str], ...]


QUESTIONS = (
    Question(
        "Coordination",
        "Joint methods gain over factorised ones where agents’ actions depend on each other.",
        "coordination, nats a step",
        lambda found: found["coordination"]["nats"],
        (("mac_flow", "ma_fql"), ("madiff_d", "diffusion_bc"), ("madiff_c", "madiff_d")),
    ),
    Question(
        "Memory",
        "Recurrent methods gain over memoryless ones where an agent’s past tells of its actions.",
        "memory, nats a step",
        lambda found: found["memory"]["nats"],
        (("bc_rnn", "bc"), ("maicq", "icq"), ("qmix_cql", "macql")),
    ),
    Question(
        "Spread of returns",
        "Value methods gain over cloning where the returns of the data are spread.",
        "coefficient of variation of returns",
        lambda found: found["returns"]["deviation"] / max(abs(found["returns"]["mean"]), 1e-9),
        (
            *((method, "bc") for method in ("macql", "mabcq", "icq", "omiga", "matd3bc", "omar")),
            *((method, "bc") for method in ("cfcql", "comadice", "b3c", "recipe")),
            *((method, "flow_bc") for method in ("mac_flow", "ma_fql", "om2p")),
            ("ma_sfbc", "diffusion_bc"),
        ),
    ),
)


class Point(NamedTuple):
    """A dataset: its measure, and the gain over the pairs that were run on it."""

    task: str
    quality: str
    measure: float
    gain: float
    pairs: int


@dataclass(frozen=True)
class Answer:
    """What the results say to a question; no correlation where there are too few tasks, or one decides it."""

    question: Question
    points: list[Point]
    correlation: float | None = None
    interval: tuple[float, float] | None = None
    left_out: tuple[float, float] | None = None  # the least and the greatest correlation without one task
    by_pair: tuple[tuple[str, int, float], ...] = ()  # titles, datasets and correlation of a pair

    @property
    def verdict(self) -> str:
        """`holds` where the whole interval and every correlation without a task are above 0; below 0: `does not`."""
        if self.interval is None or self.left_out is None:
            return "cannot tell"
        if min(*self.interval, *self.left_out) > 0:
            return "holds"
        return "does not hold" if max(*self.interval, *self.left_out) < 0 else "cannot tell"


def answers(tables: Iterable[Table], measures: Mapping[Dataset, Mapping[str, Any]]) -> list[Answer]:
    """An answer to every question from some tables of one profile and source and the measures of their datasets."""
    gains: dict[tuple[str, str], dict[Dataset, list[float]]] = defaultdict(lambda: defaultdict(list))
    titles: dict[str, str] = {}
    for table in tables:
        titles |= table.titles
        scores = _scores(table)
        for pair in (pair for question in QUESTIONS for pair in question.pairs):
            one, other = (scores.get(method, {}) for method in pair)
            for place in one.keys() & other.keys() & measures.keys():
                gains[pair][place].append(one[place] - other[place])
    return [_answer(question, gains, measures, titles) for question in QUESTIONS]


def _scores(table: Table) -> dict[str, dict[Dataset, float]]:
    """Method to its mean scaled score on every dataset where it lost no seed."""
    runs = [run for run in table.main_runs if not run["n_lost"]]
    scales, found = scales_of(runs), defaultdict(lambda: defaultdict(list))
    highest: dict[str, Scale] = {}
    for (task, _), scale in scales.items():
        highest[task] = max(highest.get(task, scale), scale, key=lambda one: one.high)
    for run in runs:
        if scale := highest.get(run["task"]):
            place = run["task"], run["quality"]
            found[run["algorithm"]][place].append((run["final"] - scale.low) / (scale.high - scale.low))
    return {method: {place: float(np.mean(v)) for place, v in own.items()} for method, own in found.items()}


def _answer(question: Question, gains: Mapping, measures: Mapping[Dataset, Mapping], titles: Mapping) -> Answer:
    known = {}
    for place, found in measures.items():
        try:
            known[place] = float(question.read(found))
        except (KeyError, TypeError):  # too few episodes to be measured
            continue
    own = {pair: {p: float(np.mean(v)) for p, v in gains[pair].items() if p in known} for pair in question.pairs}
    places = sorted({place for found in own.values() for place in found})
    points = []
    for task, quality in places:
        values = [found[task, quality] for found in own.values() if (task, quality) in found]
        points.append(Point(task, quality, known[task, quality], float(np.mean(values)), len(values)))
    by_pair = [
        (" – ".join(titles.get(method, method) for method in pair), len(found), _by_pair(found, known))
        for pair, found in own.items()
        if found
    ]
    enough = len({point.task for point in points}) >= LEAST_TASKS
    correlation, interval, left_out = (correlated(points) if enough else None) or (None, None, None)
    return Answer(question, points, correlation, interval, left_out, tuple(by_pair))


def _by_pair(found: Mapping[Dataset, float], known: Mapping[Dataset, float]) -> float:
    places = sorted(found)
    return rank_correlation(np.array([known[p] for p in places]), np.array([found[p] for p in places]))


def correlated(points: list[Point]) -> tuple[float, tuple[float, float], tuple[float, float]] | None:
    """Rank correlation of measure and gain, its interval, and the ends of those without one task.

    None where measures or gains are all equal, or would be without one task.
    """
    tasks = sorted({point.task for point in points})
    numbers = {task: np.array([(p.measure, p.gain) for p in points if p.task == task]) for task in tasks}
    without = [rank_correlation(*np.concatenate([numbers[t] for t in tasks if t != left_out]).T) for left_out in tasks]
    if np.isnan(without).any():
        return None
    rng, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([numbers[tasks[k]] for k in rng.integers(len(tasks), size=len(tasks))])
        found.append(rank_correlation(*drawn.T))
    low, high = np.nanpercentile(found, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    whole = rank_correlation(*np.concatenate([*numbers.values()]).T)
    return whole, (float(low), float(high)), (min(without), max(without))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; NaN where fewer than three, or all equal."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    found: Any = spearmanr(one, other)
    return float(found.statistic)
