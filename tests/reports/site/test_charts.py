"""The geometry of the site's charts."""

from types import SimpleNamespace

import pytest

from offmarl.reports.site import charts as site_charts


def test_a_scale_of_numbers_and_one_of_logarithms():
    line, log = site_charts.Axis(10, 20, 0, 100), site_charts.Axis(1, 100, 0, 100, log=True)
    assert (line.at(12.5), log.at(10)) == (25, 50)
    assert [tick["text"] for tick in log.ticks()][:2] == ["1", "3"]
    assert {tick["text"] for tick in site_charts.Axis(-1, 1, 0, 1).ticks()} == {"−1.0", "−0.5", "0.0", "0.5", "1.0"}


def test_a_bar_leaves_out_what_is_not_there():
    row = SimpleNamespace(mean=5.0, ci_low=float("nan"), ci_high=float("nan"), published_mean=10.0)
    assert site_charts.bar(row, (0, 10)) == {"mean": site_charts.BAR / 2, "published_mean": site_charts.BAR - 4}


def test_names_of_crowded_points_do_not_meet():
    points = [{"title": f"A long name {k}", "latency_ms": 1 + 0.01 * k, "mean": 10.0 + k} for k in range(6)]
    drawn = site_charts.scatter([point | {"ci_low": float("nan"), "ci_high": float("nan")} for point in points])
    boxes = [(mark["name_x"], mark["name_y"]) for mark in drawn["marks"]]
    assert all(abs(a[1] - b[1]) > 11 or abs(a[0] - b[0]) > 80 for k, a in enumerate(boxes) for b in boxes[:k])


def test_a_cloud_names_its_points_where_there_is_room():
    points = [(f"3m {k}", 0.1 * k, 0.5) for k in range(site_charts.NAMED + 1)]
    few, many = site_charts.cloud(points[1:])["marks"], site_charts.cloud(points)["marks"]
    places = {(mark["name_x"], mark["name_y"]) for mark in few}
    assert len(places) == len(few) and not any("name_x" in mark for mark in many)


def test_a_histogram_counts_every_episode():
    drawn = site_charts.histogram([0.0] * 3 + [10.0], (0, 10), 20.0)
    assert [bar["height"] for bar in drawn["bars"]] == pytest.approx([70, 70 / 3], abs=0.1) and drawn["data"] is None
