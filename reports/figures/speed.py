"""Figures of the cost of decisions and training, in the form of MAC-Flow's Figures 4 and 11 and its Table 3.

All return a matplotlib figure, or None where nothing was measured. A method has the colour of the other figures.
"""

from collections import Counter
from collections.abc import Sequence
from math import isnan, nan

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from offmarl.reports.figures.style import caption, legend, markers, panels, styled
from offmarl.reports.tables.speed import NATIVE, Row, latest, of_the_last
from offmarl.reports.tables.table import span

Means = dict[tuple[str, str], float]  # by group and title of a method


def inference_time(rows: Sequence[Row], colour: dict[str, str]) -> Figure | None:
    """Figure 4: bars of decision times by group of tasks; a white line in a bar is the time with DDIM sampling."""
    shown = latest(rows)
    if not shown:
        return None
    native = [row for row in shown if row["sampler"] == NATIVE]
    fewer = [row for row in shown if row["sampler"] != NATIVE]
    times, ddim = _means(native, "headline_ms"), _means(fewer, "headline_ms")
    figure = _bars(times, ddim, colour, "time per joint decision (ms, log scale)")
    notes = [_where(shown), "agents on devices of their own, or the team on one where execution is centralised"]
    notes += ["some networks are reduced" if any(row["reduced"] for row in shown) else "networks of the papers' size"]
    notes += ["white line: DDIM instead of the method's own sampler"] if fewer else []
    extrapolated = any(row["extrapolated"] for row in native)
    notes += ["long chains extrapolated from their first calls"] if extrapolated else []
    caption(figure, "; ".join(notes))
    return figure


def training_time(rows: Sequence[Row], colour: dict[str, str]) -> Figure | None:
    """Figure 11: bars of the hours that all updates of one seed take, by group of tasks."""
    if not (shown := latest(rows)):
        return None
    together = pd.DataFrame(shown).groupby(["task", "algorithm"])["seeds"].max()
    most = [row for row in shown if row["seeds"] == together[row["task"], row["algorithm"]]]
    figure = _bars(_means(most, "hours_per_seed"), {}, colour, "hours of updates per seed (log scale)")
    steps, seeds = (" or ".join(f"{n:,}" for n in sorted({row[key] for row in most})) for key in ("steps", "seeds"))
    work = f"{steps} updates, {seeds} seeds trained together; from a few updates, without evaluation"
    caption(figure, f"{_where(most)}; {work}")
    return figure


@styled
def growth(rows: Sequence[Row], colour: dict[str, str]) -> Figure | None:
    """Table 3 as lines: decision time by agents and by denoising steps, both axes logarithmic."""
    if not rows:
        return None
    rows = of_the_last(rows, "device", "threads")
    costs = (
        ("agents", "agent", "one agent"),
        ("agents", "total", "the team on one host"),
        ("calls", "agent", "one agent"),
    )
    names = {"agents": "agents (one denoising step)", "calls": "denoising steps (two agents)"}
    shapes = markers(dict.fromkeys(row["title"] for row in rows))
    figure, axes = panels(3, 3, 8.4, 3.1)
    for axis, (by, cost, title) in zip(axes, costs):
        for method, marker in shapes.items():
            line = [(r["size"], r["ms"]) for r in rows if (r["title"], r["by"], r["cost"]) == (method, by, cost)]
            style = {"color": colour.get(method, "0.5"), "marker": marker, "markersize": 4}
            axis.plot([size for size, _ in line], [ms for _, ms in line], label=method, **style)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set(xlabel=names[by], title=title, yscale="log")
        axis.grid(True, color="0.92", linewidth=0.6)
    axes[0].set_ylabel("time per decision (ms)")
    legend(figure, ncols=5)
    sns.despine(fig=figure)
    caption(figure, f"{rows[0]['device']}; networks of the papers' size")
    return figure


def _where(shown: Sequence[Row]) -> str:
    """Device and threads, or captured graphs; over how many tasks means are."""
    first, tasks = shown[0], Counter(group for group, _ in {(row["group"], row["task"]) for row in shown})
    how = "captured graphs" if first["mode"] == "captured" else span([first["threads"]], "thread")
    return f"{first['device']}, {how}; means over {span(tasks.values(), 'task')} of a group"


def _means(shown: Sequence[Row], value: str) -> Means:
    """Group and title to the mean of a value, in the order of the rows."""
    frame = pd.DataFrame(shown, columns=pd.Index(["group", "title", value]))
    return frame.groupby(["group", "title"], sort=False)[value].mean().to_dict()


@styled
def _bars(values: Means, lines: Means, colour: dict[str, str], label: str) -> Figure:
    """A cluster of bars for each group, a bar for each method with its number on top; `lines` are drawn in the bars."""
    groups = list(dict.fromkeys(group for group, _ in values))
    titles = [title for title in colour if title in {own for _, own in values}]
    figure, (axis,) = panels(1, 1, 1.6 + 0.42 * len(titles) * len(groups), 3.6)
    axis.set_yscale("log")
    wide = 0.8 / len(titles)
    for place, title in enumerate(titles):
        at = [k + (place - (len(titles) - 1) / 2) * wide for k in range(len(groups))]
        heights = [values.get((group, title), nan) for group in groups]
        texts = ["" if isnan(height) else f"{height:.2g}" if height < 100 else f"{height:,.0f}" for height in heights]
        bars = axis.bar(at, heights, 0.9 * wide, color=colour[title], label=title)
        axis.bar_label(bars, texts, padding=2, fontsize=6)
        for x, group in zip(at, groups):
            line = lines.get((group, title), nan)
            axis.hlines(line, x - 0.45 * wide, x + 0.45 * wide, color="white", linewidth=1.5)
    axis.set_xticks(range(len(groups)), groups)
    axis.set_ylabel(label)
    axis.margins(y=0.12)
    sns.despine(fig=figure)
    legend(figure, ncols=min(len(titles), int(figure.get_figwidth() / 1.2)))
    return figure
