"""The papers' other experiments: verdict, figure, table and page, from what `offmarl experiment` stored.

The verdict follows from the stored rules and nothing else. Reads `<results>/measurements/experiment/`; writes
`<results>/reports/experiments/<name>.{md,html,csv,png,pdf}`.
"""

import html
import json
import operator
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from offmarl.reports.figures.studies import draw, foot
from offmarl.reports.records.files import replacing, write_text
from offmarl.reports.tables.markdown import table as markdown_table

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
HOWS = ("last", "first", "least", "most", "mean", "worst", "rise", "trend", "before", "gain")
LISTS = ["gaps", "distances", "bounds"]  # of the rows, for figures
Record = dict[str, Any]


def write(results: Path, name: str) -> dict[str, Any]:
    """Write an experiment's page, table and figure; returns `paths`, `verdict` and the page's `text`.

    Raises:
        FileNotFoundError: when the experiment has not been conducted.
    """
    record = json.loads((results / "measurements" / "experiment" / f"{name}.json").read_text())
    folder = results / "reports" / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    outcome, checks = verdict(record)
    text = _markdown(record, name, outcome, checks)
    rows = pd.DataFrame(record["rows"]).drop(columns=LISTS, errors="ignore")
    texts = {"md": text, "html": _page(record, name, outcome, checks), "csv": rows.to_csv(index=False)}
    for kind, content in texts.items():
        write_text(folder / f"{name}.{kind}", content)
    figure = draw(record)
    for kind in ("png", "pdf"):
        facts = {"CreationDate": None} if kind == "pdf" else {}
        with replacing(folder / f"{name}.{kind}") as draft:
            figure.savefig(draft, format=kind, dpi=160, metadata=facts)
    paths = [folder / f"{name}.{kind}" for kind in (*texts, "png", "pdf")]
    return {"paths": paths, "verdict": outcome, "text": text}


def verdict(record: Record) -> tuple[str, list[tuple[str, list[bool], str]]]:
    """`holds`, `does not hold` or `cannot tell`; and every rule with what it came to in each seed, and its numbers.

    Where a run is missing nothing can be told.
    """
    checks = []
    for left, sign, right in record["rules"]:
        shared = _settings(record, left) & _settings(record, right)
        ones, others = (numbers(record, word, shared) for word in (left, right))
        values = ", ".join(f"{value:.3g}" for value in ones)
        if isinstance(right, str):
            values += " against " + ", ".join(f"{value:.3g}" for value in others)
        told = [bool(COMPARE[sign](a, b)) for a, b in zip(ones, others)]
        checks.append((f"{left} {sign} {right}", told, values))
    seeds = [told for _, told, _ in checks]
    if record.get("missing"):
        return "cannot tell", checks
    if all(map(all, seeds)):
        return "holds", checks
    return ("cannot tell" if all(map(any, seeds)) else "does not hold"), checks


def numbers(record: Record, word: Any, settings: set | None = None) -> list[float]:
    """What a rule's word means in each seed: a constant, or [factor ]arm.quantity[.how], averaged over settings.

    `how`: last (default), first, least, most or mean of the looks; before: the last before online play, gain: what came
    after. Of the last look, over the settings instead of the mean: worst, the least; trend, the rank correlation with
    the setting; rise, the last setting's minus the first's.
    """
    rows: Any = pd.DataFrame(record["rows"])
    seeds = sorted(rows["seed"].unique())
    if not isinstance(word, str):
        return [float(word)] * len(seeds)
    factor, arm, quantity, how = _parts(word)
    rows = rows[(rows["arm"] == arm) & (rows["setting"].isin(settings) if settings else True)].sort_values("step")
    half = record["budget"].get("steps", 0) // 2 if record.get("online") else None
    found = []
    for seed in seeds:
        own = [(setting, _one(part[quantity], part["step"], how, half)) for setting, part in _by_setting(rows, seed)]
        found.append(factor * _over(own, how))
    return found


def _parts(word: str) -> tuple[float, str, str, str]:
    """'0.9 without Q.relative.gain' -> 0.9, 'without Q', 'relative', 'gain'."""
    factor, rest = re.fullmatch(r"(?:([\d.]+) )?(.+)", word).groups()  # type: ignore[union-attr]
    head, _, how = rest.rpartition(".")
    head, how = (head, how) if how in HOWS else (rest, "last")
    arm, _, quantity = head.rpartition(".")
    return float(factor or 1), arm, quantity, how


def _settings(record: Record, word: Any) -> set:
    """The settings in which a word's arm was seen; all of them for a constant."""
    rows = record["rows"]
    return {row["setting"] for row in rows if not isinstance(word, str) or row["arm"] == _parts(word)[1]}


