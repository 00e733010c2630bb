"""The boards of the site: every suite at every profile and source that the store has, with the runs behind each cell.

A row of a board is a row of the long table with what pages show besides: `label`, `family`, `average`, `difference`,
`rank`, `note` (the number of its reason), and the addresses `page`, `method_page` and `dataset_page`.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from offmarl.reports.records.reader import load_runs, records
from offmarl.reports.tables import aggregates
from offmarl.reports.tables import table as tables
from offmarl.reports.tables.table import AVERAGE, LOST, row_name

Row = dict[str, Any]
Record = dict[str, Any]
Dataset = tuple[str, str]  # task, quality
TOLD = (*LOST, "partial", "not available")  # what needs its reason told


class Suite(NamedTuple):
    """A suite's parsed YAML, and what only the harness knows of it.

    `unavailable` gives for a source the reasons as in `tables.build`; `paper` the paper's settings by task and method.
    """

    yaml: dict[str, Any]
    unavailable: Callable[[str], dict[str, str]] = lambda source: {}
    elsewhere: Collection[str] = ()
    paper: Mapping[tuple[str, str], Mapping[str, Any]] = {}


class Board(NamedTuple):
    """One suite at one profile and source."""

    name: str
    suite: Suite
    profile: str
    source: str
    table: pd.DataFrame
    pooled: pd.DataFrame  # its aggregates
    rows: list[Row]
    runs: dict[tuple[str, str, str], list[Record]]  # by task, quality and method; returns as they were measured

    @property
    def key(self) -> str:
        """Its part of an address."""
        return slug(self.name, self.profile, self.source)

    @property
    def reasons(self) -> list[str]:
        """Why cells are missing or incomplete; the note of a row counts from 1."""
        return list(dict.fromkeys(row["reason"] for row in self.rows if row["status"] in TOLD))


def slug(first: str, *others: str) -> str:
    """A file's stem from names: readable where they are plain, and in any case safe, short and different for others.

    Only the first may have a stroke, as tasks do.
    """
    plain = re.fullmatch(r"[a-z0-9_-]+(/[a-z0-9_-]+)?", first) and all(re.fullmatch(r"[a-z0-9_-]+", o) for o in others)
    text = ".".join([first, *others]).replace("/", ".")
    if plain and len(text) <= 120:
        return text
    told = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
    return f"{told}-{hashlib.sha256(repr((first, *others)).encode()).hexdigest()[:12]}"


def collect(
    results: Path, suites: Mapping[str, Suite], profile: str | None = None, source: str | None = None
) -> list[Board]:
    """The boards that the store has runs for; None: every profile, every source."""
    found, _ = records(results, profile, source)
    boards = []
    for name, suite in suites.items():
        datasets = set(_datasets(suite.yaml))
        own = [r for r in found if (r["cell"]["task"], r["cell"]["quality"]) in datasets]
        places = {(r["cell"]["profile"], r["cell"]["source"]) for r in own}
        boards += [_board(results, name, suite, place, own) for place in sorted(places)]
    return boards


def _board(results: Path, name: str, suite: Suite, place: tuple[str, str], found: list[Record]) -> Board:
    absent = suite.unavailable(place[1])
    table = tables.build(results, suite.yaml, name, *place, absent, suite.elsewhere)
    normalised = suite.yaml.get("normalised", ())
    pooled = aggregates.build(load_runs(results, *place, normalised), table, suite.yaml)
    rows: list[Any] = table.to_dict("records")
    shown = {row["algorithm"]: row["variant"] for row in rows if row["n_seeds"] and not _is_average(row)}
    runs: dict[tuple[str, str, str], list[Record]] = {}
    for record in found:
        cell = record["cell"]
        method = cell["algorithm"]
        if (cell["profile"], cell["source"]) == place and shown.get(method, cell["variant"]) == cell["variant"]:
            runs.setdefault((cell["task"], cell["quality"], method), []).append(record)
    runs = {key: sorted(own, key=lambda record: record["cell"]["seed"]) for key, own in runs.items()}
    board = Board(name, suite, *place, table, pooled, rows, runs)
    marks = {reason: number for number, reason in enumerate(board.reasons, 1)}
    for row in rows:
        row |= {"label": row_name(row), "average": _is_average(row), "family": row["task"].split("/")[0]}
        row |= {"difference": row["mean"] - row["published_mean"], "note": marks.get(row["reason"])}
        row |= {"method_page": method_page(row["algorithm"]), "rank": None}
        row |= {"dataset_page": "" if row["average"] else dataset_page(row["task"], row["quality"], place[1])}
        row["page"] = _cell_page(board, row) if (row["task"], row["quality"], row["algorithm"]) in runs else ""
    for key in dict.fromkeys((row["task"], row["quality"]) for row in rows):
        _rank([row for row in rows if (row["task"], row["quality"]) == key])
    return board


def method_page(algorithm: str) -> str:
    """Its address in the site."""
    return f"methods/{slug(algorithm)}.html"


def dataset_page(task: str, quality: str, source: str) -> str:
    """Its address in the site."""
    return f"datasets/{slug(task, quality, source)}.html"


def _cell_page(board: Board, row: Row) -> str:
    names = row["quality"], row["algorithm"], board.name, board.profile, board.source
    return f"cells/{slug(row['task'], *names)}.html"


def _rank(rows: list[Row]) -> None:
    """Places by mean, the highest first; equal means share theirs."""
    means = [row["mean"] for row in rows]
    for row in rows:
        if not pd.isna(row["mean"]):
            row["rank"] = 1 + sum(mean > row["mean"] for mean in means)


def _is_average(row: Row) -> bool:
    return row["task"].startswith(AVERAGE)


def _datasets(suite: dict[str, Any]) -> list[Dataset]:
    tasks = [(task, quality) for group in suite["groups"].values() for task, qs in group.items() for quality in qs]
    return list(dict.fromkeys(tasks))
