"""Colours tell methods apart, and a figure is tall enough for its legend and its caption."""

import itertools

import pytest

from offmarl.algorithms import registry
from offmarl.reports.figures.style import caption, legend, paint, panels

TITLES = [method.title for method in registry().values() if method.__module__.startswith("offmarl.algorithms.")]


def test_every_method_of_ours_has_a_colour_of_its_own():
    assert len(TITLES) > 15 and len(set(paint(TITLES).values())) == len(TITLES)


@pytest.mark.parametrize("methods, lines", [*itertools.product((3, len(TITLES)), (1, 12))])
def test_legend_and_caption_leave_a_panel_its_place(methods, lines):
    """They once lay over a single panel where many methods ran on one dataset."""
    figure, (axis,) = panels(1, 1, 3.0, 2.9)
    for k, title in enumerate(TITLES[:methods]):
        axis.plot([0, 1], [0, k], label=title)
    legend(figure, ncols=2)
    caption(figure, *["a line of a caption"] * lines)
    figure.draw_without_rendering()
    panel, above = axis.get_tightbbox(), figure.legends[0].get_window_extent()
    assert axis.bbox.height > 1.2 * figure.dpi
    assert not panel.overlaps(above) and above.y1 <= figure.bbox.y1
    below = figure._supxlabel.get_window_extent()
    assert not panel.overlaps(below) and below.y0 >= 0
