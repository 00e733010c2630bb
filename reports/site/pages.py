"""What every kind of page of the site shows, as plain values for its template."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from offmarl.reports import studies
from offmarl.reports.records.reader import scored
from offmarl.reports.site import charts
from offmarl.reports.site.boards import Board, Record, Row, slug
from offmarl.reports.tables import aggregates
from offmarl.reports.tables.table import span

ENGINES = {  # what the labels mean that runs carry
    "SMAX": "JaxMARL’s battle simulator with StarCraft II’s unit values. It stands in for the game, which is why no "
    "result here is called SMAC: compare methods with each other, and only their order with a paper’s.",
    "MuJoCo": "The robots’ physics itself, in a newer release than the papers’; releases move trajectories.",
    "OMAR's particle worlds, rewritten": "OMAR’s particle worlds in NumPy, with a scripted prey unless OMAR’s is used.",
    "SMAC": "Real StarCraft II through SMAC.",
    "SMACv2": "Real StarCraft II through SMACv2.",
    "OMIGA's SMAC": "Real StarCraft II through OMIGA’s version of SMAC.",
}
PROFILES = {
    "smoke": "A few updates on two tasks: it shows that the machinery works, and nothing about methods.",
    "quick": "Small networks and a short training on every dataset: an order of methods to look at, not to cite.",
    "paper": "The papers’ networks, updates and seeds.",
}
CARD = {  # a dataset's facts, and what they are called
    **{"return_mean": "mean return", "return_std": "standard deviation", "episodes": "episodes"},
    **{"transitions": "transitions", "length_mean": "mean length", "published_mean": "mean return of the public data"},
    **{"published_std": "its standard deviation", "epsilon": "random actions, share", "behaviours": "behaviours"},
    "sha256": "SHA-256",
}


def part(record: Record, *keys: str) -> dict[str, Any]:
    """A part of a record that should be a mapping; empty where it is not there."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A value that should be a list; empty where it is not."""
    return value if isinstance(value, list) else []


def engines(runs: Iterable[Record]) -> dict[str, str]:
    """Every simulator's label to what it means, of these runs."""
    labels = dict.fromkeys(str(part(run, "engine").get("engine", "")) for run in runs)
    return {label: ENGINES.get(label, "") for label in labels if label}


def index(boards: Sequence[Board]) -> dict[str, Any]:
    """The leaderboards, and everything that there is a page for."""
    runs = [run for board in boards for own in board.runs.values() for run in own]
    finished = max((str(run.get("finished") or "") for run in runs), default="")[:10]
    methods = {row["method_page"]: row["title"] for board in boards for row in board.rows}
    datasets = {
        row["dataset_page"]: f"{row['task'].split('/')[-1]} {row['quality']}, {board.source}"
        for board in boards
        for row in board.rows
        if row["dataset_page"]
    }
    return {
        "boards": [leaderboard(board) for board in boards],
        "runs": len({run["run_id"] for run in runs if run["status"] == "done"}),
        "finished": finished,
        "engines": engines(runs),
        "profiles": {name: PROFILES.get(name, "") for name in dict.fromkeys(board.profile for board in boards)},
        "sources": list(dict.fromkeys(board.source for board in boards)),
        "families": list(dict.fromkeys(row["family"] for b in boards for row in b.rows if not row["average"])),
        "methods": methods,
        "datasets": datasets,
    }


def leaderboard(board: Board) -> dict[str, Any]:
    """A board by groups: averages from best to last, aggregates, speed against return, and every dataset by methods."""
    pooled = aggregates.tabulated(board.pooled)
    groups = dict.fromkeys(row["group"] for row in board.rows)
    return {
        "board": board,
        "titles": {row["algorithm"]: row for row in board.rows},
        "groups": [_group(board, name) | {"pooled": pooled.get(name)} for name in groups],
    }


def _group(board: Board, name: str) -> dict[str, Any]:
    own = [row for row in board.rows if row["group"] == name]
    averages = sorted((row for row in own if row["average"]), key=lambda row: (row["rank"] or np.inf, row["title"]))
    datasets: dict[str, list[Row]] = {}
    for row in own:
        if not row["average"]:
            datasets.setdefault(row["dataset_page"], []).append(row)
    average = [[row for row in own if row["average"]]] if any(row["rank"] for row in averages) else []
    points, common = speed(own)
    return {
        "name": name,
        "unit": averages[0]["unit"],
        "families": " ".join(dict.fromkeys(rows[0]["family"] for rows in datasets.values())),
        "started": any(row["n_seeds"] or row["page"] for row in own),
        "averages": averages if average else [],
        "ends": charts.reach(averages),
        "datasets": len(datasets),
        "rows": [{"cells": rows, "ends": charts.reach(rows)} for rows in [*datasets.values(), *average]],
        "points": points,
        "common": common,
        "scatter": charts.scatter(points) if points else None,
        "devices": devices(run for row in own for run in board.runs.get(_key(row), [])),
    }


