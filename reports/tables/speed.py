"""What `offmarl latency` and `offmarl bench train` measured, as tables: inference, growth with the team, training.

Reads `<results>/measurements/<kind>/*.json`. A suite's tables hold its own tasks and methods; rows of several machines
are side by side, and figures show those of the machine that measured last.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offmarl.reports.records.files import read_each
from offmarl.reports.tables.markdown import table as markdown_table

Row = dict[str, Any]

KEYS = {  # that a stored row of each kind needs
    "latency": ("task", "algorithm", "joint", "machine"),
    "training": ("task", "algorithm", "update_ms", "machine"),
    "scaling": ("algorithm", "teams", "chains", "machine"),
}
PLACE = "group task algorithm title variant profile"  # the columns of all tables, then those of each
INFERENCE = "setting sampler mode threads nfe parameters joint_ms agent_ms sum_ms headline_ms p95_ms min_ms n step_ms "
INFERENCE += "peak_mb extrapolated weights"
TRAINING = "setting mode threads seeds parameters update_ms seed_steps_per_s peak_mb steps hours_per_seed"
NATIVE = "native"
QUIET = ["algorithm", "finished", "sum_ms", "p95_ms", "min_ms", "group", "step_ms"]  # csv only
TITLES = {"inference": "time of a decision", "training": "time and memory of training", "growth": "Table 3, measured"}
NOTES = {
    "inference": "One joint decision, batch 1, from the host's observation to its action, without the environment's "
    "step; medians. joint: one host decides for the team; agent: an agent on a device of its own, the slowest where "
    "networks are not shared; headline: what the team waits for (agent, or joint where execution is centralised). "
    "Extrapolated: from the first calls of the chain.",
    "training": "Updates of this many seeds trained together, including the sampling of batches, without evaluation; "
    "memory is the process's peak above its use before (on a GPU: what was allocated).",
    "growth": "Synthetic teams with the sizes of 3m, networks of the papers' size; powers are fitted in logarithms. "
    "The paper counts operations without constants; one host that decides for a team uses its cores better with more "
    "agents, so measured powers are below the paper's where a decision is small.",
}


def measurements(results: Path, kind: str) -> list[Row]:
    """The stored rows of a kind, oldest first, without files that cannot be read."""
    found, _ = read_each(Path(results) / "measurements" / kind, lambda _, row: row)
    found = [row for row in found if isinstance(row, dict) and all(key in row for key in KEYS[kind])]
    return sorted(found, key=lambda row: row.get("finished") or "")


def stale(results: Path, suite: dict, why_stale: Callable[[Row], str | None]) -> dict[str, str]:
    """A line on the suite's measurements of decisions and of training that were made by other code, where there are."""
    found = {}
    for kind, table, command in (("latency", "inference", "latency"), ("training", "training", "bench train")):
        own = _of_suite([row for row in measurements(results, kind) if why_stale(row)], "", suite)
        if names := dict.fromkeys(row["title"] for row in own):
            found[table] = f"Stale: the code behind {', '.join(names)} has changed; `offmarl {command}` repeats it."
    return found


def inference(results: Path, suite: dict) -> list[Row]:
    """A row per measurement of a decision: milliseconds, calls, size, memory, and where."""
    rows = []
    for row in measurements(results, "latency"):
        cut, agent = row["extrapolated"], row["agent"] or {}
        times = row["joint"] | {"joint_ms": row["joint"]["median_ms"], "agent_ms": agent.get("median_ms")}
        words = {"setting": _changed(row), "extrapolated": f"{cut['calls']} of {cut['of']} calls" if cut else ""}
        rows.append(times | row | words)
    return _of_suite(rows, INFERENCE, suite)


def training(results: Path, suite: dict) -> list[Row]:
    """A row per measurement of updates: milliseconds, seed-steps per second, memory, and hours of a seed's run."""
    rows = []
    for row in measurements(results, "training"):
        hours = row["update_ms"] * row["steps"] / row["seeds"] / 3.6e6
        rows.append(row | {"setting": _changed(row), "hours_per_seed": hours})
    return _of_suite(rows, TRAINING, suite)


def _changed(row: Row) -> str:
    """The settings that are not the suite's: hidden=[8, 8]."""
    return ", ".join(f"{name}={value}" for name, value in row.get("changed", {}).items())


