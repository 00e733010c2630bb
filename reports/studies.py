"""The papers' other experiments: verdict, figure and tables, from what `offmarl experiment` stored.

The verdict follows from the stored rules alone. Reads `<results>/measurements/experiment/`; writes
`<results>/reports/experiments/<name>.{md,csv,png,pdf}`. The site has a page of each.
"""

import json
import math
import operator
import re
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from offmarl.reports.figures.studies import Record, draw, foot, last_evaluations
from offmarl.reports.report import save
from offmarl.reports.tables import stats
from offmarl.reports.tables.markdown import table as markdown_table

COMPARE: dict[str, Any] = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
HOWS = ("last", "first", "least", "most", "mean", "worst", "rise", "trend", "before", "gain")
LISTS = ["gaps", "distances", "bounds"]  # in a row, for figures only
BRACKETS = "Means over seeds at the last evaluation [lowest, highest seed]."
CLOSING = (
    "Holds: every rule holds in every seed. Does not hold: some rule holds in no seed. Otherwise, or if a run is "
    "missing: cannot tell."
)
Check = tuple[str, list[bool], str]  # a rule, whether it holds in each seed, its numbers


def write(results: Path, name: str) -> dict[str, Any]:
    """Write an experiment's text, table and figure; returns `paths`, `verdict` and the `text`.

    Raises FileNotFoundError when the experiment has not been run.
    """
    record = json.loads((results / "measurements" / "experiment" / f"{name}.json").read_bytes())
    folder = results / "reports" / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    outcome, checks = verdict(record)
    text = _markdown(record, name, outcome, checks)
    rows = pd.DataFrame(record["rows"]).drop(columns=LISTS, errors="ignore")
    texts = {f"{name}.md": text, f"{name}.csv": rows.to_csv(index=False)}
    paths = save(folder, texts | {f"{name}.html": None}, {name: draw(record)})  # earlier versions wrote HTML
    return {"paths": paths, "verdict": outcome, "text": text}


def verdict(record: Record) -> tuple[str, list[Check]]:
    """`holds`, `does not hold` or `cannot tell`; and every rule with its outcome in each seed, and its numbers.

    Inconclusive where a run is missing: one that the record names, or of an arm in a seed that another arm has.
    """
    checks, complete = [], not record.get("missing")
    words = [word for left, _, right in record["rules"] for word in (left, right) if isinstance(word, str)]
    arms = {_parts(word)[1] for word in words}
    for left, sign, right in record["rules"]:
        shared = _settings(record, left) & _settings(record, right)
        ones, others = (numbers(record, word, shared, arms) for word in (left, right))
        values = ", ".join(f"{value:.3g}" for value in ones)
        if isinstance(right, str):
            values += " against " + ", ".join(f"{value:.3g}" for value in others)
        checks.append((f"{left} {sign} {right}", [bool(COMPARE[sign](a, b)) for a, b in zip(ones, others)], values))
        complete &= not any(map(math.isnan, [*ones, *others]))
    seeds = [held for _, held, _ in checks]
    if not complete:
        return "cannot tell", checks
    if all(map(all, seeds)):
        return "holds", checks
    return ("cannot tell" if all(map(any, seeds)) else "does not hold"), checks


def numbers(record: Record, word: Any, settings: set | None = None, arms: set | None = None) -> list[float]:
    """What a rule's word means in each seed: a constant, or [factor ]arm.quantity[.how], averaged over settings.

    The seeds are those of all arms, or of these. A factor below 1 lowers negative numbers, too (`stats.part_of`).

    `how`, over the evaluations of a run: last (default), first, least, most or mean; before: the last in the first half
    of the run's own steps, after which it trains online; gain: the change since. Over the settings, of the last
    evaluation, instead of the mean: worst: the lowest; trend: the rank correlation with the setting; rise: the last
    setting's minus the first's.
    """
    rows: Any = pd.DataFrame(record["rows"])
    seeds = sorted((rows if arms is None else rows[rows["arm"].isin(arms)])["seed"].unique())
    if not isinstance(word, str):
        return [float(word)] * len(seeds)
    factor, arm, quantity, how = _parts(word)
    rows = rows[rows["arm"] == arm].sort_values("step")
    rows = rows if settings is None else rows[rows["setting"].isin(settings)]
    found = []
    for seed in seeds:
        runs = rows[rows["seed"] == seed].groupby("setting", dropna=False, sort=True)
        own = [(setting, _over_evaluations(run[quantity], run["step"], how)) for setting, run in runs]
        found.append(stats.part_of(_over_settings(own, how), factor))
    return found


