"""`offmarl status` of stores in every state."""

import dataclasses
import json

import pytest

from offmarl.experiments.cli import main
from offmarl.experiments.commands.status import note_grid
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.launch.exclusive import lock_path
from offmarl.experiments.store.lock import Lock
from offmarl.experiments.store.store import Store

REQUEST = grid.Request("smac", "smoke", algorithms=["bc", "macql", "flow_bc"], tasks=["smac/3m:good"])


@pytest.fixture
def results(tmp_path):
    """Three jobs of two seeds were asked for: bc done, one seed of macql failed, flow_bc not begun."""
    bc, macql, flow = grid.jobs(REQUEST)
    store = Store(tmp_path)
    times = {"data_s": 10.0, "update_s": 100.0, "evaluate_s": 40.0, "seeds_together": 2}
    for k in (0, 1):
        facts = {"status": "done", "protocol": bc.protocol.to_json(), "time": times, "machine": {"threads": 3}}
        store.write(bc.cells()[k], {"run_id": bc.run_ids()[k], **facts})
    lost = {"status": "failed", "reason": "ValueError: no", "machine": {}}
    store.write(macql.cells()[0], {"run_id": macql.run_ids()[0], **lost})
    note_grid(tmp_path, REQUEST, [bc, macql, flow])
    return tmp_path


def ask(results, capsys, *options):
    assert main(["status", "--results", str(results), *options]) == 0
    return capsys.readouterr().out


def test_it_counts_what_was_asked_for(results, capsys):
    found = json.loads(ask(results, capsys, "--json"))
    counts = {"done": 2, "failed": 1, "diverged": 0, "running": 0, "pending": 3}
    assert found["grids"] == {"smac-smoke-embedded": counts}
    assert found["methods"]["macql"] == counts | {"done": 0, "pending": 1}
    assert found["lost"][0]["reason"] == "ValueError: no"
    assert (found["time_left_s"], found["untimed"]) == (0, ["macql", "flow_bc"])
    assert found["hours"] == {"gpu": 0, "cpu": pytest.approx(3 * 150 / 3600)}


def test_it_shows_what_runs_and_how_far_it_is(results, capsys):
    flow = grid.jobs(REQUEST)[2]
    lock = Lock(lock_path(results, flow))
    lock.facts |= {"step": 75, "steps": 150}
    lock.write_heartbeat()
    found = json.loads(ask(results, capsys, "--json"))
    assert found["methods"]["flow_bc"]["running"] == 2
    times = {"data_s": 10.0, "update_s": 200.0, "evaluate_s": 90.0, "seeds_together": 2}
    facts = {"status": "done", "protocol": flow.protocol.to_json(), "time": times, "machine": {}}
    Store(results).write(flow.cells()[0], {"run_id": flow.run_ids()[0], **facts})
    found = json.loads(ask(results, capsys, "--json"))
    assert (found["time_left_s"], found["untimed"]) == (pytest.approx(300 / 150 * 75), ["macql"])
    text = ask(results, capsys)
    assert f"running: {flow.lock_name}: step 75 of 150, heartbeat 0 s ago (" in text
    lock.release()
    text = ask(results, capsys)
    assert "running:" not in text and "time left: 5 min plus 1 method not timed yet" in text
    assert "smac-smoke-embedded: 3 of 6 cells done, 2 pending" in text
    assert "ValueError: no" in text and "spent: 0.00 GPU-hours, 0.17 CPU-hours" in text


def test_it_changes_nothing_and_a_damaged_run_is_pending(results, capsys):
    bc = grid.jobs(REQUEST)[0]
    (results / "runs" / bc.run_ids()[0] / "run.json").write_text("{")
    before = sorted(results.rglob("*"))
    assert json.loads(ask(results, capsys, "--json"))["methods"]["bc"]["pending"] == 1
    assert sorted(results.rglob("*")) == before


def test_runs_that_nobody_asked_for_count_with_their_method(results, capsys):
    (bc,) = grid.jobs(dataclasses.replace(REQUEST, algorithms=["bc"]))
    note_grid(results, REQUEST, [bc])  # asked anew: less
    found = json.loads(ask(results, capsys, "--json"))
    assert found["grids"]["smac-smoke-embedded"]["done"] == 2 and found["time_left_s"] == 0
    assert found["methods"]["macql"] == {"done": 0, "failed": 1, "diverged": 0, "running": 0, "pending": 0}
