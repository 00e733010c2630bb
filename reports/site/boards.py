"""The boards of the site: every suite at every profile and source of the store, with the runs behind each cell."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from offmarl.reports.records.reader import Records
from offmarl.reports.records.schema import Record
from offmarl.reports.site import charts
from offmarl.reports.tables import aggregates
from offmarl.reports.tables.build import build, datasets_of, with_derived
from offmarl.reports.tables.table import EXPLAINED, Row, Table, by_dataset


class Suite(NamedTuple):
    """A suite's parsed YAML, and what only the harness knows of it.

    `unavailable` gives for a source the reasons as in `tables.build`; `paper` the paper's settings by task and method.
    """

    yaml: dict[str, Any]
    unavailable: Callable[[str], dict[str, str]] = lambda source: {}
    elsewhere: Mapping[str, Collection[str]] = {}
    paper: Mapping[tuple[str, str], Mapping[str, Any]] = {}


@dataclass(kw_only=True)
class BoardRow(Row):
    """A row of the table with what pages show besides."""

    page: str = ""  # addresses in the site; of a cell only where it has runs
    method_page: str = ""
    dataset_page: str = ""
    rank: int | None = None  # by mean on its dataset, the highest first, equal means alike; none where a seed was lost
    note: int | None = None  # the number of its reason
    scale: tuple[float, float] = (0.0, 1.0)  # the ends of its dataset's bars
    digits: int = 1  # decimals of its numbers, as in the table

    @property
    def family(self) -> str:
        """The family of its task."""
        return self.task.split("/")[0]

    @property
    def difference(self) -> float:
        """Ours minus the published mean."""
        return self.mean - self.published_mean

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, quality and method."""
        return self.task, self.quality, self.algorithm


class Board(NamedTuple):
    """One suite at one profile and source."""

    name: str
    suite: Suite
    profile: str
    source: str
    table: Table
    pooled: aggregates.Aggregates
    rows: list[BoardRow]
    runs: dict[tuple[str, str, str], list[Record]]  # by task, quality and method; returns as they were measured

    @property
    def key(self) -> str:
        """Its part of an address."""
        return slug(self.name, self.profile, self.source)

    @property
    def reasons(self) -> list[str]:
        """Why cells are missing or incomplete; the note of a row counts from 1."""
        return list(dict.fromkeys(row.reason for row in self.table.rows if row.status in EXPLAINED))


def slug(first: str, *others: str) -> str:
    """A file's stem from names: readable where they are plain, and in any case safe, short and different for others.

    Only the first may have a stroke, as tasks do.
    """
    plain = re.fullmatch(r"[a-z0-9_-]+(/[a-z0-9_-]+)?", first) and all(re.fullmatch(r"[a-z0-9_-]+", o) for o in others)
    text = ".".join([first, *others]).replace("/", ".")
    if plain and len(text) <= 120:
        return text
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(repr((first, *others)).encode()).hexdigest()[:12]}"


def collect(
    records: Records, suites: Mapping[str, Suite], profile: str | None = None, source: str | None = None
) -> list[Board]:
    """The boards that the store has runs for; None: every profile, every source."""
    found = records.select(profile, source).records
    boards = []
    for name, suite in suites.items():
        datasets = datasets_of(with_derived(suite.yaml, found))
        own = [r for r in found if (r["cell"]["task"], r["cell"]["quality"]) in datasets]
        for place in sorted({(r["cell"]["profile"], r["cell"]["source"]) for r in own}):
            here = [r for r in own if (r["cell"]["profile"], r["cell"]["source"]) == place]
            boards.append(_board(records, name, suite, place, here))
    return boards


def _board(records: Records, name: str, suite: Suite, place: tuple[str, str], found: list[Record]) -> Board:
    table = build(records, suite.yaml, name, *place, suite.unavailable(place[1]), suite.elsewhere)
    runs = _runs(table, found)
    rows = [BoardRow(**vars(row)) for row in table.rows]
    board = Board(name, suite, *place, table, aggregates.build(table, suite.yaml), rows, runs)
    notes = {reason: number for number, reason in enumerate(board.reasons, 1)}
    for row in rows:
        row.note, row.digits = notes.get(row.reason), table.digits(row.group)
        row.method_page = method_page(row.algorithm)
        row.dataset_page = "" if row.is_average else dataset_page(row.task, row.quality, row.source)
        if row.key in runs:
            play = [] if row.play == table.plays[0] else [row.play]
            row.page = f"cells/{slug(row.task, row.quality, row.algorithm, name, *place, *play)}.html"
    for competitors in by_dataset(rows):
        scale = charts.reach(competitors)
        for row in competitors:
            row.scale = scale
            if row.counts:
                row.rank = 1 + sum(other.counts and round(other.mean - row.mean, 9) > 0 for other in competitors)
    return board


def _runs(table: Table, found: list[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """The records behind every cell of the table by seed, failed ones too, of the variant that it shows."""
    shown = {row.algorithm: row.variant for row in table.rows if row.n_seeds and not row.is_average}
    runs: dict[tuple[str, str, str], list[Record]] = {}
    for record in found:
        cell = record["cell"]
        if shown.get(cell["algorithm"], cell["variant"]) == cell["variant"]:
            runs.setdefault((cell["task"], cell["quality"], cell["algorithm"]), []).append(record)
    return {key: sorted(own, key=lambda record: record["cell"]["seed"]) for key, own in runs.items()}


def method_page(algorithm: str) -> str:
    """Its address in the site."""
    return f"methods/{slug(algorithm)}.html"


def dataset_page(task: str, quality: str, source: str) -> str:
    """Its address in the site."""
    return f"datasets/{slug(task, quality, source)}.html"
