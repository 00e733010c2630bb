"""The papers' headline claims, judged by stated rules over the runs that a suite's table shows.

A claim compares a method with others on groups of datasets, in the suite's first play, on the scale of the aggregates.
Seeds are what was sampled: a difference of two means over the datasets has Welch's test. The time of a decision depends
on the task alone, so a task's qualities and seeds are one number: a t-test of the logarithms of their ratios by task.
Holm corrects for a claim's number of comparisons.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from offmarl.reports.tables import aggregates, stats
from offmarl.reports.tables.markdown import escape
from offmarl.reports.tables.markdown import table as markdown_table
from offmarl.reports.tables.table import Table, reduced_networks

LEVEL = 0.05
RULE = (
    f"A claim holds if every comparison supports it at the {LEVEL:.0%} level (Holm-corrected). It does not hold if one "
    "comparison contradicts it at that level. Otherwise the verdict is 'cannot tell'. A comparison with missing runs "
    "neither supports nor contradicts."
)
Claim = Mapping[str, Any]  # an entry of a suite's `claims`


class Comparison(NamedTuple):
    """One comparison of a claim."""

    text: str
    margin: float  # above zero it speaks for the claim
    p: float  # of no difference; NaN where it cannot be tested


class Verdict(NamedTuple):
    """What became of a claim, and what decided it."""

    claim: str
    outcome: str  # holds, does not hold, cannot tell
    why: str


def judge(table: Table, suite: Mapping[str, Any]) -> list[Verdict]:
    """The verdicts on a suite's claims."""
    return [_judge(claim, table) for claim in suite.get("claims", ())]


def markdown(table: Table, verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a table, their rule, and what they are about."""
    rows = [[escape(text) for text in verdict] for verdict in verdicts]
    first, sizes = table.rows[0], reduced_networks(table.rows)
    about = f"About the runs of the profile {first.profile}, source {first.source}"
    about += f", whose networks and settings are smaller than the paper's: {sizes}." if sizes else "."
    title = f"### {escape(table.title)}: the paper's claims"
    return "\n\n".join([title, markdown_table(Verdict._fields, rows), RULE, escape(about)]) + "\n"


def _judge(claim: Claim, table: Table) -> Verdict:
    found = [one for other in claim["others"] for one in COMPARE[claim["rule"]](claim, other, table)]
    p = stats.holm([one.p for one in found])
    sure = [np.sign(one.margin) if value < LEVEL else 0 for one, value in zip(found, p)]
    outcome = "does not hold" if -1 in sure else "holds" if set(sure) == {1} else "cannot tell"
    why = [one.text + ("" if np.isnan(value) else f" (p {value:.3f})") for one, value in zip(found, p)]
    return Verdict(claim["text"], outcome, "; ".join(why))


def _ahead(claim: Claim, other: str, table: Table) -> list[Comparison]:
    """The mean score is above the other's, or above `at_least` of it."""
    share, found = claim.get("at_least", 1.0), []
    for group in claim["groups"]:
        scores = aggregates.scores_of(table, group)
        ours, theirs = scores.get(claim["method"]), scores.get(other)
        place = f"{table.titles[other]} on {group}"
        if ours is None or theirs is None:
            found.append(Comparison(f"{place}: runs are missing", 0.0, np.nan))
            continue
        text = f"{place}: {ours.mean():.2f} against {theirs.mean():.2f}"
        mark = stats.part_of(theirs, share)
        found.append(Comparison(text, ours.mean() - mark.mean(), stats.welch(ours, mark)))
    return found


def _faster(claim: Claim, other: str, table: Table) -> list[Comparison]:
    """A joint decision of the other takes at least `times` as long, in the geometric mean over tasks."""
    ours, theirs = (_times(table, method) for method in (claim["method"], other))
    logs = np.array([np.log(theirs[place] / ours[place]) for place in sorted(ours.keys() & theirs.keys())])
    if len(logs) < stats.MIN_SEEDS:
        return [Comparison(f"{table.titles[other]}: runs are missing", 0.0, np.nan)]
    margin = float(logs.mean() - np.log(claim["times"]))
    test: Any = scipy.stats.ttest_1samp(logs, np.log(claim["times"]))
    text = f"{table.titles[other]}: {np.exp(logs.mean()):.1f} times as long"
    return [Comparison(text, margin, float(test.pvalue))]


def _times(table: Table, method: str) -> dict[str, float]:
    """Milliseconds of a method's decision by task."""
    times: dict[str, list[float]] = defaultdict(list)
    for run in table.main_runs:
        if run["algorithm"] == method and not np.isnan(run["latency_ms"]):
            times[run["task"]].append(run["latency_ms"])
    return {task: float(np.mean(own)) for task, own in times.items()}


def _gains(claim: Claim, other: str, table: Table) -> list[Comparison]:
    """The gain over the other is larger on data of `quality` than on those of each of `than`."""
    (group,) = claim["groups"]
    found = []
    for quality in claim["than"]:
        both = [aggregates.scores_of(table, group, [one]) for one in (claim["quality"], quality)]
        if any(method not in scores for scores in both for method in (claim["method"], other)):
            found.append(Comparison(f"{quality}: runs are missing", 0.0, np.nan))
            continue
        gains = [_paired(scores[claim["method"]], scores[other]) for scores in both]
        text = f"{gains[0].mean():+.2f} on {claim['quality']}, {gains[1].mean():+.2f} on {quality} data"
        found.append(Comparison(text, gains[0].mean() - gains[1].mean(), stats.welch(*gains)))
    return found


def _paired(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Differences of scores seed by seed: independent pairs, in no order that matters."""
    count = min(len(ours), len(theirs))
    return ours[:count] - theirs[:count]


COMPARE: dict[str, Callable[..., list[Comparison]]] = {"ahead": _ahead, "faster": _faster, "gains": _gains}
