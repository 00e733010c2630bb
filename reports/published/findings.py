"""What is wrong with published tables: found in the tables themselves, and against the source of copied cells.

A finding names the columns and the cells that it concerns, so that a report can hang it there.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from offmarl.reports.published import numbers as published
from offmarl.reports.published.numbers import AVERAGE, FACTS, Cell
from offmarl.reports.tables.stats import standings

# Cells and averages are printed to one decimal, each up to 0.05 off: their difference is up to 0.1 off.
ROUNDING = 0.1 + 1e-9
MARKS = {"best": "bold", "second": "underlined", "": "plain"}
README = "MADiff's README"


class Finding(NamedTuple):
    """The columns (titles of methods) and cells that a sentence is about."""

    methods: tuple[str, ...]
    cells: tuple[Cell, ...]
    text: str


def findings(name: str) -> list[Finding]:
    """All that is wrong with a published table. ValueError if it is unknown."""
    return [found for rule in (averages, highlights, duplicates, exchanged, differing) for found in rule(name)]


def notes(name: str, titles: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """The footnotes of a report's published columns, those of `titles`: the columns concerned, and the words.

    In the order of `titles`, those about two columns last; where the numbers come from goes before what is wrong.
    """
    words: dict[tuple[str, ...], list[str]] = {}
    for methods, text in [*_origins(name), *((found.methods, found.text) for found in findings(name))]:
        if set(methods) <= set(titles):
            words.setdefault(methods, []).append(text)
    order = sorted(words, key=lambda methods: (len(methods), titles.index(methods[0])))
    return [(methods, f"Paper's {' and '.join(methods)}: {'; '.join(words[methods])}.") for methods in order]


def averages(name: str) -> list[Finding]:
    """Printed averages, of means and of spreads, that the table's own cells contradict by more than rounding."""
    found = []
    for (group, method), claims in published.printed_averages(name).items():
        own = [
            number
            for (where, _, who), number in published.printed(name).items()
            if where in FACTS[name]["groups"][group] and who == method
        ]
        for kind, claim, values in zip(("average", "average spread"), claims, zip(*own)):
            mean = sum(values) / len(values)
            if abs(mean - claim) > ROUNDING:  # never where no spread is printed, NaN
                text = f"{group} {kind} {claim:.1f}, but its {len(own)} cells average {mean:.2f}"
                found.append(Finding((method,), ((AVERAGE + group, "", method),), text))
    return found


def highlights(name: str) -> list[Finding]:
    """Columns whose bold and underlined numbers are not the best and second of their rows, as printed.

    None for a table without marks, whose text has lost them.
    """
    marks, rows = published.marks(name), defaultdict(dict)
    numbers = published.printed(name) | {
        (AVERAGE + group, "", method): claims for (group, method), claims in published.printed_averages(name).items()
    }
    for (where, quality, method), (mean, _) in numbers.items():
        rows[where, quality][method] = mean
    wrong: dict[str, dict[Cell, str]] = defaultdict(dict)
    for (where, quality), means in rows.items() if marks else ():
        for method, standing in zip(means, standings(list(means.values()))):
            cell = where, quality, method
            mark, due = marks.get(cell, "plain"), MARKS[standing]
            if mark != due:
                row = where.replace(AVERAGE, "average of ") + f" {quality}" * bool(quality)
                wrong[method][cell] = f"{row} {mark}, by its number {due}"
    return [
        Finding((method,), tuple(cells), f"highlights in the text that we have: {', '.join(cells.values())}")
        for method, cells in wrong.items()
    ]


def duplicates(name: str) -> list[Finding]:
    """Pairs of columns that are the same, numbers and spreads, on all of several datasets of a scenario."""
    found = []
    for where, columns in _columns(published.printed(name)).items():
        for one, other in combinations(columns, 2):
            if len(columns[one]) > 1 and columns[one] == columns[other]:
                found.append(Finding((one, other), _cells(where, columns, (one, other)), f"the same on {where}"))
    return found


def exchanged(name: str) -> list[Finding]:
    """Pairs of columns that equal their source's with one taken for the other, on all datasets of a scenario."""
    source, found = _columns(published.readme(name)), []
    ours = _columns({cell: mean for cell, (mean, _) in published.printed(name).items()})
    for where, theirs in source.items():
        for one, other in combinations(theirs, 2):
            crossed = ours[where][one] == theirs[other] and ours[where][other] == theirs[one]
            if crossed and theirs[one] != theirs[other]:
                text = f"exchanged on {where}: each has the numbers of the other in {README}"
                found.append(Finding((one, other), _cells(where, theirs, (one, other)), text))
    return found


def differing(name: str) -> list[Finding]:
    """Columns that equal their source's on most shared cells and not on all."""
    shared: dict[str, dict[Cell, tuple[float, float]]] = defaultdict(dict)
    for cell, theirs in published.readme(name).items():
        shared[cell[2]][cell] = published.printed(name)[cell][0], theirs
    found = []
    for method, pairs in shared.items():
        wrong = {cell: pair for cell, pair in pairs.items() if pair[0] != pair[1]}
        if 0 < len(wrong) < len(pairs) / 2:
            told = [
                f"{where} {quality} {ours} instead of {theirs}" for (where, quality, _), (ours, theirs) in wrong.items()
            ]
            text = f"as in {README} in {len(pairs) - len(wrong)} of {len(pairs)} shared cells, not on {', '.join(told)}"
            found.append(Finding((method,), tuple(wrong), text))
    return found


def _origins(name: str) -> list[tuple[tuple[str, ...], str]]:
    """Of every column with cells that the paper did not run itself, or may not have: how many, and from where."""
    count: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (_, _, method), fact in published.provenance(name).items():
        what = f"copied from {fact['source']}" if fact["origin"] == "copied" else fact["origin"]
        count[method][what] += 1
    told = []
    for method, kinds in count.items():
        cells = sum(kinds.values())
        words = {"rerun": "run by the paper", "unknown": "of unknown origin"}
        if set(kinds) != {"rerun"}:
            parts = [f"{words.get(what, what)} in {number} of {cells} cells" for what, number in kinds.items()]
            told.append(((method,), ", ".join(parts)))
    return told


def _columns(numbers: dict) -> dict[str, dict[str, dict]]:
    """Scenario to method to quality to number."""
    found: dict[str, dict[str, dict]] = defaultdict(lambda: defaultdict(dict))
    for (where, quality, method), number in numbers.items():
        found[where][method][quality] = number
    return found


def _cells(where: str, columns: dict[str, dict], methods: tuple[str, ...]) -> tuple[Cell, ...]:
    return tuple((where, quality, method) for method in methods for quality in columns[method])
