"""Aggregates of every group as a figure: points with intervals, and performance profiles, as rliable draws them."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from offmarl.reports.figures.style import caption, markers, round_ticks, styled
from offmarl.reports.tables.aggregates import NAMES, TOO_FEW, Aggregates, block_name
from offmarl.reports.tables.table import span

WIDTH = 3.4  # inches of a column of text: a group each


@styled
def draw(found: Aggregates, colour: dict[str, str]) -> Figure | None:
    """A block per group and play, a column of text wide; `found` is `aggregates.build`, `colour` is `style.colours`."""
    groups = Counter((row["group"], row["play"]) for row in found.rows)
    if not groups:
        return None
    columns = min(2, len(groups))
    rows, most = math.ceil(len(groups) / columns), max(groups.values())
    figure = Figure(figsize=(WIDTH * columns, rows * (2.6 + 0.3 * most) + 0.4), layout="constrained")
    blocks: Any = figure.subfigures(rows, columns, squeeze=False)
    for block, (group, play) in zip(blocks.ravel(), groups):
        name, rows_of_block = block_name(group, play), found.frame().query("group == @group and play == @play")
        _block(block, name, rows_of_block, *found.profiles[name], colour)
    few = [math.isnan(row["iqm_low"]) for row in found.rows]
    bars = ["" if all(few) else "bars and bands: 95 % intervals over seeds", f"with {TOO_FEW}" if any(few) else ""]
    first = found.rows[0]
    facts = f"{first['profile']} profile, source {first['source']}; scores as in aggregates.md"
    caption(figure, "; ".join(filter(None, [facts, *bars])))
    return figure


def _block(
    block: SubFigure, name: str, rows: pd.DataFrame, thresholds: np.ndarray, profiles: dict, colour: dict[str, str]
) -> None:
    """Four panels of a group's aggregates, method names at the left ones only, and below them its profiles."""
    sizes = span(rows["n_datasets"], "dataset"), span(rows["n_seeds"], "seed")
    block.suptitle(f"{name} ({', '.join(sizes)})", fontsize=9)
    most = 0.3 + 0.15 * len(rows)
    grid = block.add_gridspec(3, 2, height_ratios=[most, most, 1.6])
    for place, (metric, name) in enumerate(NAMES.items()):
        axis = block.add_subplot(grid[place // 2, place % 2])
        _points(axis, rows, metric, colour)
        axis.set_title(name)
        axis.tick_params(labelleft=place % 2 == 0)
    _profiles(block.add_subplot(grid[2, :]), rows, thresholds, profiles, colour)


def _points(axis: Axes, rows: pd.DataFrame, metric: str, colour: dict[str, str]) -> None:
    """One aggregate: a marker and an interval per method, the suite's first at the top."""
    shapes = markers(colour)
    for height, row in enumerate(rows.to_dict("records")):
        title, ends = row["title"], [row[f"{metric}_low"], row[f"{metric}_high"]]
        axis.plot(ends, [height, height], color=colour[title], linewidth=3, alpha=0.35, solid_capstyle="butt")
        axis.plot(row[metric], height, color=colour[title], marker=shapes[title], markersize=4)
    axis.set_yticks(range(len(rows)), list(rows["title"]), fontsize=7)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    round_ticks(axis.xaxis, 4)
    axis.grid(True, axis="x", color="0.92", linewidth=0.6)
    axis.tick_params(left=False, labelsize=7)
    sns.despine(ax=axis, left=True)


def _profiles(axis: Axes, rows: pd.DataFrame, thresholds: np.ndarray, profiles: dict, colour: dict[str, str]) -> None:
    """The share of runs above every score, with the markers of the panels above at staggered places."""
    shapes, titles = markers(colour), dict(zip(rows["algorithm"], rows["title"]))
    gap = max(1, len(thresholds) // 8)
    for place, (method, (share, low, high)) in enumerate(profiles.items()):
        shade, marker = colour[titles[method]], shapes[titles[method]]
        start = place * gap // len(profiles)
        axis.plot(thresholds, share, color=shade, linewidth=1, marker=marker, markersize=3, markevery=(start, gap))
        axis.fill_between(thresholds, low, high, color=shade, alpha=0.12, linewidth=0)
    axis.axvline(1, color="0.5", linestyle="--", linewidth=0.8)
    axis.set(xlim=(0, thresholds[-1]), ylim=(-0.03, 1.03))
    axis.set_xlabel("score τ", fontsize=8)
    axis.set_ylabel("share of runs above τ", fontsize=8)
    axis.tick_params(labelsize=7)
    sns.despine(ax=axis)
