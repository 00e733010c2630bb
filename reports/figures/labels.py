"""Names beside the points of a scatter plot."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]  # of a point, the best first
GAPS = (10, 22)  # pixels between a point and its name
MARKER, BAR, MARGIN = np.array([6, 6]), np.array([2, 0]), np.array([2, 1])  # half sizes in pixels


def nearby(
    points: np.ndarray, halves: Sequence[np.ndarray], bars: list[Bbox], frame: Bbox, gaps: Sequence[float] = GAPS
) -> list[Bbox]:
    """A box near each point [N,2], of the half sizes given, inside the frame and clear of all points and each other.

    In pixels. A box lies at the first of the `gaps` from its point that will do, and may cross bars if there is no
    better place. The same points give the same boxes.
    """
    places = [(np.array(side), np.array(side) * gap / np.abs(side).sum()) for gap in gaps for side in SIDES]
    markers = [Bbox([point - MARKER, point + MARKER]) for point in points]
    taken: dict[int, Bbox] = {}

    def cost(box: Bbox) -> int:
        outside = not (frame.contains(*box.min) and frame.contains(*box.max))
        return 9 * outside + 3 * box.count_overlaps([*taken.values(), *markers]) + box.count_overlaps(bars)

    for k in [*range(len(points)), *range(len(points))]:  # the second round knows the places of all others
        taken.pop(k, None)
        centres = [points[k] + side * halves[k] + gap for side, gap in places]
        taken[k] = min((Bbox([centre - halves[k], centre + halves[k]]) for centre in centres), key=cost)
    return [taken[k] for k in range(len(points))]


def label_points(axis: Axes, points: Mapping[str, Sequence[float]], colour: Mapping[str, str]) -> None:
    """Write each name inside the axes near its point, clear of markers and names, with a thin line where it moved away.

    `points`: name to x, y and the ends of its interval (NaN: none). Call it last: it settles the figure's layout.
    """
    figure: Any = axis.get_figure(root=True)
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):  # the first panel's names settle it for all
        FigureCanvasAgg(figure).figure.draw_without_rendering()  # by a canvas that measures text
        figure.set_layout_engine("none")
    texts = [
        axis.text(x, y, name, color=colour[name], ha="center", va="center", in_layout=False, zorder=2.4)
        for name, (x, y, *_) in points.items()
    ]
    at = axis.transData.transform([point[:2] for point in points.values()])
    ends = [(x, y if isnan(end) else end) for x, y, *both in points.values() for end in both]
    bars = [Bbox([low - BAR, high + BAR]) for low, high in axis.transData.transform(ends).reshape(-1, 2, 2)]
    halves = [np.array(text.get_window_extent().size) / 2 + MARGIN for text in texts]
    to_data = axis.transData.inverted().transform
    for text, box in zip(texts, nearby(at, halves, bars, Bbox(axis.bbox.get_points()))):
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        text.set_position(tuple(to_data(box.get_points().mean(axis=0))))
    adjust_text(
        texts,
        objects=[Bbox(to_data([point - MARKER, point + MARKER])) for point in at],
        target_x=[x for x, *_ in points.values()],
        target_y=[y for _, y, *_ in points.values()],
        ax=axis,
        avoid_self=False,
        prevent_crossings=False,
        explode_radius=0,
        expand=(1.05, 1.3),
        force_text=(0.1, 0.25),
        force_static=(0.1, 0.25),
        force_pull=(0, 0),
        iter_lim=500,
        min_arrow_len=15,
        arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkB": 3},
    )
