import json
import math

import pytest
from matplotlib.colors import to_hex

from offmarl.reports.figures import curves as figures
from offmarl.reports.figures import speed as speed_figures
from offmarl.reports.records.reader import Records
from offmarl.reports.report import write
from offmarl.reports.tables import build as tables
from offmarl.reports.tables import speed

SUITE = {
    "title": "Table 1",
    "paper": "a paper",
    "published": "macflow_table1",
    "headline": "mac_flow",
    "algorithms": {"bc": "BC", "mac_flow": "MAC-Flow"},
    "groups": {"SMACv1": {"smac/3m": ["good"], "smac/8m": ["good"]}},
    "scaling": {"mac_flow": {"agent": [0, 0], "total": [1, 0]}},
}


@pytest.fixture
def measured(tmp_path):
    """Put a measurement into a store: kind, name, and what differs from an ordinary row."""

    def put(kind, name, **over):
        facts = {"title": "its title", "nfe": 1, "parameters": 1000, "reduced": {}}
        row = {"task": "smac/3m", "algorithm": "bc", "variant": "paper", "profile": "paper", "mode": "eager"}
        row |= {"facts": facts, "machine": {"device": "a processor", "threads": 1}, "finished": "2026-01-01"}
        timing = {"median_ms": 2.0, "p95_ms": 3.0, "min_ms": 1.0, "n": 500, "cpu_share": 1.0}
        row |= {
            "latency": {"sampler": "native", "joint": timing, "agent": timing, "sum_ms": 6.0, "headline_ms": 2.0}
            | {"extrapolated": None, "step_ms": 1.0, "peak_mb": 10.0, "weights": "fresh"},
            "training": {"changed": {}, "seeds": 6, "steps": 1_000_000, "update_ms": 36.0}
            | {"seed_steps_per_s": 166.7, "peak_mb": 50.0},
            "scaling": {"title": "MAC-Flow", "teams": [], "chains": []},
        }[kind]
        folder = tmp_path / "measurements" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps({"schema": 1, **row, **over}))
        return tmp_path

    return put


def test_measurements_become_rows_of_the_suites_own_tasks_and_methods(measured):
    measured("latency", "a")
    measured("latency", "b", algorithm="mac_flow", headline_ms=4.0, extrapolated={"calls": 8, "of": 200})
    measured("latency", "c", task="mpe/spread")
    results = measured("latency", "d", algorithm="omiga")
    (results / "measurements" / "latency" / "torn.json").write_text('{"task": "smac/3m"')
    (results / "measurements" / "latency" / "other.json").write_text("[1]")
    rows = speed.inference(results, SUITE)
    assert [row["title"] for row in rows] == ["BC", "MAC-Flow"]  # in the suite's words and order
    assert [row["extrapolated"] for row in rows] == ["", "8 of 200 calls"]
    assert speed.inference(results / "nowhere", SUITE) == []


def test_a_seeds_hours_are_its_share_of_updates_in_lock_step(measured):
    rows = speed.training(measured("training", "a"), SUITE)
    assert rows[0]["hours_per_seed"] == pytest.approx(36e-3 * 1e6 / 6 / 3600)
    (row,) = speed.training(measured("training", "a", steps=100), SUITE)
    assert row["hours_per_seed"] == pytest.approx(36e-3 * 100 / 6 / 3600)  # however short


def test_figures_show_the_machine_that_measured_last(measured):
    measured("latency", "a", finished="2026-01-02")
    new = {"device": "a card", "threads": 1}
    measured("latency", "b", machine=new, finished="2026-01-03")
    results = measured("latency", "c", machine=new, finished="2026-01-03", mode="captured", headline_ms=0.5)
    shown = speed.latest(speed.inference(results, SUITE))
    assert [(row["device"], row["mode"]) for row in shown] == [("a card", "captured")]


def test_no_figure_pools_profiles_variants_or_threads(measured):
    measured("latency", "a", headline_ms=1.0, finished="2026-01-02")
    measured("latency", "b", headline_ms=0.3, profile="quick", variant="old", finished="2026-01-03")
    results = measured("latency", "c", headline_ms=0.1, profile="quick", finished="2026-01-04")
    assert [row["headline_ms"] for row in speed.latest(speed.inference(results, SUITE))] == [0.1]
    for name, threads, times in ("a", 1, (2.0, 4.0)), ("b", 4, (20.0, 40.0)):
        teams = [{"agents": n, "nfe": 1, "agent_ms": t, "total_ms": t} for n, t in zip((2, 4), times)]
        facts = {"algorithm": "mac_flow", "teams": teams, "finished": f"2026-01-0{threads}"}
        measured("scaling", name, machine={"device": "a processor", "threads": threads}, **facts)
    rows = speed.growth(results, SUITE)
    assert [row["threads"] for row in speed.exponents(rows, SUITE)] == [1, 1, 4, 4]
    (line, *_) = speed_figures.growth(rows, {"MAC-Flow": "red"}).axes[0].get_lines()
    assert line.get_ydata().tolist() == [20.0, 40.0]


def test_a_groups_means_are_over_the_tasks_that_all_its_methods_have(measured):
    measured("latency", "a", headline_ms=1.0)
    measured("latency", "b", headline_ms=9.0, task="smac/8m")  # of BC alone
    results = measured("latency", "c", headline_ms=4.0, algorithm="mac_flow")
    rows = speed.inference(results, SUITE)
    assert len(rows) == 3 and {row["task"] for row in speed.latest(rows)} == {"smac/3m"}
    figure = speed_figures.inference_time(rows, {"BC": "black", "MAC-Flow": "red"})
    assert [bars.patches[0].get_height() for bars in figure.axes[0].containers] == [1.0, 4.0]
    assert "means over 1 task of a group" in " ".join(figure.get_supxlabel().split())


