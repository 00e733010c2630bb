"""Figures of the papers' other experiments, drawn from the records that `offmarl experiment` stored."""

import math
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offmarl.reports.figures.style import COLOURS, caption, legend, markers, paint, panels, round_ticks, styled
from offmarl.reports.tables.stats import half_width
from offmarl.reports.tables.table import span

COLOUR = {"data": "0.5", "joint": COLOURS["Flow BC"], "policies": COLOURS["MAC-Flow"]}
NAMES = {"data": "data", "joint": "joint flow", "policies": "policies"}
LABELS = {"return": "mean return", "mean_q": "mean value Q", "relative": "normalised return"}
LABELS |= {"critic": "critic loss", "distillation": "policy: distillation", "q": "policy: $-$Q"}
HINTS = {"covering": "grey: where agents start; crosses: landmarks", "learning": "x axis: gradient steps in thousands"}
Record = dict[str, Any]


@styled
def draw(record: Record) -> Figure:
    """The experiment's figure, of the kind that its record names, with a caption."""
    kinds = {"tables": _tables, "scatter": _scatter, "sweep": _sweep, "curves": _curves, "covering": _covering}
    kinds |= {"learning": _learning, "categories": _categories}
    figure = kinds[record["picture"]](record)
    caption(figure, HINTS.get(record["picture"], ""), foot(record))
    return figure


def foot(record: Record) -> str:
    """What it takes to read the figure: profile, seeds, steps, what bands mean."""
    budget = record["budget"]
    steps = span(last_evaluations(pd.DataFrame(record["rows"]))["step"], "gradient step")
    text = f"{record['profile']} profile, {span([len(budget['seeds'])], 'seed')}, {steps}"
    if "samples" in budget:
        return f"{text}, {budget['samples']} samples per evaluation; bands: from the lowest seed to the highest"
    marks = {"categories": "small dots: seeds"}.get(record["picture"], "bands: 95 % intervals over three seeds or more")
    return f"{text}, {record['source']} data; {marks}"


def last_evaluations(rows: pd.DataFrame) -> Any:
    """The rows of every run's last evaluation."""
    steps = rows.groupby(["arm", "setting", "seed"], dropna=False)["step"]
    return rows[rows["step"] == steps.transform("max")]


def _tables(record: Record) -> Figure:
    """Shares of joint actions: data, joint flow, policies of every arm."""
    first = record["shown"][0]
    shown = [("data", first["data"]), ("joint flow", first["joint"])]
    shown += [(f"policies, {part['arm']}", part["policies"]) for part in record["shown"]]
    figure, axes = panels(len(shown), len(shown), 1.7 * len(shown), 2.2)
    for axis, (title, shares) in zip(axes, shown):
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, origin="lower")
        for (i, j), share in np.ndenumerate(shares):
            axis.text(j, i, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "black")
        axis.set(title=title, xticks=[0, 1], yticks=[0, 1], xlabel="action of agent 2", ylabel="action of agent 1")
    return figure


