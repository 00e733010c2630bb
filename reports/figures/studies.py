"""Figures of the papers' other experiments, drawn from the records that `offmarl experiment` stored."""

import math
import textwrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from offmarl.reports.figures.style import CAPTION_CHARACTERS, COLOURS, STYLE, paint
from offmarl.reports.tables.stats import MIN_SEEDS

COLOUR = {"data": "0.5", "joint": COLOURS["Flow BC"], "policies": COLOURS["MAC-Flow"]}
NAMES = {"data": "data", "joint": "joint flow", "policies": "policies"}
LABELS = {"return": "mean return", "mean_q": "mean value Q", "relative": "normalised return"}
Record = dict[str, Any]


def draw(record: Record) -> Figure:
    """The experiment's figure, of the kind that its record names."""
    with rc_context(STYLE):
        pictures = {"tables": _tables, "scatter": _scatter, "sweep": _sweep, "curves": _curves, "covering": _covering}
        return (pictures | {"learning": _learning, "categories": _categories})[record["picture"]](record)


def _tables(record: Record) -> Figure:
    """Shares of joint actions: data, joint flow, policies of every arm."""
    first = record["shown"][0]
    panels = [("data", first["data"]), ("joint flow", first["joint"])]
    panels += [(f"policies, {shown['arm']}", shown["policies"]) for shown in record["shown"]]
    figure = Figure(figsize=(1.7 * len(panels), 2.2), layout="constrained")
    for axis, (title, shares) in zip(figure.subplots(1, len(panels)), panels):
        _shares(axis, np.array(shares), title)
    _caption(figure, foot(record))
    return figure


def _shares(axis: Axes, shares: np.ndarray, title: str) -> None:
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, origin="lower")
    for i, j in np.ndindex(2, 2):
        axis.text(
            j, i, f"{shares[i, j]:.2f}", ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black"
        )
    axis.set(title=title, xticks=[0, 1], yticks=[0, 1], xlabel="action of agent 2", ylabel="action of agent 1")


