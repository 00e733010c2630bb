"""Learning curves (the form of MAC-Flow's Figure 12) and speed against return (its Figure 1).

Both return a matplotlib figure, or None where there is nothing to draw. Only runs that the table shows are
drawn, and a method has the same colour in every figure.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from offmarl.reports.figures.style import CAPTION_CHARACTERS, MARKERS, STYLE, colours
from offmarl.reports.tables.speed import NATIVE, Row
from offmarl.reports.tables.stats import estimate
from offmarl.reports.tables.table import Table, listed, reduced_networks, span


def learning_curves(table: Table) -> Figure | None:
    """A panel per dataset: mean return by thousands of gradient steps, bands as the intervals of the table.

    The dashed grey line is the mean return of the data.
    """
    panels: dict[tuple, dict] = {}
    labels = {(row.task, row.quality): row.label for row in table.rows}
    for run in table.runs:
        lines = panels.setdefault((labels[run["task"], run["quality"]], run["dataset_mean"]), {})
        for evaluation in run["evaluations"]:
            seeds = lines.setdefault(run["title"], {}).setdefault(evaluation["step"], {})
            seeds[run["seed"]] = evaluation["returns"]
    if not panels:
        return None
    columns = min(len(panels), max(3, *Counter(task for task, _ in labels).values()))
    with rc_context(STYLE):
        rows, width = math.ceil(len(panels) / columns), 0.8 + 2.2 * columns
        figure = Figure(figsize=(width, 1.5 + 1.4 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, ((title, data), lines) in zip(axes, panels.items()):
            _draw_lines(axis, lines, colours(table))
            axis.axhline(data, color="0.5", linestyle="--", linewidth=1, label="mean of the data")
            axis.set_xlim(left=0)
            axis.set_title(title)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        sns.despine(fig=figure)
        handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
        labels = [label for label in [*colours(table), "mean of the data"] if label in handles]
        places = {"loc": "outside upper center", "ncols": min(5, int(width / 1.3)), "frameon": False}
        figure.legend([handles[label] for label in labels], labels, **places)
        for axis in axes[: len(panels)][-columns:]:
            axis.set_xlabel("thousand gradient steps")
        figure.supylabel("mean return", fontsize=9)
        _caption(figure, table, _intervals(table, "bands"))
    return figure


def speed_return(table: Table, measured: Sequence[Row] = ()) -> Figure | None:
    """Mean return against the time of one joint decision (ms, log axis): a panel per group, a point per method.

    Both are means over the datasets of the group that all methods shown have; bars
    are 95 % intervals of the mean return, from three seeds on. Times are those of the runs' own networks, or the
    `measured` ones (`speed.inference`, of one machine) where there is one for every method and group.
    """
    shown, source = _with_times([run for run in table.runs if run["latency_ms"] > 0], measured)
    groups = {group: _points([run for run in shown if run["group"] == group]) for group in table.groups}
    groups = {group: found for group, found in groups.items() if found[0]}
    if not groups:
        return None
    columns = min(len(groups), 2)
    rows = math.ceil(len(groups) / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2 * columns + 0.4, 3.2 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (group, (points, datasets)) in zip(axes, groups.items()):
            _draw_points(axis, points, colours(table))
            axis.set_title(f"{group} ({span([datasets], 'dataset')})")
            unit = next(row.unit for row in reversed(table.rows) if row.group == group)
            axis.set_ylabel(f"mean {unit}")
            axis.set_xlabel("time of a decision (ms, log scale)")
        for axis in axes[len(groups) :]:
            axis.set_axis_off()
        devices = "; ".join(sorted({run["device"] for run in shown if run["device"]})) or "an unknown device"
        _caption(figure, table, f"times: {source}, on {devices}; {_intervals(table, 'bars')}")
        for axis, (points, _) in zip(axes, groups.values()):
            _label_points(axis, points, colours(table))
    return figure


def _with_times(shown: list[Any], measured: Sequence[Row]) -> tuple[list[Any], str]:
    """The runs with measured times, if all methods have one in all groups; and what times these are."""
    native = [row for row in measured if row["sampler"] == NATIVE]
    times: dict[tuple[str, str], list[float]] = {}
    for row in native:
        times.setdefault((row["group"], row["algorithm"]), []).append(row["headline_ms"])
    if any((run["group"], run["algorithm"]) not in times for run in shown):
        return shown, "the team on one host, the runs' own networks"
    device = native[0]["device"] if native else None
    found = [
        run | {"latency_ms": float(np.mean(times[run["group"], run["algorithm"]])), "device": device} for run in shown
    ]
    size = "reduced" if any(row["reduced"] for row in native) else "papers'"
    places = ", ".join(dict.fromkeys(row["task"] for row in native))
    return found, f"slowest agent, networks of the {size} size, measured on {places}"


def _intervals(table: Table, what: str) -> str:
    """What the bands or bars of a figure are, if it has any."""
    if all(math.isnan(row.ci_low) for row in table.rows):
        return "fewer than three seeds: no interval"
    return f"{what}: 95 % intervals over seeds, where there are three or more"


def _caption(figure: Figure, table: Table, what: str) -> None:
    """The lines at the foot of a figure: profile, simulator, seeds, what else it takes to read it, reduced networks."""
    done = [row for row in table.rows if row.has_mean]
    seeds, engine = span((row.n_seeds for row in done), "seed"), listed(row.engine for row in done)
    lines = [f"{table.rows[0].profile} profile, source {table.rows[0].source}, {engine}, {seeds}", what]
    if sizes := reduced_networks(table.rows):
        width = int(CAPTION_CHARACTERS * figure.get_figwidth())
        lines += textwrap.wrap(f"reduced networks (smaller than the paper's): {sizes}", width)
    figure.supxlabel("\n".join(lines), fontsize=6.5, color="0.35")


def _draw_lines(axis: Axes, lines: dict, colour: dict[str, str]) -> None:
    """`lines`: title to step to seed to returns."""
    for title, evaluations in lines.items():
        points = [estimate([seeds]) for seeds in evaluations.values()]
        mean, low, high = ([point[key] for point in points] for key in ("mean", "ci_low", "ci_high"))
        thousands = np.array(list(evaluations)) / 1000
        axis.plot(thousands, mean, color=colour[title], label=title, linewidth=1.3, marker="o", markersize=2)
        axis.fill_between(thousands, low, high, color=colour[title], alpha=0.15, linewidth=0)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _points(runs: list[dict]) -> tuple[dict[str, dict], int]:
    """Title to latency and estimated return over the datasets that all have, and the number of datasets."""
    cells: dict[str, dict[tuple, list[dict]]] = {}
    for run in runs:
        cells.setdefault(run["title"], {}).setdefault((run["task"], run["quality"]), []).append(run)
    common = set.intersection(*map(set, cells.values())) if cells else set()
    points = {}
    for title, own in cells.items() if common else ():
        latency = np.mean([np.mean([run["latency_ms"] for run in own[dataset]]) for dataset in common])
        returns = [{run["seed"]: run["episodes"] for run in own[dataset]} for dataset in sorted(common)]
        points[title] = {"latency_ms": float(latency), **estimate(returns)}
    return points, len(common)


def _draw_points(axis: Axes, points: dict[str, dict], colour: dict[str, str]) -> None:
    """A marker and an interval for every method, in its colour."""
    for place, title in enumerate(colour):
        if title in points:
            point, marker = points[title], MARKERS[place % len(MARKERS)]
            bar = [[point["mean"] - point["ci_low"]], [point["ci_high"] - point["mean"]]]
            at = point["latency_ms"], point["mean"]
            axis.errorbar(*at, bar, color=colour[title], marker=marker, markersize=6, capsize=2, elinewidth=1)
    _log_axis(axis, [point["latency_ms"] for point in points.values()])
    axis.margins(y=0.12)
    axis.grid(True, color="0.92", linewidth=0.6)
    sns.despine(ax=axis)


def _log_axis(axis: Axes, latencies: list[float]) -> None:
    low, high = min(latencies) / 1.6, max(latencies) * 1.6
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1e4 else (1,))
    )
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _label_points(axis: Axes, points: dict[str, dict], colour: dict[str, str]) -> None:
    """Puts each name at the nearest place around its point that no marker, bar, other name or axis takes."""
    canvas = FigureCanvasAgg(axis.get_figure(root=True))
    canvas.draw()  # settles the layout, so that sizes in pixels are final
    taken = []
    for point in points.values():
        place = [(point["latency_ms"], point[end]) for end in ("mean", "ci_low", "ci_high")]
        (x, y), (_, low), (_, high) = axis.transData.transform(place)
        taken += [Bbox([[x - 3, low], [x + 3, high]]), Bbox([[x - 6, y - 6], [x + 6, y + 6]])]
    angles = np.deg2rad([0, 180, 45, 135, -45, -135, 90, -90])
    for title, point in points.items():
        at = point["latency_ms"], point["mean"]
        name = axis.annotate(title, at, (0, 0), textcoords="offset points", color=colour[title])
        box = name.get_window_extent(canvas.get_renderer())
        for distance, angle in ((distance, angle) for distance in (8, 14, 22, 32) for angle in angles):
            side, up = np.cos(angle), np.sin(angle)
            name.set_position((distance * side, distance * up))
            name.set_horizontalalignment("left" if side > 0.1 else "right" if side < -0.1 else "center")
            name.set_verticalalignment("bottom" if up > 0.1 else "top" if up < -0.1 else "center")
            box = name.get_window_extent(canvas.get_renderer())
            inside = axis.bbox.contains(box.x0, box.y0) and axis.bbox.contains(box.x1, box.y1)
            if inside and not box.count_overlaps(taken):
                break
        taken.append(box)
