"""Normalised scores, groups of different units, and simulators of another version."""

import json

import pandas as pd
import pytest

from offmarl.reports.figures import curves as figures
from offmarl.reports.records.reader import Records, flat
from offmarl.reports.tables import build as tables
from offmarl.reports.tables import writers

SUITE = {
    "title": "Table 2",
    "paper": "MAC-Flow, Table 2",
    "published": "macflow_table2",
    "normalised": ["mpe/spread"],
    "algorithms": {"bc": "BC", "mac_flow": "MAC-Flow"},
    "groups": {"MA-MuJoCo": {"mamujoco/3hopper": ["expert"]}, "MPE": {"mpe/spread": ["expert"]}},
}
SCORE = [159.8, 516.8]


def write(results, task, algorithm, seed, final, **over):
    """One finished run on expert data, of three equal evaluations."""
    names = {"task": task, "quality": "expert", "source": "embedded", "algorithm": algorithm, "variant": "quick"}
    run_id = f"{task.replace('/', '-')}.{algorithm}.s{seed}"
    record = {
        "cell": names | {"profile": "quick", "seed": seed},
        "run_id": run_id,
        "status": "done",
        "config_hash": "aaaa1111",
        "algorithm": {"title": SUITE["algorithms"][algorithm]},
        "dataset": {"return_mean": 12.5, "return_std": 4.0},
        "engine": {"engine": "a simulator"},
        "evaluations": [{"step": step, "returns": [final] * 4} for step in (1, 2, 3)],
        "latency": {"joint_ms": 0.2},
        "machine": {"device": "a processor"},
    }
    place = results / "runs" / run_id
    place.mkdir(parents=True, exist_ok=True)
    (place / "run.json").write_text(json.dumps(record | over))


def cell(table, task, algorithm):
    (found,) = [row for row in table.rows if (row.task, row.algorithm) == (task, algorithm)]
    return found


def below(table):
    return "\n".join(table.notes)


@pytest.fixture
def store(tmp_path):
    for method, returns in {"bc": 338.3, "mac_flow": 516.8}.items():
        for seed in (0, 1):
            write(tmp_path, "mpe/spread", method, seed, returns, score=SCORE)
            write(tmp_path, "mamujoco/3hopper", method, seed, 2000 + returns)
    return tmp_path


def build(results):
    return tables.build(Records.read(results), SUITE, "continuous", "quick", "embedded", {})


def test_scores_stand_where_the_suite_wants_them_and_returns_elsewhere(store):
    table = build(store)
    spread, hopper = (cell(table, task, "bc") for task in ("mpe/spread", "mamujoco/3hopper"))
    assert (spread.mean, spread.unit) == (pytest.approx(50), "normalised score")
    assert spread.dataset_mean == pytest.approx(100 * (12.5 - 159.8) / 357)
    assert (hopper.mean, hopper.unit) == (pytest.approx(2338.3), "return")
    assert cell(table, "AVERAGE MPE", "mac_flow").mean == pytest.approx(100)
    assert "spread 100 (return - 159.8) / (516.8 - 159.8)" in below(table)
    assert "spread expert (score)" in writers.markdown(table) and "3hopper expert |" in writers.markdown(table)
    kept = [flat(record)["final"] for record in Records.read(store).select().records]
    assert min(kept) == pytest.approx(338.3)  # the store keeps returns


def test_a_score_keeps_the_spread_between_seeds_in_its_own_unit(tmp_path):
    for seed, returns in enumerate((159.8, 516.8, 338.3)):
        write(tmp_path, "mpe/spread", "bc", seed, returns, score=SCORE)
    bc = cell(build(tmp_path), "mpe/spread", "bc")
    assert (bc.mean, bc.two_std) == (pytest.approx(50), pytest.approx(100))


def test_a_run_without_the_two_returns_says_so_instead_of_a_number(tmp_path):
    write(tmp_path, "mpe/spread", "bc", 0, 300.0)
    bc = cell(build(tmp_path), "mpe/spread", "bc")
    assert bc.status == "failed" and "no normalised score" in bc.reason and pd.isna(bc.mean)


def test_each_group_has_a_panel_in_its_own_unit(store):
    table = build(store)
    figure = figures.speed_return(table)
    assert [axis.get_title() for axis in figure.axes] == ["MA-MuJoCo (1 dataset)", "MPE (1 dataset)"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["mean return", "mean normalised score"]
    curves = figures.learning_curves(table)
    titles = [axis.get_title() for axis in curves.axes]
    assert {"3hopper expert", "spread expert (score)"} <= set(titles)
    line = next(line for line in curves.axes[titles.index("spread expert (score)")].get_lines())
    assert line.get_ydata()[-1] == pytest.approx(50)


def test_another_version_of_a_simulator_is_a_footnote(store):
    engine = {"engine": "MuJoCo", "mujoco": "3.5.0", "unlocked": "mujoco 3.5.0 instead of 3.4.0"}
    write(store, "mamujoco/3hopper", "bc", 0, 1.0, engine=engine)
    told = below(build(store))
    assert "Measured with mujoco 3.5.0 instead of 3.4.0, which changes trajectories: 3hopper." in told
    assert "MuJoCo (mujoco 3.5.0)" in told
