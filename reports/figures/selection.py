"""Return against episodes spent: a panel for each dataset."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from offmarl.reports.figures.style import caption, legend, markers, paint, panels, styled

LINES = {"ucb": "-", "halving": "--", "round_robin": ":"}  # of the rules


@styled
def draw(rows: Sequence[Mapping[str, Any]], everyone: str, names: dict[str, str]) -> Figure:
    """What each method's bandit chooses, with its interval; in grey all methods together, by every rule.

    `rows` are those of `board.rows_of`, `everyone` the name of all methods together, `names` those of the rules.
    """
    frame: Any = pd.DataFrame(rows)
    places = list(frame.groupby(["task", "quality", "source"], sort=False))
    bands = math.ceil(len(places) / 3)
    columns = math.ceil(len(places) / bands)
    figure, axes = panels(len(places), columns, 0.8 + 2.6 * columns, 1.3 + 1.9 * bands)
    methods = [name for name in dict.fromkeys(frame["method"]) if name != everyone]
    colour, shapes, budgets = paint(methods), markers(methods), sorted(frame["budget"].unique())
    for axis, ((task, quality, _), own) in zip(axes, places):
        for (method, rule), line in own.groupby(["method", "rule"], sort=False):
            if method == everyone:
                label = f"{everyone}, {names[rule]}"
                axis.plot(line["budget"], line["mean"], LINES[rule], color="0.4", linewidth=1.6, label=label)
            elif rule == "ucb":
                shade, style = colour[method], {"marker": shapes[method], "markersize": 3, "label": method}
                axis.plot(line["budget"], line["mean"], color=shade, **style)
                axis.fill_between(line["budget"], line["low"], line["high"], color=shade, alpha=0.12, linewidth=0)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks(budgets, [*map(str, budgets)])
        axis.minorticks_off()
        axis.set(title=f"{task.split('/')[-1]} {quality}")
    sns.despine(fig=figure)
    legend(figure, methods, ncols=3)
    figure.supylabel("return of the chosen policy", fontsize=9)
    caption(figure, "by episodes played before choosing; bands: 95 %, a bootstrap over stored episodes")
    return figure