def speed(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Mean and milliseconds of a decision over the datasets that all methods with a number have, and how many.

    An interval where that is all of them, or one alone.
    """
    cells: dict[str, dict[str, Row]] = {}
    averages = {row["algorithm"]: row for row in rows if row["average"]}
    for row in rows:
        if not row["average"] and charts.finite([row["mean"]]) and row["latency_ms"] > 0:
            cells.setdefault(row["algorithm"], {})[row["dataset_page"]] = row
    common = set.intersection(*map(set, cells.values())) if cells else set()
    points = []
    for method, own in cells.items() if common else ():
        shared = [own[page] for page in own if page in common]
        means = {key: float(np.mean([row[key] for row in shared])) for key in ("mean", "latency_ms")}
        of = shared[0] if len(shared) == 1 else averages[method]
        alike = len(shared) == 1 or np.isclose(of["mean"], means["mean"])  # NaN is not
        ends = {key: of[key] if alike else np.nan for key in ("ci_low", "ci_high")}
        points.append({"title": shared[0]["title"], **means, **ends})
    return points, span([len(common)], "dataset")


def method(boards: Sequence[Board], algorithm: str) -> dict[str, Any]:
    """A method: facts, settings, and a result on every dataset of the boards that show it."""
    found = [(board, [row for row in board.rows if row["algorithm"] == algorithm]) for board in boards]
    found = [(board, rows) for board, rows in found if rows]
    runs = [run for board, _ in found for key, own in board.runs.items() if key[2] == algorithm for run in own]
    facts = [part(run, "algorithm") for run in runs]
    results = []
    for board, rows in found:
        own = [run for key, some in board.runs.items() if key[2] == algorithm for run in some]
        notes = [text for titles, text in board.table.attrs.get("columns", []) if rows[0]["title"] in titles]
        rows = [row | {"ends": charts.reach(r for r in board.rows if _place(r) == _place(row))} for row in rows]
        told = {"board": board, "rows": rows, "notes": notes, "variants": _variants(own)}
        results.append(told | {"settings": settings(own, board.suite.paper)})
    return {
        "title": found[0][1][0]["title"],
        "algorithm": algorithm,
        "facts": {
            "paper": listed(fact.get("paper") for fact in facts),
            "execution": listed(fact.get("execution") for fact in facts),
            "actions": listed(str(action) for fact in facts for action in as_list(fact.get("actions"))),
            "network calls in a decision": counts(fact.get("nfe") for fact in facts),
            "parameters": counts(fact.get("parameters") for fact in facts),
        },
        "sources": list(dict.fromkeys(str(fact["source_code"]) for fact in facts if fact.get("source_code"))),
        "results": results,
    }


def dataset(boards: Sequence[Board], page: str) -> dict[str, Any]:
    """A dataset: its data's facts, the ranking of methods on every board, and the returns that each method got."""
    found = [(board, [row for row in board.rows if row["dataset_page"] == page]) for board in boards]
    found = [(board, rows) for board, rows in found if rows]
    board, rows = found[0]
    task, quality = rows[0]["task"], rows[0]["quality"]
    runs = [run for b, _ in found for key, own in b.runs.items() if key[:2] == (task, quality) for run in own]
    cards = [part(run, "dataset") for run in runs if part(run, "dataset")]
    return {
        "title": f"{task} {quality}",
        "source": board.source,
        "facts": {name: listed(card.get(key) for card in cards) for key, name in CARD.items()}
        | {"simulator": listed(row["engine"] for _, rows in found for row in rows if row["n_seeds"])},
        "note": listed(card.get("note") for card in cards),
        "engines": engines(runs),
        "rankings": [_ranking(board, rows) for board, rows in found],
    }


def _ranking(board: Board, rows: list[Row]) -> dict[str, Any]:
    ranked = sorted(rows, key=lambda row: (row["rank"] or np.inf, row["title"]))
    returns = {row["algorithm"]: _last_returns(board, row) for row in ranked}
    ends = charts.spread(value for values in returns.values() for value in values)
    drawn = [
        {"row": row, "n": len(values), "least": min(values), "most": max(values)}
        | {"chart": charts.histogram(values, ends, row["dataset_mean"])}
        for row in ranked
        if (values := returns[row["algorithm"]])
    ]
    return {"board": board, "rows": ranked, "ends": charts.reach(rows), "histograms": drawn, "scale": ends}


def cell(board: Board, row: Row) -> dict[str, Any]:
    """A method on a dataset: its seeds, curve, settings, and where it ran."""
    runs = board.runs[_key(row)]
    done = [_in_units(board, run) for run in runs if run["status"] == "done"]
    seeds = {
        run["cell"]["seed"]: [(e["step"], float(np.mean(e["returns"]))) for e in run["evaluations"]] for run in done
    }
    steps = sorted({step for points in seeds.values() for step, _ in points})
    return {
        "board": board,
        "row": row,
        "ends": charts.reach([row]),
        "seeds": [_seed(run) for run in (_in_units(board, run) for run in runs)],
        "steps": [{"step": step, "means": [dict(points).get(step) for points in seeds.values()]} for step in steps],
        "evaluated": list(seeds),
        "curve": charts.curve(seeds, row["dataset_mean"]) if seeds else None,
        "settings": settings(runs, board.suite.paper),
        "variants": _variants(runs),
        "environment": {name: together(part(run, *keys) for run in runs) for name, *keys in PLACES},
        "download": row["page"].split("/")[-1].removesuffix(".html") + ".csv",
    }


PLACES = [("machine", "machine"), ("simulator", "engine"), ("code", "code"), ("decision", "latency"), ("time", "time")]


def episodes(board: Board, row: Row) -> list[list[Any]]:
    """Every evaluation episode of a cell: head and rows, in returns as they were measured."""
    lines: list[list[Any]] = [["seed", "step", "episode", "return", "length", "won"]]
    for run in board.runs[_key(row)]:
        for look in run.get("evaluations") or []:
            for k, value in enumerate(look["returns"]):
                extra = [
                    values[k] if k < len(values) else ""
                    for values in (as_list(look.get("lengths")), as_list(look.get("won")))
                ]
                lines.append([run["cell"]["seed"], look["step"], k, value, *extra])
    return lines


def settings(runs: Sequence[Record], paper: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[Row]:
    """Every setting of some runs of a method beside the paper's on the same tasks, and whether they differ."""
    ours = [part(run, "config") | part(run, "protocol") for run in runs]
    theirs = [paper.get((run["cell"]["task"], run["cell"]["algorithm"]), {}) for run in runs]
    names = dict.fromkeys(name for config in ours for name in config if name != "data")
    rows = []
    for name in names:
        own, printed = (listed(_plain(c[name]) for c in some if name in c) for some in (ours, theirs))
        rows.append({"name": name, "ours": own, "paper": printed, "differs": bool(printed) and own != printed})
    return sorted(rows, key=lambda row: not row["differs"])


def experiment(record: Record, name: str) -> dict[str, Any]:
    """An experiment: claim, verdict, figure and tables."""
    verdict, checks = studies.verdict(record)
    return {
        "name": name,
        "page": f"experiments/{slug(name)}.html",
        "picture": f"experiments/{slug(name)}.png",
        "title": record["title"],
        "claim": record["claim"],
        "verdict": verdict,
        "badge": {"holds": "good", "does not hold": "bad"}.get(verdict, "open"),
        "foot": studies.foot(record),
        "tables": [studies.rules_table(checks), studies.results_table(record)],
        "below": studies.below(record),
    }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def listed(values: Iterable[Any]) -> str:
    """The different values in words."""
    return "; ".join(dict.fromkeys(_said(value) for value in values if value is not None and value != ""))


def _said(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def counts(values: Iterable[Any]) -> str:
    """The range of some whole numbers."""
    numbers = sorted({int(value) for value in charts.finite(values)})
    return " to ".join(f"{number:,}" for number in dict.fromkeys(numbers[:1] + numbers[-1:]))


def together(found: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Facts of several runs as one: the different values of each."""
    values: dict[str, list[Any]] = {}
    for facts in found:
        for key, value in facts.items():
            values.setdefault(str(key), []).append(value)
    return {key.replace("_", " "): _of_all(some) for key, some in values.items()}


def _of_all(values: list[Any]) -> str:
    """The range of numbers with a fraction, else the different values."""
    if not all(isinstance(value, float) for value in values):
        return listed(values)
    return " to ".join(dict.fromkeys(f"{end(values):,.4g}" for end in (min, max)))


def devices(runs: Iterable[Record]) -> str:
    """The machines of some runs."""
    return listed(part(run, "machine").get("device") for run in runs)


def _variants(runs: Iterable[Record]) -> str:
    return listed(run["cell"]["variant"] for run in runs)


def _key(row: Row) -> tuple[str, str, str]:
    return row["task"], row["quality"], row["algorithm"]


def _place(row: Row) -> tuple[str, str]:
    return row["task"], row["quality"]


def _in_units(board: Board, run: Record) -> Record:
    """The run in the board's units: with scores for returns where the suite has them."""
    return scored(run) if run["cell"]["task"] in board.suite.yaml.get("normalised", ()) else run


def _last_returns(board: Board, row: Row) -> list[float]:
    runs = [_in_units(board, run) for run in board.runs.get(_key(row), [])]
    return [value for run in runs if run["status"] == "done" for value in run["evaluations"][-1]["returns"]]


def _seed(run: Record) -> Row:
    """A line of the table of seeds; a seed that did not finish has no numbers."""
    looks = run["evaluations"] if run["status"] == "done" else []
    means = [float(np.mean(look["returns"])) for look in looks]
    won = looks[-1].get("won") if looks else None
    return {
        "seed": run["cell"]["seed"],
        "run_id": run["run_id"],
        "status": run["status"],
        "reason": str(run.get("reason") or ""),
        "final": means[-1] if means else None,
        "best": max(means, default=None),
        "win_rate": float(np.mean(won)) if won else None,
        "episodes": len(looks[-1]["returns"]) if looks else None,
        "memory_mb": next(iter(charts.finite([run.get("memory_mb")])), None),
        "finished": str(run.get("finished") or ""),
    }
