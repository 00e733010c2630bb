"""The table of a suite as Markdown, plain text and LaTeX.

All show the same: a row per dataset, a column per method, ours above the paper's number, and below the table caption
and footnotes. A method whose every number comes from reduced networks is marked in its title, otherwise the cells are.
"""

import math
import re
import textwrap
from collections.abc import Callable, Iterator
from string import ascii_letters
from typing import NamedTuple

from offmarl.reports.records.schema import TRAINED
from offmarl.reports.tables import markdown as markdown_tables
from offmarl.reports.tables.table import EXPLAINED, UNFINISHED, Row, Table, by_dataset


class Markup(NamedTuple):
    """How a format says what a table needs; the words with {} are patterns of str.format."""

    escape: Callable[[str], str]
    best: str
    second: str
    small: str
    note: str
    tied: str  # none in a format without intervals
    under: str  # joins a second, small line to a first
    reduced: str  # such a line
    legend: str


def _escape_latex(text: str) -> str:
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    words |= {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "–": "--", "…": r"\ldots{}"}
    return re.sub(r"[\\~^<>±–…&%$#_{}]", lambda found: words.get(found[0], "\\" + found[0]), text)


LEGEND, TIED = "{best}: best mean of the row; {second}: second", "; {tied}: its interval overlaps that of the best"
SUP, GREY = "<sup>{}</sup>", r"\textcolor{{gray}}{{\scriptsize {}}}"
MARKDOWN = Markup(markdown_tables.escape, "**{}**", "<u>{}</u>", "<sub>{}</sub>", SUP, "†", "<br>", "reduced", LEGEND)
PLAIN = Markup(str, "{}*", "{}", "{}", "[{}]", "", "", "°", "{paper}*: best mean of the row")
LATEX = Markup(
    escape=_escape_latex,
    best=r"\textbf{{{}}}",
    second=r"\underline{{{}}}",
    small=GREY,
    note=r"\textsuperscript{{{}}}",
    tied=r"$^\dagger$",
    under=" ",
    reduced="reduced",
    legend=LEGEND,
)


def markdown(table: Table) -> str:
    """GitHub Markdown: in a cell ours with its interval, and the paper's number below it."""
    head = ["dataset", *_scales(table), *_titles(table, MARKDOWN)]
    rows = [
        [label, *scales, *(MARKDOWN.under.join(filter(None, cell)) for cell in cells)]
        for label, scales, cells in _rows(table, MARKDOWN)
    ]
    title = f"### {MARKDOWN.escape(table.title)}"
    return "\n\n".join([title, markdown_tables.table(head, rows, numbers=True), *_below(table, MARKDOWN)]) + "\n"


