"""The numbers that the papers print, read from <name>.csv in this folder (scenario, dataset, method, mean, spread).

Reports show them beside ours to compare rankings and never pool them with ours. marks.csv has the bold and underlined
entries of MAC-Flow's tables, from the text of its PDF, where an underline may have been read as bold or dropped;
madiff_readme.csv the means in MADiff's README (github.com/zbzhu99/madiff) of the cells that MAC-Flow has too. The rules
that found findings.csv are in tests/tools/published_findings.py.
"""

import csv
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from offmarl.reports.records.files import read_text

AVERAGE = "AVERAGE_"


class UnknownTableError(ValueError):
    """A suite names a table that no paper here has."""

    in_a_line = True  # for the command line


Cell = tuple[str, str, str]  # scenario, quality, title of the method
COPIED = "The spread of its copied cells is probably one standard deviation over five seeds, not two over six."

SMAC = {scenario: f"smac/{scenario}" for scenario in ("3m", "8m", "2s3z", "5m_vs_6m", "2c_vs_64zg")}
SMAC |= {scenario: f"smacv2/{scenario}" for scenario in ("terran_5_vs_5", "zerg_5_vs_5", "terran_10_vs_10")}

ROBOTS = {"HalfCheetah": "mamujoco/6halfcheetah", "Hopper": "mamujoco/3hopper", "Ant": "mamujoco/2ant"}
PARTICLES = {"Spread": "mpe/spread", "Tag": "mpe/tag", "World": "mpe/world"}
MARINES = dict.fromkeys(("3m", "8m", "5m_vs_6m"), (0.0, 20.0))  # enemies that do not heal: no return is above 20

# Per table: the simulator, what the spread is, our task of each scenario, and a caveat; where they apply, the scenarios
# whose numbers are `scores` (100 for an expert), the least and largest possible return in `bounds`, by how many
# deviations the spreads are (`deviations`), and the tables that reports show `beside` it.
FACTS: dict[str, dict[str, Any]] = {
    "macflow_table1": {
        "engine": "real StarCraft II (SMAC and SMACv2)",
        "spread": "two standard deviations",
        "scenarios": SMAC,
        "bounds": MARINES,
        "deviations": 2,
        "provenance": COPIED,
    },
    "macflow_table2": {
        "engine": "MuJoCo 2.0 (OMIGA's data) and OMAR's particle worlds",
        "spread": "two standard deviations",
        "scenarios": ROBOTS | {"Spread": "mpe/spread"},
        "scores": ["Spread"],
        "provenance": COPIED,
    },
    "om2p_table1": {
        "engine": "MuJoCo 2.0 and OMAR's particle worlds with its pretrained prey",
        "spread": "one standard deviation",
        "scenarios": {"Predator-Prey": "mpe/tag", "World": "mpe/world", "Cooperative Navigation": "mpe/spread"}
        | {"HalfCheetah-v2": "mamujoco/2halfcheetah"},
        "provenance": "Returns of the predators are not comparable with ours: our prey is scripted.",
    },
    "frontier_smac": {
        "engine": "real StarCraft II (SMAC and SMACv2)",
        "spread": "two standard deviations",
        "scenarios": SMAC,
        "beside": ["macflow_table1"],
        "provenance": f"{COPIED} ComaDICE's 5m_vs_6m is another dataset than ours, so its numbers there are left out.",
    },
    "frontier_continuous": {
        "engine": "MuJoCo 2.0 (OMIGA's data) and OMAR's particle worlds",
        "spread": "two standard deviations in MAC-Flow's columns, one elsewhere",
        "scenarios": ROBOTS | {"Spread": "mpe/spread"},
        "scores": ["Spread"],
        "beside": ["macflow_table2"],
        "provenance": COPIED,
    },
    "coflow_mpe": {  # arXiv 2605.01457, from the picture on its page; no suite shows it
        "engine": "OMAR's particle worlds with its pretrained prey",
        "spread": "one standard deviation",
        "scenarios": PARTICLES,
        "scores": list(PARTICLES),
    },
    "coflow_smac": {  # likewise
        "engine": "real StarCraft II (SMAC)",
        "spread": "one standard deviation",
        "scenarios": SMAC,
        "bounds": MARINES,
        "deviations": 1,
    },
}
MEASURED = {"authors": "measured by its authors ({})", "others": "measured by {}"}  # origins in other papers


def cells(name: str) -> dict[Cell, tuple[float, float, str]]:
    """(task, quality, method title) to mean, spread as printed, and rerun, copied or unknown, or who measured it.

    Those of the tables beside it too. Raises ValueError if the table is unknown.
    """
    found = {}
    for table in _beside(name):
        tasks, origins = FACTS.get(table, {}).get("scenarios", {}), provenance(table)
        for (scenario, quality, title), numbers in printed(table).items():
            found[tasks[scenario], quality, title] = *numbers, origin(origins[scenario, quality, title])
    return found


def origin(fact: dict[str, str]) -> str:
    """Where a cell comes from, in a few words: rerun, copied, unknown, or who measured it, and where that stands."""
    return MEASURED.get(fact["origin"], fact["origin"]).format(fact["source"])


def _beside(name: str) -> list[str]:
    """A table, and those that reports show beside it."""
    return [name, *FACTS.get(name, {}).get("beside", ())]


def printed(name: str) -> dict[Cell, tuple[float, float]]:
    """Every cell to (mean, spread)."""
    return {cell_of(row): _numbers(row) for row in _read(name) if not row["scenario"].startswith(AVERAGE)}


def printed_averages(name: str) -> dict[tuple[str, str], tuple[float, float]]:
    """(group, method title) to the averages of mean and spread that the paper prints; NaN for a spread it does not."""
    rows = [row for row in _read(name) if row["scenario"].startswith(AVERAGE)]
    return {(row["scenario"].removeprefix(AVERAGE), row["method"]): _numbers(row) for row in rows}


def provenance(name: str) -> dict[Cell, dict[str, str]]:
    """Every cell to `origin`, `source` (of one that the table's paper did not measure) and `spread`."""
    return {cell_of(row): row for row in rows_about(name, "provenance")}


def _numbers(row: dict[str, str]) -> tuple[float, float]:
    return float(row["mean"]), float(row["spread"] or "nan")


def cell_of(row: dict[str, str]) -> Cell:
    """The cell that a row of a file is about."""
    return row["scenario"], row["dataset"].lower(), row["method"]


def rows_about(name: str, file: str) -> list[dict[str, str]]:
    """The rows about one table in a file about all of them."""
    return [row for row in _read(file) if row["table"] == name]


def findings(name: str, titles: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """The footnotes of a report's published columns, those of `titles`: the columns concerned, and the text.

    In the order of `titles`, those about two columns last; where the numbers come from precedes what is wrong.
    """
    texts: dict[tuple[str, ...], list[str]] = {}
    for row in (row for table in _beside(name) for row in rows_about(table, "findings")):
        methods = tuple(row["methods"].split(";"))
        if set(methods) <= set(titles):
            texts.setdefault(methods, []).append(row["text"])
    order = sorted(texts, key=lambda methods: (len(methods), titles.index(methods[0])))
    return [(methods, f"Paper's {' and '.join(methods)}: {'; '.join(texts[methods])}.") for methods in order]


@cache
def _read(name: str) -> list[dict[str, str]]:
    if not name:  # of a suite without published numbers
        return []
    path = resources.files("offmarl.reports.published") / f"{name}.csv"
    if not path.is_file():
        raise UnknownTableError(f"no published table named {name!r}; there is {', '.join(FACTS)}")
    return list(csv.DictReader(read_text(path).splitlines()))
