"""Names of a scatter plot lie inside its axes, near their points, and clear of markers and each other."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.transforms import Bbox

from offmarl.reports.figures.labels import label_points
from offmarl.reports.figures.style import paint

NAMES = ["BC", "MABCQ", "MACQL", "Diffusion BC", "MADiff", "DoF", "Flow BC", "MAC-Flow", "A rather long name"]
K, RNG = np.arange(9), np.random.default_rng(3)
CROWDS = {  # x, y, half of the interval
    "one place": (np.ones(9), np.full(9, 10.0), math.nan),
    "a column": (np.ones(9), 10 + 0.1 * K, 0.3),
    "a block": (1 + 0.1 * (K % 3), 10 + 0.3 * (K // 3), 0.2),
    "the edges": (2.0 ** (K // 7 * -3), 10 + 0.2 * K, 0.1),
    "a row": (1.15**K, 10 + 0.01 * K, 0.3),
    "a cloud": (np.exp(RNG.normal(0, 0.5, 9)), RNG.normal(10, 0.5, 9), 0.5),
}


def draw(x, y, half):
    """A figure with two panels of the same points, of which one has its names."""
    figure = Figure(figsize=(8.8, 3.6), layout="constrained")
    axis, other = figure.subplots(1, 2)
    for panel in (axis, other):
        panel.errorbar(x, y, half, fmt="o", markersize=6)
        panel.set(xscale="log", xlim=(x.min() / 1.6, x.max() * 1.6))
    figure.supxlabel("a caption\nof two lines")
    label_points(axis, {name: (a, b, b - half, b + half) for name, a, b in zip(NAMES, x, y)}, paint(NAMES))
    return figure, axis


@pytest.mark.parametrize("crowd", CROWDS)
def test_crowded_names_keep_inside_near_and_clear_of_each_other(crowd):
    x, y, half = CROWDS[crowd]
    figure, axis = draw(x, y, half)
    boxes = [text.get_window_extent() for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == NAMES
    assert not any(box.count_overlaps(boxes[:place]) for place, box in enumerate(boxes))
    frame = axis.bbox.padded(0.5)
    assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)
    points = axis.transData.transform(np.stack([x, y], axis=1))
    markers = [Bbox([point - 4, point + 4]) for point in points]
    assert not any(box.count_overlaps(markers) for box in boxes)
    distances = [np.linalg.norm(np.clip(point, box.min, box.max) - point) for box, point in zip(boxes, points)]
    lines = [patch for patch in axis.patches if isinstance(patch, FancyArrowPatch)]
    assert max(distances) < (65 if crowd == "one place" else 40)
    assert len(lines) >= sum(distance > 24 for distance in distances)


def test_names_that_have_room_are_at_the_right_of_their_points_without_a_line():
    x, y = 1.9**K, 10 + K * 5 % 9
    _, axis = draw(x, y.astype(float), math.nan)
    boxes = [text.get_window_extent() for text in axis.texts]
    points = axis.transData.transform(np.stack([x, y], axis=1))
    gaps = [box.x0 - point[0] for box, point in zip(boxes, points)]
    assert gaps[:7] == pytest.approx([12] * 7, abs=1)
    assert all(box.x1 < point[0] for box, point in zip(boxes[7:], points[7:]))  # the last two have no room there
    assert [patch for patch in axis.patches if isinstance(patch, FancyArrowPatch)] == []


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_the_same_points_give_the_same_file(kind):
    files = []
    for _ in range(2):
        figure, _ = draw(*CROWDS["a block"])
        figure.savefig(
            file := io.BytesIO(), format=kind, dpi=160, metadata={"CreationDate": None} if kind == "pdf" else {}
        )
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_a_matplotlibrc_of_the_users_does_not_reach_figures(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: no such font\nlines.linewidth: 40\n")
    code = "import io; from offmarl.reports.figures.style import panels, styled\n"
    code += "@styled\ndef draw():\n    figure, (axis,) = panels(1, 1, 2, 2)\n    (line,) = axis.plot([0, 1])\n"
    code += "    figure.savefig(io.BytesIO()); print(line.get_linewidth())\ndraw()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "1.5"), done.stderr