def latex(table: Table) -> str:
    """A booktabs table (needs booktabs, graphicx, xcolor): ours, and below it in grey the paper's."""
    titles, heads = _titles(table, LATEX), _scales(table)
    lines = [r"\begin{table*}", r"\centering", r"\resizebox{\textwidth}{!}{%"]
    lines += [r"\begin{tabular}{l" + "r" * len(heads) + "c" * len(titles) + "}", r"\toprule"]
    lines += [" & ".join(["dataset", *heads, *titles]) + r" \\", r"\midrule"]
    for label, scales, cells in _rows(table, LATEX):
        lines.append(" & ".join([label, *scales, *(ours for ours, _ in cells)]) + r" \\")
        if _has_paper(table):
            lines.append(" & ".join([""] * (1 + len(heads)) + [*(paper for _, paper in cells)]) + r" \\[2pt]")
    caption = " ".join([LATEX.escape(table.title) + ".", *_below(table, LATEX)])
    lines += [r"\bottomrule", r"\end{tabular}}", rf"\caption{{{caption}}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def plain(table: Table, width: int = 118) -> str:
    """For the terminal: our mean, * for the best of the row, and the paper's mean in parentheses."""
    marks, reduced = _marks(table), _reduced_methods(table)
    scales = _scales(table) if table.has_random else {}
    rows = [["dataset", *scales, *_titles(table, PLAIN)]]
    for cells in _shown(table):
        digits = table.digits(cells[0].group)
        line = [cells[0].label, *(_number(getattr(cells[0], key), digits) or "–" for key in scales.values())]
        for row in cells:
            ours = _ours(row, PLAIN, marks, reduced, digits)
            gap = "" if ours[-1] in "*]°" else " "
            line.append(ours + gap + _number(row.published_mean, 1, "({})"))
        rows.append(line)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [" ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    below = [textwrap.fill(text, width) for text in _below(table, PLAIN)]
    return "\n".join([table.title, "", *lines, "", *below]) + "\n"


def _scales(table: Table) -> dict[str, str]:
    """Columns that give a row its scale, and their fields."""
    return {"data mean": "dataset_mean", **({"random": "random_mean"} if table.has_random else {})}


def _shown(table: Table) -> list[list[Row]]:
    """The cells of every line. Plays without standing have none where nothing was played: no number was published."""
    found, first = by_dataset(table.rows), table.plays[0]
    return [cells for cells in found if cells[0].play == first or any(row.has_mean for row in cells)]


def _rows(table: Table, markup: Markup) -> Iterator[tuple[str, list[str], list[tuple[str, str]]]]:
    """Label (with what derived data are made from), what gives a scale, and (ours, paper's) for every method."""
    marks, reduced = _marks(table), _reduced_methods(table)
    for cells in _shown(table):
        fields, digits = [getattr(cells[0], key) for key in _scales(table).values()], table.digits(cells[0].group)
        scales = [_number(value, digits) or markup.escape("–") for value in fields]
        numbers = []
        for row in cells:
            paper = _number(row.published_mean, 1, "paper {}") + _number(row.published_spread, 1, " ± {}")
            small = markup.small.format(markup.escape(paper)) if paper else ""
            numbers.append((_ours(row, markup, marks, reduced, digits), small))
        origin = markup.under + markup.small.format(markup.escape(cells[0].made_from)) if cells[0].made_from else ""
        yield markup.escape(cells[0].label) + origin, scales, numbers


def _ours(row: Row, markup: Markup, marks: dict[str, int], reduced_methods: set[str], digits: int) -> str:
    """Our mean with its marks and interval, or a word for what is missing."""
    note = markup.note.format(marks[row.reason]) if row.reason in marks else ""
    reduced = _reduced_mark(bool(row.reduced) and row.algorithm not in reduced_methods, markup)
    if not row.has_mean:
        return markup.escape(row.status if row.status in (*UNFINISHED, TRAINED) else "–") + note + reduced
    pattern = {"best": markup.best, "second": markup.second}.get(row.standing, "{}")
    mean = ("partial " if row.n_lost else "") + pattern.format(_number(row.mean, digits))
    mean += markup.tied if row.tied else ""
    interval = _number(row.ci_low, digits, " [{}, ") + _number(row.ci_high, digits, "{}]") if markup.tied else ""
    return mean + note + interval + reduced


def _has_paper(table: Table) -> bool:
    """Whether a number was published for a cell."""
    return any(not math.isnan(row.published_mean) for row in table.rows)


def _number(value: float, digits: int, pattern: str = "{}") -> str:
    return "" if math.isnan(value) else pattern.format(f"{value:.{digits}f}")


def _marks(table: Table) -> dict[str, int]:
    """Footnote numbers of the reasons why cells are missing or incomplete, in order of appearance."""
    reasons = dict.fromkeys(row.reason for row in table.rows if row.status in EXPLAINED)
    return {reason: number for number, reason in enumerate(reasons, 1)}


def _titles(table: Table, markup: Markup) -> list[str]:
    """The names of the methods in the words of a format, with the letters of the notes about published columns."""
    reduced, titles = _reduced_methods(table), []
    for method, title in table.titles.items():
        letters = [letter for letter, (about, _) in zip(ascii_letters, table.column_notes) if title in about]
        note = markup.note.format(",".join(letters)) if letters else ""
        titles.append(markup.escape(title) + note + _reduced_mark(method in reduced, markup))
    return titles


def _reduced_methods(table: Table) -> set[str]:
    """The methods whose every number comes from reduced networks."""
    numbers = [row for row in table.rows if row.has_mean]
    return {row.algorithm for row in numbers} - {row.algorithm for row in numbers if not row.reduced}


def _reduced_mark(marked: bool, markup: Markup) -> str:
    """The mark of reduced networks, for the end of a title or a number."""
    return markup.under + markup.small.format(markup.reduced) if marked else ""


def _below(table: Table, markup: Markup) -> list[str]:
    """Legend, then caption, rank agreement and notes, then the footnotes: a paragraph each."""
    words = {"best": markup.best.format("bold"), "second": markup.second.format("underlined")}
    legend = markup.legend.format(**words, paper="Ours (paper); " if _has_paper(table) else "")
    if markup.tied and any(not math.isnan(row.ci_low) for row in table.rows):
        legend += TIED.format(tied=markup.tied)
    if any(row.reduced for row in table.rows):
        legend += f"; {markup.small.format(markup.reduced)}: reduced networks or settings (below)"
    legend += f"; {markup.escape('–')}: not run yet, or an average that lacks seeds or datasets."
    notes = [(str(number), reason) for reason, number in _marks(table).items()]
    notes += [(letter, text) for letter, (_, text) in zip(ascii_letters, table.column_notes)]
    footnotes = [f"{markup.note.format(mark)} {markup.escape(text)}" for mark, text in notes]
    return [legend, *map(markup.escape, table.notes), *footnotes]
