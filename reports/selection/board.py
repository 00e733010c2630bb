"""Return against episodes spent: the rows, the board that any budget orders, and the text of `offmarl select`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from offmarl.reports.figures.selection import draw
from offmarl.reports.report import save
from offmarl.reports.selection.budgets import BUDGETS, RULE_NAMES, RULES, Changes, Interval, curve, order_changes
from offmarl.reports.selection.pool import Pool
from offmarl.reports.tables.markdown import escape
from offmarl.reports.tables.markdown import table as markdown_table

EVERYONE = "all together"  # chosen among the policies of all methods
BANDIT = "ucb"  # the rule of the board
COMPARED = (0, 10, 100)  # budgets between which pairs of methods are counted
NOTE = (
    "Expected return of the policy chosen after playing that many episodes, among all trained policies (settings × "
    "seeds, at the end of training: earlier policies are not kept). With 0 episodes, a policy is picked at random. "
    "Policies with the same weights that played the same episodes count once. One half of a policy's stored episodes "
    "are drawn from to choose, the other half values what was chosen; then the halves change places, and both results "
    "are averaged. Regret is against the policy with the best mean in the half that chooses, so chance can make it "
    "negative. Brackets: 95 % bootstrap intervals over the valuing episodes; policies are not resampled. Score: 0 and "
    "1 are the task's own scale, or a return of 0 and the mean return of the data."
)
Row = Mapping[str, Any]


def rows_of(pool: Pool, budgets: Sequence[int] = BUDGETS) -> list[Row]:
    """A row for each method, and for all together, by rule and budget."""
    methods, found = pool.by_method(), []
    for title in [*methods, EVERYONE]:
        own = methods.get(title, pool.policies)
        others = [policy.episodes for policy in pool.policies if title != EVERYONE and policy.title != title]
        place = {"task": pool.task, "quality": pool.quality, "source": pool.source, "method": title}
        for name, rule in RULES.items():
            bought = curve([policy.episodes for policy in own], rule, budgets, others)
            for k, budget in enumerate(budgets):
                numbers = {key: float(values[k]) for key, values in bought._asdict().items()}
                score = (numbers["mean"] - pool.low) / (pool.high - pool.low)
                found.append({**place, "policies": len(own), "rule": name, "budget": budget, **numbers, "score": score})
    return found


def board(rows: Iterable[Row], by: int = 0) -> list[tuple[str, int, dict[int, float]]]:
    """Method, its number of policies and its mean score at each budget, by the bandit: the best at budget `by` first.

    Only methods with policies on every dataset, so that their means compare.
    """
    frame: Any = pd.DataFrame([row for row in rows if row["rule"] == BANDIT])
    datasets = frame.groupby(["task", "quality", "source"]).ngroups
    found = []
    for method, own in frame.groupby("method", sort=False):
        if own.groupby(["task", "quality", "source"]).ngroups == datasets:
            scores = {int(budget): float(value) for budget, value in own.groupby("budget")["score"].mean().items()}
            found.append((method, int(own.loc[own["budget"] == own["budget"].min(), "policies"].sum()), scores))
    return sorted(found, key=lambda line: -line[2][by])


def incomplete(rows: Sequence[Row]) -> str:
    """The methods that `board` leaves out, in a sentence; none where it has all."""
    datasets: dict[str, set] = {}
    for row in rows:
        datasets.setdefault(row["method"], set()).add((row["task"], row["quality"], row["source"]))
    whole = max(map(len, datasets.values()))
    lacking = [f"{method} ({len(own)})" for method, own in datasets.items() if len(own) < whole]
    lead = f"Not in the table of means, as without policies on some of {whole} datasets: "
    return f"{lead}{', '.join(lacking)}." if lacking else ""


def changes(rows: Iterable[Row]) -> dict[tuple[int, int], Changes]:
    """Between two of the budgets COMPARED: pairs of methods on a dataset, counted over all datasets."""
    places: dict[tuple, dict[str, dict[int, Interval]]] = {}
    for row in rows:
        if row["rule"] == BANDIT and row["method"] != EVERYONE:
            place = row["task"], row["quality"], row["source"]
            interval = row["mean"], row["low"], row["high"]
            places.setdefault(place, {}).setdefault(row["method"], {})[row["budget"]] = interval
    return {
        pair: Changes(*map(sum, zip(*(order_changes(own, *pair) for own in places.values()))))
        for pair in combinations(COMPARED, 2)
    }


def write(folder: Path, text: str, rows: list[Row]) -> list[Path]:
    """Write table, page and figure into a folder; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str | None] = {
        "select.md": f"![Return against episodes](select.png)\n\n{text}",
        "select.csv": pd.DataFrame(rows).to_csv(index=False),
    }
    return save(folder, texts, {"select": draw(rows, EVERYONE, RULE_NAMES)})


