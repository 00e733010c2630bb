"""Pictures of what decisions and training cost: the forms of MAC-Flow's Figures 4 and 11 and of its Table 3.

All return a matplotlib figure, or None where nothing was measured. A method has its colour of the other figures.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offmarl.reports.figures.style import CAPTION_CHARACTERS, MARKERS, STYLE
from offmarl.reports.tables.speed import NATIVE, Row, latest

Means = dict[tuple[str, str], float]  # by group and title of a method


def inference_time(rows: Sequence[Row], colour: dict[str, str]) -> Figure | None:
    """Figure 4: bars of the time of a decision by group of tasks; a white line in a bar is its DDIM sampler."""
    shown = latest(rows)
    if not shown:
        return None
    native = [row for row in shown if row["sampler"] == NATIVE]
    fewer = [row for row in shown if row["sampler"] != NATIVE]
    figure = _bars(
        _means(native, "headline_ms"), _means(fewer, "headline_ms"), colour, "milliseconds of a decision (log)"
    )
    size = "some networks are reduced" if any(row["reduced"] for row in shown) else "networks of the papers' size"
    facts = [f"{_where(shown)}; slowest agent on a device of its own, or the team where execution is centralised", size]
    facts[1] += "; white line: DDIM instead of the method's own sampler" * bool(fewer)
    facts[1] += "; long chains extrapolated from their first calls" * any(row["extrapolated"] for row in native)
    _note(figure, "; ".join(facts))
    return figure


def training_time(rows: Sequence[Row], colour: dict[str, str]) -> Figure | None:
    """Figure 11: bars of the hours that the updates of one seed's run take, by group of tasks."""
    shown = [row for row in latest(rows) if not row["setting"]]
    if not shown:
        return None
    together: dict[tuple, int] = {}
    for row in shown:
        place = (row["task"], row["algorithm"])
        together[place] = max(together.get(place, 0), row["seeds"])
    most = [row for row in shown if row["seeds"] == together[row["task"], row["algorithm"]]]
    figure = _bars(_means(most, "hours_per_seed"), {}, colour, "hours of one seed's updates (log)")
    steps = " or ".join(f"{count:,}" for count in sorted({row["steps"] for row in most}))
    seeds = " or ".join(str(count) for count in sorted({row["seeds"] for row in most}))
    note = f"{_where(most)}; {steps} updates, {seeds} seeds in lock step; from a few updates, without evaluation"
    _note(figure, note)
    return figure


def growth(rows: Sequence[Row], colour: dict[str, str]) -> Figure | None:
    """Table 3 as lines: time of a decision by agents and by denoising steps, both axes logarithmic."""
    if not rows:
        return None
    panels = {
        ("agents", "agent"): "one agent",
        ("agents", "total"): "the team on one host",
        ("calls", "agent"): "one agent",
    }
    names = {"agents": "agents (one denoising step)", "calls": "denoising steps (two agents)"}
    titles = list(dict.fromkeys(row["title"] for row in rows))
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.1), layout="constrained")
        for axis, ((by, cost), title) in zip(figure.subplots(1, 3), panels.items()):
            for place, method in enumerate(titles):
                line = [r for r in rows if (r["title"], r["by"], r["cost"]) == (method, by, cost)]
                style = {"color": colour.get(method, "0.5"), "marker": MARKERS[place % len(MARKERS)]}
                axis.plot([r["size"] for r in line], [r["ms"] for r in line], label=method, markersize=4, **style)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_xlabel(names[by])
            axis.set_title(title)
            axis.grid(True, color="0.92", linewidth=0.6)
        figure.axes[0].set_ylabel("milliseconds of a decision")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
        sns.despine(fig=figure)
        where = ", ".join(sorted({row["device"] for row in rows}))
        _note(figure, f"{where}; networks of the papers' size")
    return figure


def _note(figure: Figure, text: str) -> None:
    """The line at the foot of a figure, as wide as the figure."""
    lines = textwrap.wrap(text, int(CAPTION_CHARACTERS * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), fontsize=6.5, color="0.35")


def _where(shown: Sequence[Row]) -> str:
    """Device and threads, or captured graphs."""
    first = shown[0]
    how = (
        "captured graphs" if first["mode"] == "captured" else f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
    )
    return f"{first['device']}, {how}"


def _means(shown: Sequence[Row], value: str) -> Means:
    """Group and title to the mean of a value."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in shown:
        found.setdefault((row["group"], row["title"]), []).append(float(row[value]))
    return {place: float(np.mean(values)) for place, values in found.items()}


def _bars(values: Means, lines: Means, colour: dict[str, str], label: str) -> Figure:
    """A cluster of bars for each group, a bar for each method; the number stands on top."""
    groups = list(dict.fromkeys(group for group, _ in values))
    titles = [title for title in colour if title in {own for _, own in values}]
    with rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 0.42 * len(titles) * len(groups), 3.6), layout="constrained")
        axis = figure.subplots()
        axis.set_yscale("log")
        for place, title in enumerate(titles):
            at = [g + (place - (len(titles) - 1) / 2) * 0.8 / len(titles) for g in range(len(groups))]
            heights = [values.get((group, title), np.nan) for group in groups]
            axis.bar(at, heights, 0.72 / len(titles), color=colour[title], label=title)
            for x, group, height in zip(at, groups, heights):
                _write(axis, x, height, lines.get((group, title)), 0.36 / len(titles))
        axis.set_xticks(range(len(groups)), groups)
        axis.set_ylabel(label)
        axis.margins(y=0.12)
        sns.despine(fig=figure)
        figure.legend(
            loc="outside upper center", ncols=min(len(titles), int(figure.get_figwidth() / 1.2)), frameon=False
        )
    return figure


def _write(axis: Axes, x: float, height: float, line: float | None, half: float) -> None:
    if not np.isnan(height):
        axis.annotate(
            f"{height:.2g}" if height < 100 else f"{height:,.0f}",
            (x, height),
            (0, 2),
            "data",
            ha="center",
            va="bottom",
            fontsize=6,
            textcoords="offset points",
        )
    if line:
        axis.hlines(line, x - half, x + half, color="white", linewidth=1.5)