def growth(results: Path, suite: dict) -> list[Row]:
    """A row per method, cost and size: milliseconds by agents (one call) and by calls (two agents)."""
    rows = []
    for row in measurements(results, "scaling"):
        if row["algorithm"] not in suite.get("scaling", {}):
            continue
        method = {"algorithm": row["algorithm"], "title": row["title"]}
        method |= {key: row["machine"][key] for key in ("device", "threads")}
        for by, points in (("agents", row["teams"]), ("calls", row["chains"])):
            for point, cost in product(points, ("agent", "total")):
                size = {"by": by, "size": point[by], "cost": cost, "ms": point[f"{cost}_ms"], "nfe": point["nfe"]}
                rows.append(method | size | {"finished": row["finished"]})
    return rows


def exponents(rows: Sequence[Row], suite: dict) -> list[Row]:
    """Fitted powers of agents I and calls K beside the paper's: a row per method and cost."""
    lines: dict[tuple, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        place = (row["algorithm"], row["title"], row["device"], row["threads"], row["cost"])
        lines.setdefault(place, {"agents": [], "calls": []})[row["by"]].append((row["size"], row["ms"]))
    found = []
    for (algorithm, title, device, threads, cost), points in lines.items():
        fits: Row = {"method": title, "cost": "one agent" if cost == "agent" else "team, one host"}
        for by, letter, paper in zip(("agents", "calls"), "IK", suite["scaling"][algorithm][cost]):
            sizes, times = zip(*points[by]) if points[by] else ((), ())
            fits |= {f"power of {letter}": round(exponent(sizes, times), 2), f"paper's power of {letter}": paper}
            fits[f"{letter} up to"] = max(sizes, default=1)
        found.append(fits | {"device": device, "threads": threads})
    return found


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of the power law a * size^b that fits best in logarithms; NaN below two points."""
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def latest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the device and profile that were measured last: captured ones on CUDA, else of the fewest threads.

    Those with settings that are not the suite's are left out.
    Of a method those of the variant that was measured last. Of a group, those of the tasks on which all its methods
    were measured, so that their means compare.
    """
    if not (rows := [row for row in rows if not row["setting"]]):
        return []
    own = of_the_last(rows, "device", "profile")
    mode = "captured" if any(row["mode"] == "captured" for row in own) else "eager"
    threads = min(row["threads"] for row in own)
    own = [row for row in own if row["mode"] == mode and row["threads"] == threads]
    by_method = [[row for row in own if row["title"] == title] for title in dict.fromkeys(row["title"] for row in own)]
    own = [row for rows in by_method for row in of_the_last(rows, "variant")]
    methods: dict[str, dict[str, set[str]]] = {row["group"]: {} for row in own}
    for row in own:
        methods[row["group"]].setdefault(row["task"], set()).add(row["algorithm"])
    return [row for row in own if methods[row["group"]][row["task"]] == set.union(*methods[row["group"]].values())]


def of_the_last(rows: Sequence[Row], *keys: str) -> list[Row]:
    """The rows that have the same facts as the one that finished last."""
    last = max(rows, key=lambda row: row["finished"])
    return [row for row in rows if all(row[key] == last[key] for key in keys)]


def texts(name: str, rows: Sequence[Row], suite: dict, stale: str = "") -> dict[str, str]:
    """File to content, as CSV and as Markdown, of what was measured, with a line on what is stale; none for no rows."""
    if not rows:
        return {}
    shown = [{key: value for key, value in row.items() if key not in QUIET} for row in rows]
    shown = exponents(rows, suite) if name == "growth" else shown
    table = markdown_table(list(shown[0]), [[_cell(value) for value in row.values()] for row in shown])
    note = f"{NOTES[name]}\n{stale}" if stale else NOTES[name]
    page = "\n\n".join([f"### {suite['title']}: {TITLES[name]}", table, note]) + "\n"
    return {f"{name}.csv": pd.DataFrame(rows).to_csv(index=False), f"{name}.md": page}


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _of_suite(rows: list[Row], columns: str, suite: dict) -> list[Row]:
    """The columns of the rows of a suite's tasks and methods, in its order, machine by machine."""
    groups = {task: group for group, tasks in suite["groups"].items() for task in tasks}
    titles, found = suite["algorithms"], []
    for row in rows:
        if row["task"] in groups and row["algorithm"] in titles:
            row = row["facts"] | row["machine"] | row | {"reduced": bool(row["facts"]["reduced"])}
            row |= {"group": groups[row["task"]], "title": titles[row["algorithm"]]}
            found.append({name: row[name] for name in f"{PLACE} {columns} reduced device finished".split()})
    tasks, methods = list(groups), list(titles)
    return sorted(found, key=lambda row: (row["device"], tasks.index(row["task"]), methods.index(row["algorithm"])))
