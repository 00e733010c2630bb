"""The papers' small experiments: verdict, figure and page, from what `offmarl experiment` stored.

The verdict follows from the stored rules and nothing else. Reads `<results>/measurements/experiment/`; writes
`<results>/reports/experiments/<name>.{md,csv,png,pdf}`.
"""

import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from offmarl.reports.figures import PALETTE, STYLE
from offmarl.reports.report import whole

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
COLOUR = {"data": "0.5", "joint": PALETTE[5], "policies": PALETTE[7]}
NAMES = {"data": "data", "joint": "joint flow", "policies": "policies"}
Record = dict[str, Any]


def write(results: Path, name: str) -> dict[str, Any]:
    """Write an experiment's page, table and figure; returns `paths`, `verdict` and the page's `text`.

    Raises:
        FileNotFoundError: when the experiment has not been conducted.
    """
    record = json.loads((results / "measurements" / "experiment" / f"{name}.json").read_text())
    folder = results / "reports" / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    outcome, checks = verdict(record)
    text = _page(record, name, outcome, checks)
    whole(folder / f"{name}.md", lambda place: place.write_text(text, encoding="utf-8"))
    rows = pd.DataFrame(record["rows"]).drop(columns=["gaps", "distances", "bounds"], errors="ignore")
    whole(folder / f"{name}.csv", lambda place: rows.to_csv(place, index=False))
    paths, figure = [folder / f"{name}.md", folder / f"{name}.csv"], draw(record)
    for kind in ("png", "pdf"):
        facts = {"CreationDate": None} if kind == "pdf" else {}
        whole(folder / f"{name}.{kind}", lambda p, k=kind, f=facts: figure.savefig(p, format=k, dpi=160, metadata=f))
        paths.append(folder / f"{name}.{kind}")
    return {"paths": paths, "verdict": outcome, "text": text}


def verdict(record: Record) -> tuple[str, list[tuple[str, list[bool]]]]:
    """`holds`, `does not hold` or `cannot tell`, and every rule with what it came to in each seed."""
    checks = []
    for left, sign, right in record["rules"]:
        ones, others = numbers(record, left), numbers(record, right)
        checks.append((f"{left} {sign} {right}", [bool(COMPARE[sign](a, b)) for a, b in zip(ones, others)]))
    if all(all(seeds) for _, seeds in checks):
        return "holds", checks
    return ("does not hold" if any(not any(seeds) for _, seeds in checks) else "cannot tell"), checks


def numbers(record: Record, name: Any) -> list[float]:
    """What a rule's word means in each seed: a constant, or arm.quantity with .first, .least or .trend."""
    rows = pd.DataFrame(record["rows"])
    seeds = sorted(rows["seed"].unique())
    if not isinstance(name, str):
        return [float(name)] * len(seeds)
    arm, quantity, *how = name.split(".")
    rows: Any = rows[rows["arm"] == arm]
    return [_one(rows[rows["seed"] == seed].sort_values("step"), quantity, *how) for seed in seeds]


def _one(rows: pd.DataFrame, quantity: str, how: str = "last") -> float:
    if how == "trend":
        last = rows[rows["step"] == rows["step"].max()]
        found: Any = spearmanr(last["setting"], last[quantity])
        return float(found.statistic)
    values = rows[quantity]
    return float({"last": values.iloc[-1], "first": values.iloc[0], "least": values.min()}[how])


def draw(record: Record) -> Figure:
    """The experiment's figure, of the kind that its record names."""
    with rc_context(STYLE):
        return {"tables": _tables, "scatter": _scatter, "sweep": _sweep, "curves": _curves}[record["picture"]](record)


def _tables(record: Record) -> Figure:
    """Shares of joint actions: data, joint flow, policies of every arm."""
    first = record["shown"][0]
    panels = [("data", first["data"]), ("joint flow", first["joint"])]
    panels += [(f"policies, {shown['arm']}", shown["policies"]) for shown in record["shown"]]
    figure = Figure(figsize=(1.7 * len(panels), 2.2), layout="constrained")
    for axis, (title, shares) in zip(figure.subplots(1, len(panels)), panels):
        _shares(axis, np.array(shares), title)
    figure.supxlabel(_foot(record), fontsize=6.5, color="0.35")
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
    figure.supxlabel(_foot(record), fontsize=6.5, color="0.35")
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
    figure.supxlabel(_foot(record), fontsize=6.5, color="0.35")
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
    figure.supxlabel(_foot(record), fontsize=6.5, color="0.35")
    return figure


def _band(axis: Axes, rows: pd.DataFrame, by: str, quantity: str, label: str, colour: str) -> None:
    """Mean over seeds, from the least to the largest seed."""
    grouped = rows.groupby(by)[quantity]
    x = np.array(list(grouped.groups))
    axis.plot(x, grouped.mean(), color=colour, label=label, marker="o", markersize=3)
    axis.fill_between(x, grouped.min(), grouped.max(), color=colour, alpha=0.2, linewidth=0)


def _foot(record: Record) -> str:
    budget = record["budget"]
    return (
        f"{record['profile']} profile, {len(budget['seeds'])} seeds, {budget['steps']:,} gradient steps, "
        f"{budget['samples']} samples at a look; bands: from the least seed to the largest"
    )


def _page(record: Record, name: str, outcome: str, checks: list[tuple[str, list[bool]]]) -> str:
    """Claim, verdict, figure and rules."""
    lines = [
        f"# {record['title']}",
        "",
        f"**Claim.** {record['claim']}",
        "",
        f"**Verdict: {outcome}.** {_foot(record)}.",
    ]
    lines += [
        "",
        f"![{record['title']}]({name}.png)",
        "",
        "| rule | seeds in which it holds | values |",
        "|---|---|---|",
    ]
    for (text, seeds), (left, _, right) in zip(checks, record["rules"]):
        values = ", ".join(f"{value:.3g}" for value in numbers(record, left))
        against = (
            "" if not isinstance(right, str) else " against " + ", ".join(f"{v:.3g}" for v in numbers(record, right))
        )
        lines.append(f"| `{text}` | {sum(seeds)} of {len(seeds)} | {values}{against} |")
    lines += ["", record["note"]] if record.get("note") else []
    lines += ["", "All rules in all seeds: holds; a rule in no seed: does not hold; else: cannot tell."]
    return "\n".join(lines) + "\n"
