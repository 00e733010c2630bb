"""What all figures share: colours, markers, fonts."""

from collections.abc import Iterable
from itertools import cycle
from typing import Any

import seaborn as sns

from offmarl.reports.tables.table import Table

# Okabe and Ito's colours, brown for the yellow that vanishes on white, then Tol's muted ones. Each method has the same
# in every figure; those of one table stay apart.
COLOURS = {
    **{"BC": "#000000", "MABCQ": "#CC79A7", "MACQL": "#56B4E9", "Diffusion BC": "#E69F00", "MADiff": "#009E73"},
    **{"DoF": "#0072B2", "Flow BC": "#8C510A", "MAC-Flow": "#D55E00", "MATD3BC": "#332288", "ICQ": "#999933"},
    **{"OMAR": "#882255", "OMIGA": "#44AA99", "MA-SfBC": "#6699CC", "MA-FQL": "#AA4499", "OM2P": "#117733"},
    "MADiff-C": "#88CCAA",
}
SPARE = ["#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#8C510A", "#332288", "#999933", "#882255", "#44AA99"]
MARKERS = "osD^vP*X"
CAPTION_CHARACTERS = 20  # in an inch
STYLE: dict[Any, Any] = sns.axes_style("ticks") | {
    **{"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 9, "legend.fontsize": 8, "pdf.fonttype": 42},
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.titlepad": 3},
}


def colours(table: Table) -> dict[str, str]:
    """Title of every method of the table, run or not, to its colour."""
    return paint(table.titles.values())


def paint(names: Iterable[str]) -> dict[str, str]:
    """A colour for every name: the papers' methods have theirs, others take those that are left."""
    names = list(dict.fromkeys(names))
    taken = {name: COLOURS[name] for name in names if name in COLOURS}
    spare = cycle([colour for colour in SPARE if colour not in taken.values()] or SPARE)
    return {name: taken[name] if name in taken else next(spare) for name in names}