def markdown(
    title: str, pools: Sequence[Pool], rows: list[Row], missing: Sequence[str], by: int, offline: str = ""
) -> str:
    """The board, each dataset's table, what changes order, and what the pool lacks; `offline` has the selectors."""
    budgets = sorted({row["budget"] for row in rows})
    parts = [f"# {escape(title)}: return against episodes spent", f"## Mean score, ordered by {by} episodes"]
    lines = [[escape(method), str(count), *(f"{s[n]:.3f}" for n in budgets)] for method, count, s in board(rows, by)]
    parts.append(markdown_table(["method", "policies", *(f"{n} ep." for n in budgets)], lines, numbers=True))
    parts += [text for text in (incomplete(rows), told_changes(rows)) if text]
    parts += [f"## Without an episode\n\n{offline}"] if offline else []
    for pool in pools:
        place = pool.task, pool.quality, pool.source
        head, cells = dataset([row for row in rows if (row["task"], row["quality"], row["source"]) == place], by)
        lines = [[escape(name), *others] for name, *others in cells]
        parts += [
            f"## {escape(pool.label)} ({pool.source})",
            counted_once(pool),
            markdown_table(head, lines, numbers=True),
        ]
    parts += [NOTE, *(["Missing from the pool: " + "; ".join(missing) + "."] if missing else [])]
    return "\n\n".join(parts) + "\n"


def counted_once(pool: Pool) -> str:
    """How many policies there are to choose from, and how many were left out."""
    more = f"; {pool.equal} more are equal to one of them" if pool.equal else ""
    return f"{len(pool.policies)} policies{more}."


def told_changes(rows: Iterable[Row]) -> str:
    """How many pairs of methods change order, in a sentence."""
    counted = changes(rows)
    told = [f"{a} and {b} episodes: {one.reversed} of {one.known}" for (a, b), one in counted.items()]
    total = next(iter(counted.values())).pairs
    return (
        f"Of {total} pairs of methods on a dataset, those with a known order at both budgets (the 95 % interval of the "
        f"difference excludes 0) that change it between {', '.join(told)}."
    )


def dataset(rows: Sequence[Row], by: int) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a dataset's table: what the bandit chooses, then all together by every rule."""
    lines: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        if row["rule"] == BANDIT or row["method"] == EVERYONE:
            lines.setdefault((row["method"], row["rule"]), {})[row["budget"]] = row
    order = sorted(lines, key=lambda key: (key[0] == EVERYONE, -lines[key][by]["mean"] if key[0] != EVERYONE else 0))
    budgets = sorted(next(iter(lines.values())))
    names = {key: key[0] if key[1] == BANDIT else f"{key[0]}, {RULE_NAMES[key[1]]}" for key in order}
    cells = [
        [names[key], *(_cell(lines[key][n]) for n in budgets), f"{lines[key][budgets[-1]]['regret']:.4g}"]
        for key in order
    ]
    head = ["method", *(f"{n} ep." for n in budgets), f"regret at {budgets[-1]}"]
    return head, cells


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