def _scatter(record: Record) -> Figure:
    """Joint actions of two agents with one number each."""
    shown = record["shown"][0]
    figure, axes = panels(3, 3, 6.6, 2.9, share=True)
    for axis, (who, name) in zip(axes, NAMES.items()):
        points = np.array(shown[who])[..., 0]
        axis.scatter(points[:, 0], points[:, 1], s=6, color=COLOUR[who], alpha=0.6, linewidths=0)
        axis.set(title=name, xlabel="action of agent 1", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
    axes[0].set_ylabel("action of agent 2")
    return figure


def _sweep(record: Record) -> Figure:
    """Return, distance and correlation by setting: mean over seeds, and the range of the seeds."""
    last = last_evaluations(pd.DataFrame(record["rows"]))
    count = 3 if "data_correlation" in last else 2  # older records lack it
    figure, axes = panels(count, count, 3.3 * count, 2.6)
    returns, distance, *dependence = axes
    for who in ("joint", "policies"):
        _band(returns, last, "setting", f"{who}_return", NAMES[who], COLOUR[who])
    _band(distance, last, "setting", "wasserstein", "joint flow to policies", "black")
    returns.set(ylabel="return", title="returns")
    distance.set(ylabel="$W_2$ of joint actions", title="2-Wasserstein distance")
    for axis, (who, name) in product(dependence, NAMES.items()):
        _band(axis, last, "setting", f"{who}_correlation", name, COLOUR[who], 4.5 if who == "data" else 1.5)
        axis.set(ylabel="correlation of actions", title="dependence of two agents")
    for axis in axes:
        axis.set_xlabel(f"{record['settings']['name']} (share of interacting joint actions)")
        axis.legend(frameon=False)
    return figure


def _curves(record: Record) -> Figure:
    """Figure 3: distillation and value gap, mutual information, gap and bound over training, gap against distance."""
    rows = pd.DataFrame(record["rows"])
    figure, (loss, information, bound, cloud) = panels(4, 2, 6.6, 4.6)
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
    bound.set(title="(c) gap and bound (log scale)", ylabel="value")
    cloud.set(title="(d) every observation and evaluation", xlabel="bound $L_Q W_2$", ylabel="value gap")
    for axis in (loss, information, bound):
        axis.set_xlabel("gradient steps")
        axis.legend(frameon=False, fontsize=7)
    return figure


def _band(axis: Axes, rows: pd.DataFrame, by: str, quantity: str, label: str, colour: str, width: float = 1.5) -> None:
    """Mean over seeds, and a band from the lowest to the highest seed."""
    grouped = rows.groupby(by)[quantity]
    x = np.array(list(grouped.groups))
    axis.plot(x, grouped.mean(), color=colour, label=label, linewidth=width, marker="o", markersize=3)
    axis.fill_between(x, grouped.min(), grouped.max(), color=colour, alpha=0.2, linewidth=0)


def _covering(record: Record) -> Figure:
    """Figure 13: one episode of data, joint flow and policies per team size, as the agents' paths."""
    shown = record["shown"]
    figure, axes = panels(3 * len(shown), len(shown), 1.75 * len(shown), 5.6, share=True)
    for place, axis in enumerate(axes):
        row, column = divmod(place, len(shown))
        who, part = list(NAMES)[row], shown[column]
        path, marks = np.array(part[who]), np.array(part["marks"])
        if "starts" in part:  # older records: many joint actions of one step
            path = part["starts"] + np.stack([0 * path[0], path[0]])
        axis.plot(*path.transpose(2, 0, 1), color=COLOUR[who], linewidth=0.8, alpha=0.8)
        axis.scatter(*path[0].T, s=4, color="0.6", zorder=3)
        axis.scatter(*path[-1].T, s=7, color=COLOUR[who], zorder=3)
        axis.scatter(*marks.T, s=22, color="black", marker="x", linewidths=0.8, zorder=4)
        axis.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axis.set_title(f"{part['setting']} agents" if row == 0 else "")
        axis.set_ylabel(NAMES[who] if column == 0 else "")
    return figure


def _learning(record: Record) -> Figure:
    """A column of panels for each dataset, a row for each quantity, a line for each arm."""
    rows, quantities = pd.DataFrame(record["rows"]), record["quantities"]
    settings, colour = list(dict.fromkeys(rows["setting"])), paint(rows["arm"])
    columns = min(4, len(settings))
    bands = math.ceil(len(settings) / columns) * len(quantities)
    figure, axes = panels(bands * columns, columns, max(4.4, 2.1 * columns + 0.4), 1.0 + 1.6 * bands)
    for axis in axes:
        axis.set_axis_off()
    for place, setting in enumerate(settings):
        part: Any = rows[rows["setting"] == setting]
        row, column = divmod(place, columns)
        for k, quantity in enumerate(quantities):
            axis = axes[(row * len(quantities) + k) * columns + column]
            axis.set_axis_on()
            _lines(axis, part, quantity, colour, record)
            axis.set_title(setting if k == 0 else "")
            axis.set_ylabel(LABELS[quantity] if column == 0 else "")
    legend(figure, colour, ncols=int(figure.get_figwidth() / 1.5))
    sns.despine(fig=figure)
    return figure


def _lines(axis: Axes, rows: pd.DataFrame, quantity: str, colour: dict[str, str], record: Record) -> None:
    """The arms of one dataset: mean over seeds, and its 95 % interval where there are enough seeds."""
    guide = {"color": "0.5", "linewidth": 1}
    for arm, part in rows.dropna(subset=[quantity]).groupby("arm", sort=False):
        seeds = part.groupby("step")[quantity]
        steps, mean = np.array(list(seeds.groups)) / 1000, seeds.mean().to_numpy()
        half = half_width(np.array(seeds.std(ddof=1)), np.array(seeds.count()))
        axis.plot(steps, mean, color=colour[str(arm)], label=str(arm), linewidth=1.2, marker="o", markersize=2.5)
        axis.fill_between(steps, mean - half, mean + half, color=colour[str(arm)], alpha=0.15, linewidth=0)
    if quantity == "return":
        axis.axhline(rows["data"].iloc[0], linestyle="--", label="mean of the dataset", **guide)
    if record.get("online"):
        axis.axvline(rows["step"].max() / 2000, linestyle=":", label="start of online training", **guide)
    axis.set_xlim(left=0)
    round_ticks(axis.xaxis, 4)
    round_ticks(axis.yaxis, 5)


def _categories(record: Record) -> Figure:
    """The last normalised return of every arm: a line for each dataset, a dot for each seed."""
    rows = pd.DataFrame(record["rows"])
    arms, colour = list(dict.fromkeys(rows["arm"])), paint(rows["setting"])
    last = last_evaluations(rows)
    figure, (axis,) = panels(1, 1, 4.4, 3.0)
    for setting, marker in markers(colour).items():
        part = last[last["setting"] == setting]
        mean = part.groupby("arm")["relative"].mean().reindex(arms)
        axis.plot(arms, mean, color=colour[setting], marker=marker, markersize=5, label=setting)
        axis.plot(part["arm"], part["relative"], marker, color=colour[setting], markersize=2.5, alpha=0.5, linewidth=0)
    axis.axhline(0.0, color="0.8", linewidth=0.8)
    axis.set(ylabel=LABELS["relative"], xlabel=record["axis"])
    legend(figure, ncols=3, fontsize=7)
    sns.despine(ax=axis)
    return figure
