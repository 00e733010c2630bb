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


def test_names_of_a_crowded_board_stand_apart_with_lines_to_their_points():
    """The reference board of Spread: seven methods of one speed, whose intervals lie over each other."""
    board = {
        **{
            "ICQ": (0.098, 34.3, 5.1),
            "OMIGA": (0.115, 32.3, 6.4),
            "MATD3BC": (0.103, 30.0, 5.4),
            "BC": (0.115, 29.5, 5.3),
        },
        **{"MACQL": (0.116, 29.2, 4.5), "Flow BC": (1.86, 27.9, 3.7), "OMAR": (0.097, 27.4, 4.4)},
        **{"MAC-Flow": (0.13, 23.2, 4.4), "MADiff": (24.4, 14.5, 3.1)},
    }
    points = [
        {"title": name, "latency_ms": ms, "mean": mean, "ci_low": mean - half, "ci_high": mean + half}
        for name, (ms, mean, half) in board.items()
    ]
    marks = site_charts.scatter(points)["marks"]
    for k, one in enumerate(marks):
        for other in marks[:k]:
            wide = (site_charts.text_width(one["title"]) + site_charts.text_width(other["title"])) / 2
            apart = abs(one["name_x"] - other["name_x"]), abs(one["name_y"] - other["name_y"])
            assert apart[0] >= wide - 0.1 or apart[1] >= site_charts.LINE - 0.1
    lines = {mark["title"]: mark for mark in marks if "line" in mark}
    assert 0 < len(lines) < len(marks) and not {"Flow BC", "MADiff"} & lines.keys()
    for mark in lines.values():
        ends = abs(mark["line"][0] - mark["name_x"]), abs(mark["line"][1] - mark["name_y"])
        assert ends[0] <= site_charts.text_width(mark["title"]) / 2 + 0.1 and ends[1] <= site_charts.LINE


def test_a_cloud_names_its_points_where_there_is_room():
    points = [(f"3m {k}", 0.1 * k, 0.5) for k in range(site_charts.NAMED + 1)]
    few, many = site_charts.cloud(points[1:])["marks"], site_charts.cloud(points)["marks"]
    places = {(mark["name_x"], mark["name_y"]) for mark in few}
    assert len(places) == len(few) and not any("name_x" in mark for mark in many)


def test_a_histogram_counts_every_episode():
    drawn = site_charts.histogram([0.0] * 3 + [10.0], (0, 10), 20.0)
    assert [bar["height"] for bar in drawn["bars"]] == pytest.approx([70, 70 / 3], abs=0.1) and drawn["data"] is None