def _parts(word: str) -> tuple[float, str, str, str]:
    """'0.9 without Q.relative.gain' -> 0.9, 'without Q', 'relative', 'gain'."""
    factor, rest = re.fullmatch(r"(?:([\d.]+) )?(.+)", word).groups()  # type: ignore[union-attr]
    head, _, how = rest.rpartition(".")
    head, how = (head, how) if how in HOWS else (rest, "last")
    arm, _, quantity = head.rpartition(".")
    return float(factor or 1), arm, quantity, how


def _settings(record: Record, word: Any) -> set:
    """The settings in which a word's arm was run; all of them for a constant."""
    rows = record["rows"]
    return {row["setting"] for row in rows if not isinstance(word, str) or row["arm"] == _parts(word)[1]}


def _over_evaluations(values: Any, steps: Any, how: str) -> float:
    """One number of a run, from its evaluations in order."""
    if how in ("before", "gain"):
        before = float(values[steps <= steps.max() // 2].iloc[-1])
        return before if how == "before" else float(values.iloc[-1]) - before
    found = {"first": values.iloc[0], "least": values.min(), "most": values.max(), "mean": values.mean()}
    return float(found.get(how, values.iloc[-1]))


def _over_settings(found: list[tuple[Any, float]], how: str) -> float:
    """One number of a seed, from (setting, number) in order; NaN where there is none."""
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
    """Head and rows: each arm in each setting, every quantity as mean over seeds and range at the last evaluation."""
    words = [word for left, _, right in record["rules"] for word in (left, right) if isinstance(word, str)]
    names = dict.fromkeys([*record.get("quantities", []), *(_parts(word)[2] for word in words)])
    last = last_evaluations(pd.DataFrame(record["rows"]))
    last = last.assign(setting=last["setting"].astype(object).where(last["setting"].notna(), ""))
    table = []
    for setting, arm in product(*(dict.fromkeys(last[name]) for name in ("setting", "arm"))):
        part = last[(last["setting"] == setting) & (last["arm"] == arm)]
        if not part.empty:
            spans = [f"{part[name].mean():.3g} [{part[name].min():.3g}, {part[name].max():.3g}]" for name in names]
            table.append([str(setting), str(arm), str(len(part)), *spans])
    return ["setting", "arm", "seeds", *(name.replace("_", " ") for name in names)], table


def rules_table(checks: list[Check]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: every rule, in how many seeds it holds, and its numbers."""
    rows = [[rule, f"{sum(held)} of {len(held)}", values] for rule, held, values in checks]
    return ["rule", "seeds in which it holds", "values"], rows


def below(record: Record) -> list[str]:
    """The paragraphs below the tables."""
    missing = f"Missing: {'; '.join(record['missing'])}." if record.get("missing") else ""
    return [text for text in (BRACKETS, record.get("note"), CLOSING, missing) if text]


def _markdown(record: Record, name: str, outcome: str, checks: list[Check]) -> str:
    """Claim, verdict, figure, rules and results."""
    parts = [f"# {record['title']}", f"**Claim.** {record['claim']}", f"**Verdict: {outcome}.** {foot(record)}."]
    parts += [f"![{record['title']}]({name}.png)"]
    for head, rows in (rules_table(checks), results_table(record)):
        head, *rows = ([cell.replace("|", "&#124;") for cell in row] for row in (head, *rows))
        parts.append(markdown_table(head, rows))
    return "\n\n".join([*parts, *below(record)]) + "\n"
