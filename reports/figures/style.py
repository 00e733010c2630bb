"""What all figures share: colours, markers, fonts, panels and captions."""

import math
import textwrap
from collections.abc import Iterable
from itertools import cycle
from typing import Any

import seaborn as sns
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from offmarl.reports.tables.table import Table

# Okabe and Ito's colours, brown for the yellow that is faint on white, then Tol's muted ones. A method has the same
# colour in every figure, and the methods of one table differ.
COLOURS = {"BC": "#000000", "MABCQ": "#CC79A7", "MACQL": "#56B4E9", "Diffusion BC": "#E69F00", "MADiff": "#009E73"}
COLOURS |= {"DoF": "#0072B2", "Flow BC": "#8C510A", "MAC-Flow": "#D55E00", "MATD3BC": "#332288", "ICQ": "#999933"}
COLOURS |= {"OMAR": "#882255", "OMIGA": "#44AA99", "MA-SfBC": "#6699CC", "MA-FQL": "#AA4499", "OM2P": "#117733"}
COLOURS |= {"MADiff-C": "#88CCAA", "BC-RNN": "#777777", "CFCQL": "#661100", "ComaDICE": "#FF8C69", "B3C": "#004488"}
COLOURS |= {"SVN recipe": "#B22222", "MAICQ": "#7B5CE0", "QMIX+CQL": "#7FB800"}
SPARE = ["#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#8C510A", "#332288", "#999933", "#882255", "#44AA99"]
MARKERS = "osD^vP*X"
CHARACTERS = 20  # of a caption, per inch
ROWS, LINES_BELOW = 2, 4  # of a legend and a caption, for which a figure has room; more make it taller
FONTS = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 9, "legend.fontsize": 8, "pdf.fonttype": 42}
LINES = {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.titlepad": 3}
PLAIN = {name: value for name, value in rcParamsDefault.items() if "backend" not in name}  # no file of the user's
STYLE: dict[Any, Any] = PLAIN | sns.axes_style("ticks") | FONTS | LINES
styled = rc_context(STYLE)  # decorates the functions that draw a figure


def colours(table: Table) -> dict[str, str]:
    """Title of every method of the table, run or not, to its colour."""
    return paint(table.titles.values())


def paint(names: Iterable[str]) -> dict[str, str]:
    """A colour for every name: the papers' methods have theirs, others take those that are left."""
    names = list(dict.fromkeys(names))
    taken = {name: COLOURS[name] for name in names if name in COLOURS}
    spare = cycle([colour for colour in SPARE if colour not in taken.values()] or SPARE)
    return {name: taken[name] if name in taken else next(spare) for name in names}


def markers(names: Iterable[str]) -> dict[str, str]:
    """A marker for every name, in turn."""
    return dict(zip(names, cycle(MARKERS)))


def panels(count: int, columns: int, width: float, height: float, share: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `width` by `height` inches with `count` panels in rows of `columns`; the last row may be shorter."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid: Any = figure.subplots(math.ceil(count / columns), columns, squeeze=False, sharex=share, sharey=share)
    axes = grid.ravel().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def round_ticks(axis: Any, count: int) -> None:
    """At most `count` intervals between round numbers, on an x or y axis."""
    axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10]))


def legend(figure: Figure, order: Iterable[str] = (), **places: Any) -> None:
    """One legend above all panels, an entry per label: first those of `order`, then as drawn."""
    handles = {label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels())}
    labels = [label for label in dict.fromkeys([*order, *handles]) if label in handles]
    places = {"loc": "outside upper center", "frameon": False, "ncols": 1} | places
    _grow(figure, 0.18 * (math.ceil(len(labels) / places["ncols"]) - ROWS))
    figure.legend([handles[label] for label in labels], labels, **places)


def caption(figure: Figure, *lines: str) -> None:
    """Small grey lines at the foot of a figure, wrapped to its width; empty ones are dropped."""
    width = int(CHARACTERS * figure.get_figwidth())
    wrapped = [part for line in lines for part in textwrap.wrap(line, width)]
    _grow(figure, 0.13 * (len(wrapped) - LINES_BELOW))
    figure.supxlabel("\n".join(wrapped), fontsize=6.5, color="0.35")


def _grow(figure: Figure, inches: float) -> None:
    figure.set_figheight(figure.get_figheight() + max(0.0, inches))
