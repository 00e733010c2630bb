"""The long table as Markdown, plain text, LaTeX and HTML.

All show the same: a row per dataset, a column per method, ours above the paper's number, and below the table
the caption, the rank agreement, a numbered footnote for everything that is missing and a lettered one for what is
known of the paper's numbers of a column. A method whose every number comes from reduced networks is marked in its
title, otherwise the cells that do are.
"""

import html
import re
import textwrap
from collections.abc import Callable, Iterator
from string import ascii_letters
from typing import Any, NamedTuple

import pandas as pd

from offmarl.reports.tables import markdown as markdown_tables
from offmarl.reports.tables.table import AVERAGE, LOST, row_name

Row = dict[str, Any]


class Markup(NamedTuple):
    """How a format says what a table needs; the words with {} are patterns of str.format."""

    escape: Callable[[str], str]
    best: str
    second: str
    small: str
    note: str
    tied: str
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
HTML = Markup(html.escape, "<b>{}</b>", "<u>{}</u>", "<small>{}</small>", SUP, "†", "<br>", "reduced", LEGEND)
PLAIN = Markup(str, "{}*", "{}", "{}", "[{}]", "", "", "°", "Ours (paper); *: best mean of the row")
LATEX = Markup(
    *(_escape_latex, r"\textbf{{{}}}", r"\underline{{{}}}", GREY),
    *(r"\textsuperscript{{{}}}", r"$^\dagger$", " ", "reduced", LEGEND),
)


def markdown(table: pd.DataFrame) -> str:
    """GitHub Markdown: in a cell ours with its interval, and the paper's number below it."""
    head = ["dataset", "data mean", *_titles(table, MARKDOWN)]
    rows = [
        [label, data, *(MARKDOWN.under.join(filter(None, cell)) for cell in cells)]
        for label, data, cells in _rows(table, MARKDOWN)
    ]
    title = f"### {MARKDOWN.escape(table.attrs['title'])}"
    return "\n\n".join([title, markdown_tables.table(head, rows, numbers=True), *_below(table, MARKDOWN)]) + "\n"


def page(table: pd.DataFrame) -> str:
    """One self-contained HTML file for light and dark screens; whatever comes from the store is escaped."""
    head = "".join(f"<th>{title}</th>" for title in ["dataset", "data mean", *_titles(table, HTML)])
    body = []
    for label, data, cells in _rows(table, HTML):
        numbers = "".join(f"<td>{HTML.under.join(filter(None, cell))}</td>" for cell in cells)
        kind = ' class="average"' if label.startswith(AVERAGE) else ""
        body.append(f"<tr{kind}><th>{label}</th><td>{data}</td>{numbers}</tr>")
    below = "\n".join(f"<p>{text}</p>" for text in _below(table, HTML))
    title = html.escape(table.attrs["title"])
    return PAGE.format(title=title, head=head, body="\n".join(body), below=below)