def test_every_task_of_a_suite_has_a_panel_of_its_own_returns_and_times(measured, write_run):
    finals = {
        ("smac/3m", "bc"): 10.0,
        ("smac/3m", "mac_flow"): 11.0,
        ("smac/8m", "bc"): 12.0,
        ("smac/8m", "mac_flow"): 9.0,
    }
    for (task, method), final in finals.items():
        results = measured("latency", f"{task[5:]}{method}", task=task, algorithm=method, headline_ms=final + 1)
        write_run(results, task, "good", method, 0, final)
    table = tables.build(Records.read(results), SUITE, "smac", "quick", "embedded", {})
    figure = figures.speed_return(table, speed.inference(results, SUITE), by="task")
    assert [axis.get_title() for axis in figure.axes] == ["3m (1 dataset)", "8m (1 dataset)"]
    drawn = [[line for line in axis.get_lines() if line.get_marker() in list("os")] for axis in figure.axes]
    points = [{(line.get_xdata()[0], line.get_ydata()[0]) for line in lines} for lines in drawn]
    assert points == [{(11.0, 10.0), (12.0, 11.0)}, {(13.0, 12.0), (10.0, 9.0)}]
    names = {path.name for path in write(Records.read(results), "smac", SUITE, "quick", "embedded", {})["paths"]}
    assert "speed_return_tasks.png" in names
    alone = SUITE | {"groups": {"SMACv1": {"smac/3m": ["good"]}}}
    assert (
        figures.speed_return(tables.build(Records.read(results), alone, "smac", "quick", "embedded", {}), by="task")
        is None
    )


def test_fitted_powers_stand_beside_the_papers(measured):
    teams = [{"agents": n, "calls": 1, "nfe": 1, "agent_ms": 3.0, "total_ms": 0.5 * n**1.5} for n in (2, 4, 8)]
    results = measured("scaling", "a", algorithm="mac_flow", teams=teams)
    alone, team = speed.exponents(speed.growth(results, SUITE), SUITE)
    assert (alone["cost"], alone["power of I"], alone["paper's power of I"]) == ("one agent", pytest.approx(0), 0)
    assert (team["cost"], team["power of I"], team["paper's power of I"]) == ("team, one host", pytest.approx(1.5), 1)
    assert team["I up to"] == 8 and math.isnan(team["power of K"])


def test_a_report_writes_tables_and_pictures_of_speed_only_where_it_was_measured(measured, write_run):
    results = measured("latency", "a")
    measured("training", "a")
    for seed in range(2):
        write_run(results, "smac/3m", "good", "bc", seed, 15.0)
    names = {path.name for path in write(Records.read(results), "smac", SUITE, "quick", "embedded", {})["paths"]}
    assert {"inference.md", "inference.csv", "training.md", "training.csv"} <= names
    assert {"inference_time.png", "training_time.pdf"} <= names and "growth.png" not in names
    text = (results / "reports" / "smac" / "inference.md").read_text()
    assert "| smac/3m | BC | paper | paper |  | native | eager | 1 |" in text
    assert "without the environment's step" in text


def test_measurements_of_other_code_are_named_below_their_table(measured, write_run):
    measured("latency", "a", algorithm="mac_flow")
    results = measured("training", "a", algorithm="mac_flow")
    write_run(results, "smac/3m", "good", "bc", 0, 15.0)
    for old, titles in ("mac_flow", ["Stale: the code behind MAC-Flow has changed"] * 2), ("", []):
        records = Records.read(results, lambda row, old=old: "changed" if row.get("algorithm") == old else None)
        write(records, "small", SUITE, "quick", "embedded", {})
        texts = [(results / "reports" / "small" / f"{name}.md").read_text() for name in ("inference", "training")]
        assert [line.partition(";")[0] for text in texts for line in text.splitlines() if "Stale" in line] == titles


def test_a_method_has_the_colour_of_the_other_figures(measured, write_run):
    measured("latency", "a")
    results = measured("latency", "b", algorithm="mac_flow")
    write_run(results, "smac/3m", "good", "bc", 0, 15.0)
    colour = figures.colours(tables.build(Records.read(results), SUITE, "smac", "quick", "embedded", {}))
    figure = speed_figures.inference_time(speed.inference(results, SUITE), colour)
    drawn = {bar.get_label(): to_hex(bar.patches[0].get_facecolor()) for bar in figure.axes[0].containers}
    assert drawn == {"BC": colour["BC"].lower(), "MAC-Flow": colour["MAC-Flow"].lower()}


def test_speed_against_return_takes_measured_times_where_all_methods_have_them(measured, write_run):
    results = measured("latency", "a", headline_ms=7.0)
    for method in ("bc", "mac_flow"):
        write_run(results, "smac/3m", "good", method, 0, 15.0)
    runs = [{"group": "SMACv1", "algorithm": name, "latency_ms": 1.0} for name in ("bc", "mac_flow")]
    partly, source = figures._with_times(runs, speed.inference(results, SUITE), "group")
    assert [run["latency_ms"] for run in partly] == [1.0, 1.0] and source.endswith("the runs' own networks")
    measured("latency", "b", algorithm="mac_flow", headline_ms=9.0)
    wholly, source = figures._with_times(runs, speed.inference(results, SUITE), "group")
    assert [run["latency_ms"] for run in wholly] == [7.0, 9.0] and "the papers' size" in source and "smac/3m" in source