def _scatter(record: Record) -> Figure:
    """Joint actions of two agents with one number each."""
    figure = Figure(figsize=(6.6, 2.9), layout="constrained")
    shown = record["shown"][0]
    for axis, (who, name) in zip(figure.subplots(1, 3, sharex=True, sharey=True), NAMES.items()):
        points = np.array(shown[who])[..., 0]
        axis.scatter(points[:, 0], points[:, 1], s=6, color=COLOUR[who], alpha=0.6, linewidths=0)
        axis.set(title=name, xlabel="action of agent 1", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    figure.axes[0].set_ylabel("action of agent 2")
    _caption(figure, foot(record))
    return figure


def _sweep(record: Record) -> Figure:
    """Return and distance by setting, with a line for each seed's spread."""
    rows = pd.DataFrame(record["rows"])
    last: Any = rows[rows["step"] == rows["step"].max()]
    figure = Figure(figsize=(6.6, 2.6), layout="constrained")
    returns, distance = figure.subplots(1, 2)
    for who in ("joint", "policies"):
        _band(returns, last, "setting", f"{who}_return", NAMES[who], COLOUR[who])
    _band(distance, last, "setting", "wasserstein", "joint flow to policies", "black")
    returns.set(ylabel="return", title="returns")
    distance.set(ylabel="$W_2$ of joint actions", title="2-Wasserstein distance")
    for axis in (returns, distance):
        axis.set_xlabel(f"{record['settings']['name']} (share of interacting joint actions)")
        axis.legend(frameon=False)
    _caption(figure, foot(record))
    return figure


def _curves(record: Record) -> Figure:
    """Figure 3: distillation and value gap, mutual information, gap and bound over training, gap against distance."""
    rows = pd.DataFrame(record["rows"])
    figure = Figure(figsize=(6.6, 4.6), layout="constrained")
    (loss, information), (bound, cloud) = figure.subplots(2, 2)
    _band(loss, rows, "step", "distillation", "distillation distance", COLOUR["joint"])
    _band(loss, rows, "step", "return_gap", "gap of returns", "black")
    for who in ("joint", "policies"):
        _band(information, rows, "step", f"{who}_information", NAMES[who], COLOUR[who])
    _band(bound, rows, "step", "gap", "gap of $Q_{tot}$", "black")
    _band(bound, rows, "step", "bound", "$L_Q W_2$", COLOUR["policies"])
    bound.set_yscale("log")
    bounds, gaps = (np.concatenate(rows[name].to_list()) for name in ("bounds", "gaps"))
    cloud.scatter(bounds, gaps, s=6, color=COLOUR["joint"], alpha=0.5, linewidths=0)
    cloud.axline((0, 0), slope=1, color="0.4", linewidth=0.8, linestyle="--")
    loss.set(title="(a) distillation", ylabel="action units; return")
    information.set(title="(b) mutual information of two agents", ylabel="nats")
    bound.set(title="(c) gap and bound (log)", ylabel="value")
    cloud.set(title="(d) every observation and look", xlabel="bound $L_Q W_2$", ylabel="value gap")
    for axis in (loss, information, bound):
        axis.set_xlabel("gradient steps")
        axis.legend(frameon=False, fontsize=7)
    _caption(figure, foot(record))
    return figure


def _band(axis: Axes, rows: pd.DataFrame, by: str, quantity: str, label: str, colour: str) -> None:
    """Mean over seeds, from the least to the largest seed."""
    grouped = rows.groupby(by)[quantity]
    x = np.array(list(grouped.groups))
    axis.plot(x, grouped.mean(), color=colour, label=label, marker="o", markersize=3)
    axis.fill_between(x, grouped.min(), grouped.max(), color=colour, alpha=0.2, linewidth=0)


def _covering(record: Record) -> Figure:
    """Figure 13: one joint action of data, joint flow and policies for each size of team, as ways to the landmarks."""
    shown = record["shown"]
    figure = Figure(figsize=(1.75 * len(shown), 5.6), layout="constrained")
    grid = figure.subplots(3, len(shown), sharex=True, sharey=True)
    for column, part in zip(grid.T, shown):
        starts, marks = np.array(part["starts"]), np.array(part["marks"])
        for axis, who in zip(column, NAMES):
            ends = starts + np.array(part[who])[0]
            axis.plot(*np.stack([starts, ends]).transpose(2, 0, 1), color=COLOUR[who], linewidth=0.8, alpha=0.8)
            axis.scatter(*starts.T, s=4, color="0.6", zorder=3)
            axis.scatter(*ends.T, s=7, color=COLOUR[who], zorder=3)
            axis.scatter(*marks.T, s=22, color="black", marker="x", linewidths=0.8, zorder=4)
            axis.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        column[0].set_title(f"{part['setting']} agents")
    for axis, name in zip(grid[:, 0], NAMES.values()):
        axis.set_ylabel(name)
    _caption(figure, "grey: where agents start; crosses: landmarks; " + foot(record))
    return figure


def _learning(record: Record) -> Figure:
    """A column of panels for each dataset, a row for each quantity, a line for each arm."""
    rows, quantities = pd.DataFrame(record["rows"]), record["quantities"]
    settings, colour = list(dict.fromkeys(rows["setting"])), paint(rows["arm"])
    columns = min(4, len(settings))
    bands = math.ceil(len(settings) / columns)
    figure = Figure(figsize=(max(4.4, 2.1 * columns + 0.4), 1.0 + 1.6 * bands * len(quantities)), layout="constrained")
    axes = figure.subplots(bands * len(quantities), columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for place, setting in enumerate(settings):
        part: Any = rows[rows["setting"] == setting]
        for k, quantity in enumerate(quantities):
            axis = axes[place // columns * len(quantities) + k, place % columns]
            axis.set_axis_on()
            _lines(axis, part, quantity, colour, record)
            axis.set_title(setting if k == 0 else "")
            axis.set_ylabel(LABELS[quantity] if place % columns == 0 else "")
    handles = {label: h for axis in axes.ravel() for h, label in zip(*axis.get_legend_handles_labels())}
    width = int(figure.get_figwidth() / 1.5)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=width, frameon=False)
    sns.despine(fig=figure)
    _caption(figure, "thousand gradient steps", foot(record))
    return figure


def _lines(axis: Axes, rows: pd.DataFrame, quantity: str, colour: dict[str, str], record: Record) -> None:
    """The arms of one dataset: mean over seeds, and its 95 % interval where there are seeds enough."""
    for arm, part in rows.dropna(subset=[quantity]).groupby("arm", sort=False):
        looks = part.groupby("step")[quantity]
        steps, mean = np.array(list(looks.groups)) / 1000, looks.mean().to_numpy()
        axis.plot(steps, mean, color=colour[str(arm)], label=str(arm), linewidth=1.2, marker="o", markersize=2.5)
        half = _half_width(looks)
        axis.fill_between(steps, mean - half, mean + half, color=colour[str(arm)], alpha=0.15, linewidth=0)
    if quantity == "return":
        axis.axhline(rows["data"].iloc[0], color="0.5", linestyle="--", linewidth=1, label="mean of the data")
    if record.get("online"):
        axis.axvline(
            record["budget"]["steps"] / 2000, color="0.5", linewidth=1, linestyle=":", label="online from here"
        )
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _half_width(looks: Any) -> np.ndarray:
    """Half of Student's 95 % interval of the mean over seeds; not a number for fewer than three."""
    count, std = looks.count().to_numpy(), looks.std(ddof=1).to_numpy()
    half = stats.t.ppf(0.975, np.maximum(count - 1, 1)) * std / np.sqrt(count)
    return np.where(count >= MIN_SEEDS, half, np.nan)


def _categories(record: Record) -> Figure:
    """The last normalised return of every arm: a line for each dataset, a dot for each seed."""
    rows = pd.DataFrame(record["rows"])
    arms, settings = list(dict.fromkeys(rows["arm"])), list(dict.fromkeys(rows["setting"]))
    last = rows[rows["step"] == rows.groupby(["arm", "setting", "seed"])["step"].transform("max")]
    figure = Figure(figsize=(4.4, 3.0), layout="constrained")
    axis = figure.subplots()
    for (setting, colour), marker in zip(paint(settings).items(), "osD^vP*X" * 9):
        part: Any = last[last["setting"] == setting]
        mean = part.groupby("arm")["relative"].mean().reindex(arms)
        axis.plot(arms, mean, color=colour, marker=marker, markersize=5, label=setting)
        axis.plot(part["arm"], part["relative"], marker, color=colour, markersize=2.5, alpha=0.5, linewidth=0)
    axis.axhline(0.0, color="0.8", linewidth=0.8)
    axis.set(ylabel=LABELS["relative"], xlabel=record["axis"])
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=7)
    sns.despine(ax=axis)
    _caption(figure, foot(record))
    return figure


def _caption(figure: Figure, *lines: str) -> None:
    """The lines at the foot of a figure, broken to its width."""
    width = int(CAPTION_CHARACTERS * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in lines), fontsize=6.5, color="0.35")


def foot(record: Record) -> str:
    """What it takes to read the figure: profile, seeds, steps, what bands mean."""
    budget = record["budget"]
    words = f"{record['profile']} profile, {len(budget['seeds'])} seeds, {budget['steps']:,} gradient steps"
    if "samples" in budget:
        return f"{words}, {budget['samples']} samples at a look; bands: from the least seed to the largest"
    marks = {"categories": "small dots: seeds"}.get(record["picture"], "bands: 95 % intervals over three seeds or more")
    return f"{words}, {record['source']} data; {marks}"