def latex(table: pd.DataFrame) -> str:
    """A booktabs table (needs booktabs, graphicx, xcolor): ours, and below it in grey the paper's."""
    titles = _titles(table, LATEX)
    lines = [r"\begin{table*}", r"\centering", r"\resizebox{\textwidth}{!}{%"]
    lines += [r"\begin{tabular}{lr" + "c" * len(titles) + "}", r"\toprule"]
    lines += [" & ".join(["dataset", "data mean", *titles]) + r" \\", r"\midrule"]
    for label, data, cells in _rows(table, LATEX):
        lines.append(" & ".join([label, data, *(ours for ours, _ in cells)]) + r" \\")
        lines.append(" & ".join(["", "", *(paper for _, paper in cells)]) + r" \\[2pt]")
    caption = " ".join([LATEX.escape(table.attrs["title"]) + ".", *_below(table, LATEX)])
    lines += [r"\bottomrule", r"\end{tabular}}", rf"\caption{{{caption}}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def plain(table: pd.DataFrame, width: int = 118) -> str:
    """For the terminal: our mean, * for the best of the row, and the paper's mean in parentheses."""
    marks = _marks(table)
    rows = [["dataset", *_titles(table, PLAIN)]]
    for label, cells in _grid(table):
        row = [label]
        for cell in cells:
            ours = _ours(cell, PLAIN, marks) + _reduced(cell["marked"], PLAIN)
            gap = "" if ours[-1] in "*]°" else " "
            row.append(ours + gap + _number(cell["published_mean"], "({:.1f})"))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [" ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    below = [textwrap.fill(text, width) for text in _below(table, PLAIN)]
    return "\n".join([table.attrs["title"], "", *lines, "", *below]) + "\n"


def _grid(table: pd.DataFrame) -> Iterator[tuple[str, list[Row]]]:
    """The long table by rows of methods: label and cells, which are `marked` where they say that they are reduced."""
    grid: dict[tuple, list[Row]] = {}
    wholly = _wholly_reduced(table)
    for cell in table.to_dict("records"):
        row = {str(key): cell[key] for key in cell}
        row["marked"] = bool(row["reduced"]) and row["algorithm"] not in wholly
        grid.setdefault((row["task"], row["quality"]), []).append(row)
    for cells in grid.values():
        yield row_name(cells[0]), cells


def _rows(table: pd.DataFrame, markup: Markup) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Label, mean return of the data, and (ours, paper's) for every method, in the words of a format."""
    marks = _marks(table)
    for label, cells in _grid(table):
        data = _number(cells[0]["dataset_mean"]) or markup.escape("–")
        numbers = []
        for cell in cells:
            interval = _number(cell["ci_low"], " [{:.1f}, ") + _number(cell["ci_high"], "{:.1f}]")
            spread = _number(cell["published_spread"], " ± {:.1f}")
            paper = _number(cell["published_mean"], "paper {:.1f}") + spread
            small = markup.small.format(markup.escape(paper)) if paper else ""
            ours = _ours(cell, markup, marks) + interval + _reduced(cell["marked"], markup)
            numbers.append((ours, small))
        yield markup.escape(label), data, numbers


def _ours(cell: Row, markup: Markup, marks: dict[str, int]) -> str:
    """Our mean with its marks, or a word for what is missing."""
    note = markup.note.format(marks[cell["reason"]]) if cell["reason"] in marks else ""
    if pd.isna(cell["mean"]):
        return markup.escape(cell["status"] if cell["status"] in LOST else "–") + note
    pattern = {"best": markup.best, "second": markup.second}.get(cell["standing"], "{}")
    return pattern.format(_number(cell["mean"])) + markup.tied * cell["tied"] + note


def _number(value: float, pattern: str = "{:.1f}") -> str:
    return "" if pd.isna(value) else pattern.format(value)


def _marks(table: pd.DataFrame) -> dict[str, int]:
    """Footnote numbers of the reasons why cells are missing or incomplete, in order of appearance."""
    told = table["reason"][table["status"].isin([*LOST, "partial", "not available"])]
    return {reason: number for number, reason in enumerate(dict.fromkeys(told), 1)}


def _titles(table: pd.DataFrame, markup: Markup) -> list[str]:
    """The names of the methods in the words of a format."""
    titles, wholly = dict(zip(table["algorithm"], table["title"])), _wholly_reduced(table)
    return [
        markup.escape(title) + _letters(table, title, markup) + _reduced(method in wholly, markup)
        for method, title in titles.items()
    ]


def _letters(table: pd.DataFrame, title: str, markup: Markup) -> str:
    """The letters of the notes about a published column, to stand behind its title."""
    own = [letter for letter, (titles, _) in zip(ascii_letters, table.attrs["columns"]) if title in titles]
    return markup.note.format(",".join(own)) if own else ""


def _wholly_reduced(table: pd.DataFrame) -> set[str]:
    """The methods whose every number comes from reduced networks."""
    numbers = table[table["mean"].notna()]
    return set(numbers["algorithm"]) - set(numbers["algorithm"][numbers["reduced"] == ""])


def _reduced(marked: bool, markup: Markup) -> str:
    """The mark of reduced networks, to stand behind a title or a number."""
    return (markup.under + markup.small.format(markup.reduced)) * marked


def _below(table: pd.DataFrame, markup: Markup) -> list[str]:
    """Legend, then caption, rank agreement and notes, then the footnotes: a paragraph each."""
    words = {"best": markup.best.format("bold"), "second": markup.second.format("underlined")}
    legend = markup.legend.format(**words)
    if markup.tied and any(table["ci_low"].notna()):
        legend += TIED.format(tied=markup.tied)
    if any(table["reduced"]):
        legend += f"; {markup.small.format(markup.reduced)}: reduced networks (sizes below)"
    legend += f"; {markup.escape('–')}: not run yet, or for an average not on every dataset."
    notes = [f"{markup.note.format(mark)} {markup.escape(reason)}" for reason, mark in _marks(table).items()]
    lettered = zip(ascii_letters, table.attrs["columns"])
    notes += [f"{markup.note.format(letter)} {markup.escape(text)}" for letter, (_, text) in lettered]
    return [legend, *map(markup.escape, table.attrs["below"]), *notes]


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --soft: #666; --band: #f3f3f3; --line: #ddd }}
@media (prefers-color-scheme: dark) {{ :root {{ --soft: #9aa0a6; --band: #222; --line: #333 }} }}
body {{ font: 13px/1.4 system-ui, sans-serif; margin: 1.5rem }}
h1 {{ font-size: 1.3rem }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .35rem .5rem; text-align: right; white-space: nowrap }}
th, td {{ border-bottom: 1px solid var(--line) }}
th:first-child {{ text-align: left; font-weight: 500 }}
.average {{ background: var(--band) }}
sup {{ font-size: .7em; line-height: 0 }}
small, p {{ color: var(--soft) }}
p {{ max-width: 70rem; margin: .5rem 0 }}
</style>
<h1>{title}</h1>
<div><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{below}
</html>
"""
