"""What `offmarl select` stored, as the site's page shows it: return against episodes spent, and whom to trust."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offmarl.reports.records.files import read_each
from offmarl.reports.selection import board, trust
from offmarl.reports.site import charts


def kept(results: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every stored selection of a store, and a line for each that cannot be read."""

    trusts, _ = read_each(results / "measurements" / "trust", lambda _, record: (record["runs"], record))

    def take(_: Path, record: Mapping[str, Any]) -> dict[str, Any]:
        return _shown(record, next((one for runs, one in trusts if runs == record["runs"]), None))

    return read_each(results / "measurements" / "select", take, "select")


def page(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template takes."""
    return {"found": found, "note": board.NOTE, "trust": trust.NOTE, "everyone": board.EVERYONE}


def _shown(record: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """A stored selection, with what was found of the same runs' offline selectors, where these were asked."""
    rows, places = record["rows"], {}
    for row in rows:
        places.setdefault((row["task"], row["quality"], row["source"]), []).append(row)
    families = dict.fromkeys(task.split("/")[0] for task, *_ in places)
    groups = [_group(name, [row for row in rows if row["task"].split("/")[0] == name]) for name in families]
    judged = [trust.judged_from(one) for one in found["judged"]] if found else []
    return {
        **{key: record[key] for key in ("title", "suite", "profile", "source", "missing")},
        "share": record["data_share"],
        "groups": groups if len(groups) == 1 else [_group("all together", rows), *groups],
        "datasets": [
            {"name": f"{task.split('/')[-1]} {quality}", "pool": record["pools"][f"{task}:{quality}:{source}"]}
            | dict(zip(("head", "rows"), board.dataset(own, 0)))
            for (task, quality, source), own in places.items()
        ],
        "selectors": trust.rows(judged) if judged else None,
        "verdicts": f"{trust.verdicts(judged)} {trust.told_split(found['held_out'])}" if found else "",
    }


def _group(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Methods in the order of 0 episodes, their curves, and how many pairs change order."""
    ranked, budgets = board.board(rows), sorted({row["budget"] for row in rows})
    lines = [(method, [scores[budget] for budget in budgets]) for method, _, scores in ranked]
    return {
        "name": name,
        "datasets": len({(row["task"], row["quality"], row["source"]) for row in rows}),
        "budgets": budgets,
        "ranked": ranked,
        "chart": charts.by_budget([str(budget) for budget in budgets], lines),
        "incomplete": board.incomplete(rows),
        "changes": board.told_changes(rows),
    }
