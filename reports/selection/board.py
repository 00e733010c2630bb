"""Return against episodes spent: the rows, the board that any budget orders, and the text of `offmarl select`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offmarl.reports.figures.selection import draw
from offmarl.reports.report import save
from offmarl.reports.selection.budgets import BUDGETS, RULE_NAMES, RULES, curve, order_changes
from offmarl.reports.selection.pool import Pool
from offmarl.reports.tables.markdown import escape
from offmarl.reports.tables.markdown import table as markdown_table

EVERYONE = "all together"  # chosen among the policies of all methods
BANDIT = "ucb"  # the rule of the board
COMPARED = (0, 10, 100)  # budgets between which pairs of methods are counted
NOTE = (
    "Expected return of the policy chosen after playing that many episodes, among all trained policies (settings × "
    "seeds, at the end of training: earlier policies are not kept). With 0 episodes, a policy is picked at random. "
    "Policies with the same weights that played the same episodes count once. An episode is drawn from a policy's "
    "stored ones. A policy is worth the mean of its stored episodes; regret is against the best mean of all methods. "
    "Brackets: 95 % bootstrap intervals over each policy's stored episodes; policies are not resampled. The same "
    "stored episodes choose a policy and value it, so returns after 1 episode or more are too high by chance, and so "
    "is the best mean that regret is against; equal methods change order, too. Score: 0 and 1 are the task's own "
    "scale, or a return of 0 and the mean return of the data."
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


def changes(rows: Iterable[Row]) -> dict[tuple[int, int], tuple[int, int]]:
    """Between two of the budgets COMPARED, pairs of methods that change order on a dataset, and all such pairs."""
    places: dict[tuple, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["rule"] == BANDIT and row["method"] != EVERYONE:
            place = row["task"], row["quality"], row["source"]
            places.setdefault(place, {}).setdefault(row["method"], {})[row["budget"]] = row["mean"]
    counted = [order_changes(own, COMPARED) for own in places.values()]
    return {pair: tuple(np.sum([one[pair] for one in counted], axis=0).tolist()) for pair in counted[0]}


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
    parts.append(told_changes(rows))
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
    counted = [f"{a} and {b} episodes: {n} of {total}" for (a, b), (n, total) in changes(rows).items()]
    return "Pairs of methods on a dataset that change order between " + ", ".join(counted) + "."


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
