"""The same run once more: `--deterministic` in two processes, and `offmarl rerun`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.experiments.cli import main
from offmarl.experiments.store import archive
from offmarl.experiments.store.store import Cell, Store
from offmarl.experiments.training import run
from offmarl.experiments.training.machine import Host
from offmarl.reports.records import checksums as sums

OFFMARL = Path(sys.executable).with_name("offmarl")
RUN = ["run", "--suite", "continuous", "--profile", "smoke", "--tasks", "mpe/spread:random", "--jobs", "1"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A flow policy, which draws when it trains and when it acts, trained in another process."""
    results = tmp_path_factory.mktemp("first")
    command = [OFFMARL, *RUN, "--algorithms", "flow_bc", "--set", "all.hidden=[16]", "--deterministic"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--results", results], check=True, capture_output=True, env=surroundings, cwd=results)
    yield results
    Host().set_up()


@pytest.fixture(scope="module")
def run_id(results):
    return Store(results).run_ids()[1]


def again(results, capsys, *arguments):
    code = main(["rerun", *arguments, "--results", str(results)])
    return code, capsys.readouterr().out.splitlines()


def test_the_same_seed_gives_the_same_bits_in_another_process(results, run_id, capsys):
    record = Store(results).read(run_id)
    assert record["machine"]["deterministic"] and record["seeds"] == [0, 1]
    code, lines = again(results, capsys, run_id)
    assert code == 0
    assert lines[0].startswith(f"{run_id}, with seeds 0, 1 on ")
    assert lines[1:] == [f"{what}: the same bit for bit" for what in ("returns", "curves", "weights")]
    assert torch.are_deterministic_algorithms_enabled()
    assert sorted(path.name for path in results.iterdir()) == ["grids", "reports", "runs", "work"]


def test_a_run_that_came_in_a_file_of_records_is_compared_by_its_returns(results, run_id, tmp_path, capsys):
    archive.pack((results / "runs").iterdir(), tmp_path / "r.tar.xz")
    assert main(["merge", str(tmp_path / "r.tar.xz"), "--results", str(tmp_path / "joined")]) == 0
    capsys.readouterr()
    code, lines = again(tmp_path / "joined", capsys, run_id)
    assert code == 0 and lines[1:] == ["returns: the same bit for bit"]


def shifted(results, folder, shift):
    """The runs of a store with other returns, and a third seed, which gives them an interval."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob("runs/*/run.json"))]
    third = json.loads(json.dumps(records[1]).replace(".s1.", ".s2."))
    third["cell"]["seed"] = 2
    for record in [*records, third]:
        for evaluation in record["evaluations"]:
            evaluation["returns"] = [value + shift for value in evaluation["returns"]]
        (folder / record["run_id"]).mkdir(parents=True)
        (folder / record["run_id"] / "run.json").write_text(json.dumps(record))
    return folder.iterdir()


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_a_cell_of_the_reference_comes_back_or_does_not(results, tmp_path, capsys, monkeypatch, shift):
    monkeypatch.setattr(archive, "shipped", lambda: [tmp_path / "r.tar.xz"])
    archive.pack(shifted(results, tmp_path / "runs", shift), tmp_path / "r.tar.xz")
    assert main(["rerun", "mpe/spread:random:flow_bc", "--reference"]) == (1 if shift else 0)
    assert ("does not agree" in capsys.readouterr().out) == bool(shift)


def test_a_seed_that_is_lost_this_time_does_not_agree(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(archive, "shipped", lambda: [tmp_path / "r.tar.xz"])
    monkeypatch.setattr(run.Run, "note_divergence", lambda self: self.diverged.setdefault(0, "told by a test"))
    archive.pack(shifted(results, tmp_path / "runs", 0.0), tmp_path / "r.tar.xz")
    assert main(["rerun", "mpe/spread:random:flow_bc", "--reference"]) == 1
    said = capsys.readouterr().out
    assert "seed 0 diverged (told by a test)" in said and "does not agree" in said


def test_an_unknown_cell_of_the_reference_is_named(results, tmp_path, capsys, monkeypatch):
    archive.pack((results / "runs").iterdir(), tmp_path / "r.tar.xz")
    monkeypatch.setattr(archive, "shipped", lambda: [tmp_path / "r.tar.xz"])
    assert main(["rerun", "mpe/spread:random:flow", "--reference"]) == 2
    assert "did you mean 'mpe/spread:random:flow_bc'" in capsys.readouterr().err


def test_a_seed_alone_is_the_same_to_tolerance(results, run_id, capsys):
    code, lines = again(results, capsys, run_id, "--alone")
    assert code == 0 and lines[0].startswith(f"{run_id}, with seeds 1 on ")
    assert all("the same" in line for line in lines[1:])


def resum(folder):
    """Write the sums anew; returns what they were."""
    before = (folder / sums.SUMS).read_text()
    (folder / sums.SUMS).write_text(sums.sums(folder, sums.WRITTEN))
    return before


def test_other_weights_are_not_the_same(results, run_id, capsys):
    file = results / "runs" / run_id / "checkpoint.pt"
    before = file.read_bytes()
    weights = torch.load(file, weights_only=True)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] += 0.5
    torch.save(weights, file)
    sums_before = resum(file.parent)
    code, lines = again(results, capsys, run_id)
    file.write_bytes(before)
    assert main(["rerun", run_id, "--results", str(results)]) == 2  # by the sums it has now
    assert "is damaged" in capsys.readouterr().err
    (file.parent / sums.SUMS).write_text(sums_before)
    assert (code, lines[3]) == (1, "weights: not the same (furthest 0.5 off)")


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_record_of_rubbish_is_refused_in_a_line(results, run_id, data, capsys):
    """Whoever writes the results can write sums that match."""
    folder = results / "runs" / run_id
    content = (folder / "run.json").read_text()
    record = json.loads(content)
    parts = {"cell", "config", "protocol"}
    part = data.draw(st.sampled_from([None, *sorted(parts)]))
    name = data.draw(st.sampled_from(sorted(record[part]) if part else [*sorted(parts), "machine", "seeds"]))
    (record[part] if part else record)[name] = data.draw(st.sampled_from([None, {}, "x", -7, ["x"], {"x": "../../x"}]))
    folder.joinpath("run.json").write_text(json.dumps(record))
    sums_before = resum(folder)
    try:
        code = main(["rerun", run_id, "--results", str(results)])
    finally:
        folder.joinpath("run.json").write_text(content)
        folder.joinpath(sums.SUMS).write_text(sums_before)
    err = capsys.readouterr().err
    assert code in (0, 1) or (code == 2 and len(err.splitlines()) == 1)


def test_what_cannot_be_run_again_is_refused_in_a_line(results, run_id, capsys):
    store = Store(results)
    assert main(["rerun", run_id.replace("spread", "spred"), "--results", str(results)]) == 2
    assert run_id in capsys.readouterr().err
    from offmarl.experiments.grid.jobs import stored_job

    record = store.peek(run_id)
    job = stored_job(record, [0])
    assert job.run_ids() == [store.run_ids()[0]]
    old = stored_job(record | {"protocol": record["protocol"] | {"data": "00000000"}}, [7])
    store.write(old.cells()[0], record | {"run_id": old.run_ids()[0], "protocol": old.protocol.to_json(), "seeds": [7]})
    assert main(["rerun", old.run_ids()[0], "--results", str(results)]) == 2
    assert "another version of its data" in capsys.readouterr().err


def test_a_run_of_ones_own_method_asks_for_its_file(results, run_id, tmp_path, capsys):
    store = Store(results)
    record = store.peek(run_id)
    cell = Cell(**record["cell"] | {"algorithm": "mine"})
    mine = cell.run_id(record["config_hash"])
    Store(tmp_path).write(cell, {k: v for k, v in record.items() if k not in ("schema", "cell")} | {"run_id": mine})
    for words in (["rerun", mine], ["watch", mine]):
        assert main([*words, "--results", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert "unknown algorithm 'mine'" in said and "--method-file FILE" in said and len(said.splitlines()) == 1