def _by_setting(rows: pd.DataFrame, seed: int) -> Any:
    return rows[rows["seed"] == seed].groupby("setting", dropna=False, sort=True)


def _one(values: Any, steps: Any, how: str, half: int | None) -> float:
    """One seed's number in one setting, from its looks in order."""
    if how in ("before", "gain"):
        before = float(values[steps <= half].iloc[-1])
        return before if how == "before" else float(values.iloc[-1]) - before
    whole_run = {"first": values.iloc[0], "least": values.min(), "most": values.max(), "mean": values.mean()}
    return float(whole_run.get(how, values.iloc[-1]))


def _over(found: list[tuple[Any, float]], how: str) -> float:
    """One seed's number over the settings; not a number where it was not seen."""
    if not found:
        return float("nan")
    settings, values = zip(*found)
    if how == "trend":
        correlation: Any = spearmanr(settings, values)
        return float(correlation.statistic)
    if how == "rise":
        return values[-1] - values[0]
    return min(values) if how == "worst" else sum(values) / len(values)


def results_table(record: Record) -> tuple[list[str], list[list[str]]]:
    """The table: head and rows of what each arm came to in each setting, means over seeds of the last look."""
    words = [word for left, _, right in record["rules"] for word in (left, right) if isinstance(word, str)]
    names = dict.fromkeys([*record.get("quantities", []), *(_parts(word)[2] for word in words)])
    rows: Any = pd.DataFrame(record["rows"])
    rows["setting"] = rows["setting"].astype(object).where(rows["setting"].notna(), "")
    last = rows[rows["step"] == rows.groupby(["setting", "arm", "seed"])["step"].transform("max")]
    table = []
    for setting, arm in product(*(dict.fromkeys(rows[name]) for name in ("setting", "arm"))):
        part = last[(last["setting"] == setting) & (last["arm"] == arm)]
        if not part.empty:
            spans = [f"{part[name].mean():.3g} [{part[name].min():.3g}, {part[name].max():.3g}]" for name in names]
            table.append([str(setting), str(arm), str(len(part)), *spans])
    return ["setting", "arm", "seeds", *(name.replace("_", " ") for name in names)], table


def rules_table(record: Record, checks: list[tuple[str, list[bool], str]]) -> tuple[list[str], list[list[str]]]:
    """The table: head and rows of what each rule came to."""
    rows = [[text, f"{sum(seeds)} of {len(seeds)}", values] for text, seeds, values in checks]
    return ["rule", "seeds in which it holds", "values"], rows


CLOSING = "All rules in all seeds: holds; a rule in no seed: does not hold; else, or with a run missing: cannot tell."
BRACKETS = "Means over seeds at the last look [least, largest]."


def _markdown(record: Record, name: str, outcome: str, checks: list[tuple[str, list[bool], str]]) -> str:
    """Claim, verdict, figure, rules and results."""
    parts = [f"# {record['title']}", f"**Claim.** {record['claim']}", f"**Verdict: {outcome}.** {foot(record)}."]
    parts += [f"![{record['title']}]({name}.png)"]
    for head, rows in (rules_table(record, checks), results_table(record)):
        head, *rows = ([cell.replace("|", "&#124;") for cell in row] for row in (head, *rows))
        parts.append(markdown_table(head, rows))
    return "\n\n".join([*parts, *below(record)]) + "\n"


def below(record: Record) -> list[str]:
    """The paragraphs below the tables."""
    missing = ["Missing: " + "; ".join(record["missing"]) + "."] if record.get("missing") else []
    return [BRACKETS, *([record["note"]] if record.get("note") else []), CLOSING, *missing]


def _page(record: Record, name: str, outcome: str, checks: list[tuple[str, list[bool], str]]) -> str:
    """The same as HTML; whatever comes from the store is escaped."""
    title = html.escape(record["title"])
    tables = []
    for head, rows in (rules_table(record, checks), results_table(record)):
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
        tables.append(f"<div><table><thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody></table></div>")
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in below(record))
    claim, what = html.escape(record["claim"]), html.escape(foot(record))
    above = f"<p><b>Claim.</b> {claim}</p>\n<p><b>Verdict: {outcome}.</b> {what}.</p>"
    picture = f'<img src="{html.escape(name)}.png" alt="{title}">'
    return PAGE.format(title=title, above=above, picture=picture, tables="\n".join(tables), below=notes)


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 60rem; padding: 0 1rem }}
h1 {{ font-size: 1.3rem }}
img {{ max-width: 100%; background: white }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: 13px; font-variant-numeric: tabular-nums }}
th, td {{ border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }}
th, td {{ padding: .3rem .6rem; text-align: left }}
</style>
<h1>{title}</h1>
{above}
{picture}
{tables}
{below}
</html>
"""
