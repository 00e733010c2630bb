"""The table of a suite: a row per dataset and method, ours and the published number beside it."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from offmarl.reports.records.schema import ENDED, FINISHED, OWN

Run = dict[str, Any]  # as `reader.flat` gives it, with `title`, `group`, `unit`, `dataset_mean` and `n_lost` of its row
NAMES = {"zero": "(zero noise)", "fixed": "(fixed noise)"}  # of plays other than the methods' own
AVERAGE, SCORE = "AVERAGE ", "normalised score"
DERIVED = "derived datasets"  # their group
UNFINISHED = tuple(status for status in ENDED if status not in FINISHED)  # of runs without a number
EXPLAINED = (*UNFINISHED, "partial", "not available")  # the statuses whose reason a reader has to see


@dataclass(kw_only=True)
class Row:
    """A method on a dataset, or averaged over the datasets of a group. The fields are the columns of table.csv.

    `play` says how the trained networks were played: a table shows every dataset once for each, and the first play
    alone has standings and published numbers. `acting` is what a decision draws, `timeouts` what a time-out is to a
    target. `n_lost` counts the seeds that failed or diverged. `reduced` has the sizes that fall short of the paper's,
    of an average those of all its cells. `made_from` says of a derived dataset what it is made from.
    `agreement` is that with held-out actions, where there is no environment.
    `random_mean` is what random play returns, of tasks that no paper gives a scale.
    `published_mean` of an average is recomputed, `published_printed` is what the paper prints. `standing` is "best" or
    "second" by mean, `tied` says that an interval overlaps that of the best.
    """

    group: str
    task: str
    quality: str
    play: str = OWN
    unit: str
    algorithm: str
    title: str
    variant: str | None = None
    profile: str
    source: str
    engine: str | None = None
    config_hash: str | None = None
    reduced: str = ""
    acting: str = ""
    timeouts: str = ""
    n_seeds: int = 0
    n_lost: int = 0
    mean: float = math.nan
    two_std: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    ci_over: str | None = None
    win_rate: float = math.nan
    latency_ms: float = math.nan
    dataset_mean: float = math.nan
    random_mean: float = math.nan
    agreement: float = math.nan
    published_mean: float = math.nan
    published_spread: float = math.nan
    published_printed: float = math.nan
    published_origin: str = ""
    standing: str = ""
    tied: bool = False
    made_from: str = ""
    status: str
    reason: str

    @property
    def is_average(self) -> bool:
        """Whether it is the average of a group."""
        return self.task.startswith(AVERAGE)

    @property
    def label(self) -> str:
        """What its dataset and play are called: '3m good', '3m good (zero noise)', 'spread expert (score)'."""
        play = "" if self.play == OWN else NAMES.get(self.play, self.play)
        words = self.task.split("/")[-1], self.quality, play, "(score)" if self.unit == SCORE else ""
        return " ".join(filter(None, words))

    @property
    def has_mean(self) -> bool:
        """Whether there is a number of ours."""
        return not math.isnan(self.mean)

    @property
    def counts(self) -> bool:
        """Whether that number may be compared and averaged: the seeds that are left flatter a cell that lost one."""
        return self.has_mean and not self.n_lost


AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True)
class Table:
    """The rows of a suite at one profile and source, in the suite's order, and the text around them."""

    title: str
    rows: list[Row]
    notes: list[str]  # the paragraphs below the table
    mixed: list[str]  # those of them that say what was measured in more than one way
    column_notes: list[tuple[tuple[str, ...], str]]  # about published columns: titles of methods, text
    runs: list[Run]  # the finished runs behind the rows, in their order, once for each play
    plays: Sequence[str] = (OWN,)  # the first one has the standing

    @property
    def main_runs(self) -> list[Run]:
        """The runs in the play that has the standing, which figures and aggregates show."""
        return [run for run in self.runs if run["play"] == self.plays[0]]

    @property
    def has_random(self) -> bool:
        """Whether the return of random play is known of any dataset."""
        return any(not math.isnan(row.random_mean) for row in self.rows)

    def digits(self, group: str) -> int:
        """Decimals of the numbers of a group, whose datasets may have smaller returns than another's."""
        return decimals(row.mean for row in self.rows if row.has_mean and row.group == group)

    @property
    def groups(self) -> list[str]:
        """The groups of datasets."""
        return list(dict.fromkeys(row.group for row in self.rows))

    @property
    def titles(self) -> dict[str, str]:
        """The methods, run or not, and their titles."""
        return {row.algorithm: row.title for row in self.rows}

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame; `table.csv` is this."""
        return pd.DataFrame([vars(row) for row in self.rows])


def by_dataset(rows: Iterable[AnyRow]) -> list[list[AnyRow]]:
    """The rows of every dataset, and of every average, together, for each play."""
    found: dict[tuple[str, str, str], list[AnyRow]] = defaultdict(list)
    for row in rows:
        found[row.play, row.task, row.quality].append(row)
    return list(found.values())


def reduced_networks(rows: Sequence[Row]) -> str:
    """The sizes of all networks smaller than the paper's: 'BC, MABCQ: hidden 128x128; OMIGA: mixer_width 32'.

    Where not all numbers of a method come from the same sizes, the datasets follow in parentheses.
    """
    sizes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.has_mean and not row.is_average and row.play == rows[0].play:  # all plays are of the same networks
            sizes[row.title][row.reduced].append(row.label)
    methods: dict[str, list[str]] = defaultdict(list)
    for title, found in sizes.items():
        for words in filter(None, found):
            methods[words + (f" ({', '.join(found[words])})" if len(found) > 1 else "")].append(title)
    return "; ".join(f"{', '.join(titles)}: {words}" for words, titles in methods.items())


def listed(values: Iterable[Any]) -> str:
    """The different values that are not empty, in order: 'a; b'."""
    return "; ".join(sorted({str(value) for value in values if value}))


def span(values: Iterable[float], unit: str) -> str:
    """The range of some counts in words: '1 seed', '2 seeds', '1 to 3 seeds'; NaN does not count."""
    numbers = sorted({int(value) for value in values if not math.isnan(value)}) or [0]
    text = f"{numbers[0]:,}" + (f" to {numbers[-1]:,}" if len(numbers) > 1 else "")
    return f"{text} {unit}{'' if numbers == [1] else 's'}"


def decimals(returns: Iterable[float]) -> int:
    """Decimals to show returns with: one, but of small ones as many as show three figures."""
    largest = max(map(abs, returns), default=math.inf)
    return 1 if largest >= 10 else 2 if largest >= 1 else 3
