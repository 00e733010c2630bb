"""The rules behind `reports/published/findings.csv`: what is wrong with the papers' tables, and where cells come from.

    .venv/bin/python tests/tools/published_findings.py > reports/published/findings.csv

Each rule reads the published tables; some compare them with the source of copied cells. A test runs the rules and
compares what they find with the file.
"""

import csv
import sys
from collections import defaultdict
from itertools import combinations
from typing import NamedTuple

from offmarl.reports.published import numbers as published
from offmarl.reports.published.numbers import AVERAGE, FACTS, Cell
from offmarl.reports.tables.stats import standings

# Cells and averages are printed to one decimal, each up to 0.05 off: their difference is up to 0.1 off.
ROUNDING = 0.1 + 1e-9
LARGEST_SCORE = 200.0  # twice an expert's
FEWEST_SEEDS = 5  # of the tables with bounds: fewer allow larger deviations
MARKS = {"best": "bold", "second": "underlined", "": "plain"}
README = "MADiff's README"
GROUPS: dict[str, dict[str, set[str]]] = {  # the scenarios that each average covers
    "macflow_table1": {
        "SMACv1": {"3m", "8m", "2s3z", "5m_vs_6m", "2c_vs_64zg"},
        "SMACv2": {"terran_5_vs_5", "zerg_5_vs_5", "terran_10_vs_10"},
    },
    "macflow_table2": {"MA-MuJoCo": {"HalfCheetah", "Hopper", "Ant"}, "MPE": {"Spread"}},
    "om2p_table1": {name: {name} for name in ("Predator-Prey", "World", "Cooperative Navigation", "HalfCheetah-v2")},
}


class Finding(NamedTuple):
    """The columns (titles of methods) and cells that a sentence is about; no cells: the columns themselves."""

    methods: tuple[str, ...]
    cells: tuple[Cell, ...]
    text: str


def findings(name: str) -> list[Finding]:
    """Everything that is wrong with a published table."""
    rules = (averages, highlights, duplicates, swapped, differing, units, spreads)
    return [found for rule in rules for found in rule(name)]


def rows(name: str) -> list[dict[str, str]]:
    """The rows of the file about a table: origins first, then what is wrong."""
    return [
        {"table": name, "methods": ";".join(one.methods), "cells": ";".join(map("/".join, one.cells)), "text": one.text}
        for one in [*origins(name), *findings(name)]
    ]


def marks(name: str) -> dict[Cell, str]:
    """The highlighted cells, averages too, to bold or underlined."""
    return {published.cell_of(row): row["mark"] for row in published.rows_about(name, "marks")}


def readme(name: str) -> dict[Cell, float]:
    """The means in MADiff's README of cells that the table has too."""
    return {published.cell_of(row): float(row["mean"]) for row in published.rows_about(name, "madiff_readme")}


def origins(name: str) -> list[Finding]:
    """For every column with cells that the paper copied, or may have: how many cells come from where."""
    count: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (_, _, method), fact in published.provenance(name).items():
        count[method][f"copied from {fact['source']}" if fact["origin"] == "copied" else published.origin(fact)] += 1
    words = {"rerun": "run by the paper", "unknown": "of unknown origin"}
    found = []
    for method, kinds in count.items():
        if set(kinds) != {"rerun"}:
            cells = sum(kinds.values())
            parts = [f"{words.get(kind, kind)} in {number} of {cells} cells" for kind, number in kinds.items()]
            found.append(Finding((method,), (), ", ".join(parts)))
    return found


def averages(name: str) -> list[Finding]:
    """Printed averages (of means and of spreads) that differ from those of the cells by more than rounding."""
    found = []
    for (group, method), claims in published.printed_averages(name).items():
        own = [
            number
            for (where, _, who), number in published.printed(name).items()
            if where in GROUPS[name][group] and who == method
        ]
        for kind, claim, values in zip(("average", "average spread"), claims, zip(*own)):
            mean = sum(values) / len(values)
            if abs(mean - claim) > ROUNDING:  # never where no spread is printed, NaN
                text = f"{group} {kind} {claim:.1f}, but its {len(own)} cells average {mean:.2f}"
                found.append(Finding((method,), ((AVERAGE + group, "", method),), text))
    return found


def highlights(name: str) -> list[Finding]:
    """Columns whose bold and underlined numbers are not the best and second of their rows.

    None for a table without marks.
    """
    shown, table = marks(name), defaultdict(dict)
    numbers = published.printed(name) | {
        (AVERAGE + group, "", method): claims for (group, method), claims in published.printed_averages(name).items()
    }
    for (where, quality, method), (mean, _) in numbers.items():
        table[where, quality][method] = mean
    wrong: dict[str, dict[Cell, str]] = defaultdict(dict)
    for (where, quality), means in table.items() if shown else ():
        for method, standing in zip(means, standings(list(means.values()))):
            cell = where, quality, method
            mark, due = shown.get(cell, "plain"), MARKS[standing]
            if mark != due:
                row = f"{where.replace(AVERAGE, 'average of ')} {quality}".strip()
                wrong[method][cell] = f"{row} {mark}, by its number {due}"
    return [
        Finding((method,), tuple(cells), f"highlights in the text that we have: {', '.join(cells.values())}")
        for method, cells in wrong.items()
    ]


