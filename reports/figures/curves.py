"""Learning curves (as MAC-Flow's Figure 12) and return against decision time (as its Figure 1).

Both return a matplotlib figure, or None where there is nothing to draw. They show the runs that the table shows.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from offmarl.reports.figures.labels import label_points
from offmarl.reports.figures.style import caption, colours, legend, markers, panels, round_ticks, styled
from offmarl.reports.tables.speed import NATIVE, Row
from offmarl.reports.tables.stats import estimate, on_common_datasets
from offmarl.reports.tables.table import Table, listed, reduced_networks, span

DATASET = "mean of the dataset"


@styled
def learning_curves(table: Table) -> Figure | None:
    """A panel per dataset: mean return by gradient steps, with the intervals of the table as bands.

    The dashed grey line is the mean return of the dataset; a method that lost a seed there is dotted.
    """
    shown: dict[tuple, dict] = {}
    labels = {(row.task, row.quality): row.label for row in table.rows if row.play == table.plays[0]}
    for run in table.main_runs:
        lines = shown.setdefault((labels[run["task"], run["quality"]], run["dataset_mean"]), {})
        for evaluation in run["evaluations"]:
            seeds = lines.setdefault((run["title"], bool(run["n_lost"])), {}).setdefault(evaluation["step"], {})
            seeds[run["seed"]] = evaluation["returns"]
    if not shown:
        return None
    columns = min(len(shown), max(3, *Counter(task for task, _ in labels).values()))
    width, colour = 0.8 + 2.2 * columns, colours(table)
    figure, axes = panels(len(shown), columns, width, 1.5 + 1.4 * math.ceil(len(shown) / columns))
    for axis, ((title, data), lines) in zip(axes, shown.items()):
        _draw_lines(axis, lines, colour)
        axis.axhline(data, color="0.5", linestyle="--", linewidth=1, label=DATASET)
        axis.set(title=title, xlim=(0, None))
    sns.despine(fig=figure)
    legend(figure, colour, ncols=min(5, int(width / 1.3)))
    for axis in axes[-columns:]:
        axis.set_xlabel("gradient steps (thousands)")
    figure.supylabel("mean return", fontsize=9)
    dotted = "; dotted: partial, of the seeds that were not lost" if any(run["n_lost"] for run in table.runs) else ""
    _describe(figure, table, _intervals(table, "bands") + dotted)
    return figure


@styled
def speed_return(table: Table, measured: Sequence[Row] = (), by: str = "group") -> Figure | None:
    """Mean return against the time of one joint decision (ms, log axis): a panel per group or task, a point per method.

    Both are means over the panel's datasets that all methods shown have; bars are 95 % intervals of the mean return,
    from three seeds on. Times are those of the runs' own networks, or the `measured` ones (`speed.inference`, of one
    machine) where there is one for every method and panel. None by task where each group is one task.
    """
    shown, source = _with_times([run for run in table.main_runs if run["latency_ms"] > 0], measured, by)
    units = {run[by]: run["unit"] for run in shown}
    groups = {group: on_common_datasets([run for run in shown if run[by] == group]) for group in units}
    groups = {group: found for group, found in groups.items() if found[0]}
    if not groups or by == "task" and len(units) == len({run["group"] for run in shown}):
        return None
    columns, colour = min(len(groups), 2 if len(groups) < 5 else 3), colours(table)
    figure, axes = panels(len(groups), columns, 4.2 * columns + 0.4, 3.2 * math.ceil(len(groups) / columns) + 0.4)
    for axis, (group, (points, datasets)) in zip(axes, groups.items()):
        _draw_points(axis, points, colour)
        axis.set(xlabel="time per joint decision (ms, log scale)", ylabel=f"mean {units[group]}")
        axis.set_title(f"{group.split('/')[-1]} ({span([datasets], 'dataset')})")
    devices = "; ".join(sorted({run["device"] for run in shown if run["device"]})) or "an unknown device"
    _describe(figure, table, f"times: {source}, on {devices}; {_intervals(table, 'bars')}")
    keys = ("latency_ms", "mean", "ci_low", "ci_high")
    for axis, (points, _) in zip(axes, groups.values()):
        label_points(axis, {title: [point[key] for key in keys] for title, point in points.items()}, colour)
    return figure


def _with_times(shown: list[Any], measured: Sequence[Row], by: str) -> tuple[list[Any], str]:
    """The runs with measured times, if all methods have one in all panels; and what times these are."""
    native: Any = pd.DataFrame([row for row in measured if row["sampler"] == NATIVE])
    times = {} if native.empty else native.groupby([by, "algorithm"])["headline_ms"].mean().to_dict()
    if native.empty or any((run[by], run["algorithm"]) not in times for run in shown):
        return shown, "the team on one host, the runs' own networks"
    device = native["device"].iloc[0]
    found = [run | {"latency_ms": times[run[by], run["algorithm"]], "device": device} for run in shown]
    size = "reduced" if native["reduced"].any() else "papers'"
    return found, f"one agent, networks of the {size} size, measured on {', '.join(native['task'].unique())}"


def _intervals(table: Table, what: str) -> str:
    """What the bands or bars of a figure are, if it has any."""
    if all(math.isnan(row.ci_low) for row in table.rows):
        return "fewer than three seeds: no interval"
    return f"{what}: 95 % intervals over seeds, where there are three or more"


def _describe(figure: Figure, table: Table, what: str) -> None:
    """The caption: profile, simulator, seeds, `what` else it takes to read the figure, reduced networks."""
    done, sizes = [row for row in table.rows if row.has_mean], reduced_networks(table.rows)
    seeds, engine = span((row.n_seeds for row in done), "seed"), listed(row.engine for row in done)
    facts = f"{table.rows[0].profile} profile, source {table.rows[0].source}, {engine}, {seeds}, play {table.plays[0]}"
    caption(figure, facts, what, f"reduced networks and settings (smaller than the paper's): {sizes}" if sizes else "")


def _draw_lines(axis: Axes, lines: dict, colour: dict[str, str]) -> None:
    """`lines`: title, and whether it lost a seed, to step to seed to returns."""
    for (title, partial), evaluations in lines.items():
        points = [estimate([seeds]) for seeds in evaluations.values()]
        mean, low, high = ([point[key] for point in points] for key in ("mean", "ci_low", "ci_high"))
        thousands = np.array(list(evaluations)) / 1000
        style = {"linestyle": ":" if partial else "-", "linewidth": 1.3, "marker": "o", "markersize": 2}
        axis.plot(thousands, mean, color=colour[title], label=title, **style)
        axis.fill_between(thousands, low, high, color=colour[title], alpha=0.15, linewidth=0)
    round_ticks(axis.xaxis, 5)
    round_ticks(axis.yaxis, 5)


def _draw_points(axis: Axes, points: dict[str, dict], colour: dict[str, str]) -> None:
    """A marker and an interval for every method, in its colour; decision times on a log axis."""
    for title, marker in markers(colour).items():
        if title in points:
            point = points[title]
            bar = [[point["mean"] - point["ci_low"]], [point["ci_high"] - point["mean"]]]
            at = point["latency_ms"], point["mean"]
            axis.errorbar(*at, bar, color=colour[title], marker=marker, markersize=6, capsize=2, elinewidth=1)
    latencies = [point["latency_ms"] for point in points.values()]
    low, high = min(latencies) / 1.6, max(latencies) * 1.6
    subs = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1e4 else (1,)
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(y=0.12)
    axis.grid(True, color="0.92", linewidth=0.6)
    sns.despine(ax=axis)