def duplicates(name: str) -> list[Finding]:
    """Pairs of columns with the same numbers and spreads on all of a scenario's datasets, two at least."""
    found = []
    for where, columns in _columns(published.printed(name)).items():
        for one, other in combinations(columns, 2):
            if len(columns[one]) > 1 and columns[one] == columns[other]:
                found.append(Finding((one, other), _cells(where, columns, (one, other)), f"the same on {where}"))
    return found


def swapped(name: str) -> list[Finding]:
    """Pairs of columns with each other's numbers in their source, on all of a scenario's datasets."""
    source, found = _columns(readme(name)), []
    ours = _columns({cell: mean for cell, (mean, _) in published.printed(name).items()})
    for where, theirs in source.items():
        for one, other in combinations(theirs, 2):
            crossed = ours[where][one] == theirs[other] and ours[where][other] == theirs[one]
            if crossed and theirs[one] != theirs[other]:
                text = f"exchanged on {where}: each has the numbers of the other in {README}"
                found.append(Finding((one, other), _cells(where, theirs, (one, other)), text))
    return found


def differing(name: str) -> list[Finding]:
    """Columns that equal their source in most shared cells and not in all."""
    shared: dict[str, dict[Cell, tuple[float, float]]] = defaultdict(dict)
    for cell, theirs in readme(name).items():
        shared[cell[2]][cell] = published.printed(name)[cell][0], theirs
    found = []
    for method, pairs in shared.items():
        wrong = {cell: pair for cell, pair in pairs.items() if pair[0] != pair[1]}
        if 0 < len(wrong) < len(pairs) / 2:
            places = [
                f"{where} {quality} {own} instead of {other}" for (where, quality, _), (own, other) in wrong.items()
            ]
            text = (
                f"as in {README} in {len(pairs) - len(wrong)} of {len(pairs)} shared cells, not on {', '.join(places)}"
            )
            found.append(Finding((method,), tuple(wrong), text))
    return found


def units(name: str) -> list[Finding]:
    """Columns with numbers that are no scores, on scenarios where the table has scores."""
    wrong: dict[str, dict[Cell, float]] = defaultdict(dict)
    for cell, (mean, _) in published.printed(name).items():
        if cell[0] in FACTS[name].get("scores", ()) and mean > LARGEST_SCORE:
            wrong[cell[2]][cell] = mean
    found = []
    for method, own in wrong.items():
        places = ", ".join(f"{where} {quality} {mean:.1f}" for (where, quality, _), mean in own.items())
        found.append(Finding((method,), tuple(own), f"returns among scores, of which an expert's is 100: {places}"))
    return found


def spreads(name: str) -> list[Finding]:
    """Columns with spreads that returns between their bounds cannot have: s^2 <= n/(n-1) (mean-low)(high-mean)."""
    wrong: dict[str, dict[Cell, str]] = defaultdict(dict)
    for cell, (mean, spread) in published.printed(name).items():
        if cell[0] in FACTS[name].get("bounds", ()):
            low, high = FACTS[name]["bounds"][cell[0]]
            widest = max(max(0.0, m - low) * max(0.0, high - m) for m in (mean - 0.05, mean, mean + 0.05))
            most = FACTS[name]["deviations"] * (FEWEST_SEEDS / (FEWEST_SEEDS - 1) * widest) ** 0.5
            if spread - 0.05 > most:
                wrong[cell[2]][cell] = f"{cell[0]} {cell[1]} {mean:.1f} ± {spread:.1f}, at most {most:.1f}"
    return [
        Finding((method,), tuple(own), f"spreads that returns up to the largest cannot have: {'; '.join(own.values())}")
        for method, own in wrong.items()
    ]


def _columns(numbers: dict) -> dict[str, dict[str, dict]]:
    """Scenario to method to quality to number."""
    found: dict[str, dict[str, dict]] = defaultdict(lambda: defaultdict(dict))
    for (where, quality, method), number in numbers.items():
        found[where][method][quality] = number
    return found


def _cells(where: str, columns: dict[str, dict], methods: tuple[str, ...]) -> tuple[Cell, ...]:
    return tuple((where, quality, method) for method in methods for quality in columns[method])


if __name__ == "__main__":
    out = csv.DictWriter(sys.stdout, ["table", "methods", "cells", "text"], lineterminator="\n")
    out.writeheader()
    out.writerows(row for name in FACTS for row in rows(name))
