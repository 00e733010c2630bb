"""What goes out is what was measured; what comes in replaces nothing."""

import dataclasses
import json
import os
import shutil
import subprocess
import tarfile

import pandas as pd
import pytest

from offmarl.experiments.cli import main
from offmarl.experiments.store.store import Cell, Store

CELL = Cell("smac/3m", "good", "embedded", "bc", "quick", "quick", 0)


def write(results, seed=0, returns=(1.0, 3.0), won=(False, True), quality="good", **over):
    cell = dataclasses.replace(CELL, seed=seed, quality=quality)
    evaluations = [
        {"step": step, "returns": [r + step for r in returns], "won": won and list(won), "lengths": [5, 6]}
        for step in (10, 20)
    ]
    record = {
        "run_id": cell.run_id("aaaa1111"),
        "status": "done",
        "evaluations": evaluations,
        "config": {},
        "protocol": {},
    }
    Store(results).write(cell, record | over, pd.DataFrame({"step": [10], "loss": [0.5]}), b"weights")
    return record["run_id"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_has_a_row_for_every_episode(tmp_path, kind):
    write(tmp_path / "r")
    write(tmp_path / "r", seed=1, won=None)
    out = tmp_path / f"x.{kind}"
    assert main(["export", "--format", kind, "--out", str(out), "--results", str(tmp_path / "r")]) == 0
    rows = pd.read_csv(out) if kind == "csv" else pd.read_parquet(out)
    assert len(rows) == 2 * 2 * 2
    row = rows.query("seed == 0 and step == 20 and episode == 1").iloc[0]
    assert (row["task"], row["return"], row["won"], row["length"]) == ("smac/3m", 23.0, True, 6)
    assert rows.query("seed == 1")["won"].isna().all()


def test_runs_of_other_code_are_named(tmp_path, capsys):
    write(tmp_path / "r")
    write(tmp_path / "r", seed=1, code_sums={"method": "0"})
    assert main(["export", "--out", str(tmp_path / "x.csv"), "--results", str(tmp_path / "r")]) == 0
    assert "Stale: the code of 1 of these runs has changed since" in capsys.readouterr().err


def test_marl_evals_nesting_ends_in_lists_of_numbers(tmp_path):
    """Environment, task, algorithm, seed, step: what marl-eval's own reader walks through."""
    for seed in (0, 1):
        write(tmp_path / "r", seed=seed)
    out = tmp_path / "x.json"
    assert main(["export", "--format", "marl-eval", "--out", str(out), "--results", str(tmp_path / "r")]) == 0
    runs = json.loads(out.read_text())["smac-embedded"]["3m-good"]["bc-quick"]
    assert list(runs) == ["seed_0", "seed_1"]
    assert list(runs["seed_0"]) == ["step_0", "step_1", "absolute_metrics"]
    assert runs["seed_0"]["step_1"] == {"step_count": 20, "return": [21.0, 23.0], "win_rate": [50.0]}
    assert runs["seed_0"]["absolute_metrics"] == {"return": [21.0, 23.0], "win_rate": [50.0]}


def test_a_cell_that_lost_a_seed_says_so_and_is_in_no_aggregate(tmp_path, capsys):
    """As in the tables: the seeds that are left flatter a method."""
    results, table, nested = tmp_path / "r", tmp_path / "x.csv", tmp_path / "x.json"
    write(results)
    write(results, seed=1, status="diverged", reason="|Q| is 1e+06")
    write(results, quality="medium")
    assert main(["export", "--out", str(table), "--results", str(results)]) == 0
    rows = pd.read_csv(table)
    assert set(rows["seed"]) == {0}
    assert rows.groupby("quality")["lost_seeds"].unique().map(list).to_dict() == {"good": [1], "medium": [0]}
    capsys.readouterr()
    assert main(["export", "--format", "marl-eval", "--out", str(nested), "--results", str(results)]) == 0
    assert list(json.loads(nested.read_text())["smac-embedded"]) == ["3m-medium"]
    assert "left out: 1 runs of cells that lost a seed" in capsys.readouterr().out


def test_an_export_of_nothing_or_to_nowhere_is_refused(tmp_path, capsys):
    (tmp_path / "r").mkdir()
    for words in (["--results", tmp_path / "r"], ["--results", tmp_path / "none"], ["--format", "xml"]):
        assert main(["export", "--out", str(tmp_path / "x"), *map(str, words)]) == 2
    write(tmp_path / "r")
    assert main(["export", "--out", "/dev/null/x", "--results", str(tmp_path / "r")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4 and not list(tmp_path.glob("*x*"))


def test_an_export_makes_its_folder_and_fills_a_pipe_that_stays_one(tmp_path):
    write(tmp_path / "r")
    os.mkfifo(pipe := tmp_path / "pipe")
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        for out in (tmp_path / "new" / "folder" / "e.csv", pipe):
            assert main(["export", "--out", str(out), "--results", str(tmp_path / "r")]) == 0
        assert reader.communicate()[0] == (tmp_path / "new/folder/e.csv").read_bytes() and pipe.is_fifo()


def merge(tmp_path, *sources):
    return main(["merge", *(str(tmp_path / source) for source in sources), "--results", str(tmp_path / "out")])


def test_stores_are_joined_whole_and_a_second_time_changes_nothing(tmp_path, capsys):
    runs = [write(tmp_path / "a"), write(tmp_path / "b", seed=1)]
    write(tmp_path / "b")  # the same cell with the same outcome
    assert merge(tmp_path, "a", "b") == 0
    store = Store(tmp_path / "out")
    assert store.run_ids() == sorted(runs)
    for run_id in runs:
        assert (store.runs / run_id / "checkpoint.pt").read_bytes() == b"weights"
        assert store.read(run_id)["status"] == "done"
    before = {path: path.stat().st_mtime_ns for path in store.runs.rglob("*")}
    assert merge(tmp_path, "a", "b") == 0
    assert {path: path.stat().st_mtime_ns for path in store.runs.rglob("*")} == before
    assert "0 runs taken, 3 were there already, 0 refused" in capsys.readouterr().out


def test_a_cell_with_two_outcomes_is_refused_and_the_rest_taken(tmp_path, capsys):
    run_id = write(tmp_path / "a")
    write(tmp_path / "b", returns=(9.0, 9.0))
    other = write(tmp_path / "b", seed=1)
    assert merge(tmp_path, "a", "b") == 1
    store = Store(tmp_path / "out")
    assert store.run_ids() == sorted([run_id, other])
    assert store.read(run_id)["evaluations"][0]["returns"] == [11.0, 13.0]  # the first one's
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refused")]
    assert len(err) == 1 and run_id in err[0] and "evaluations differ" in err[0]


def test_damaged_strange_and_linked_runs_are_not_taken(tmp_path, capsys):
    damaged = tmp_path / "a" / "runs" / write(tmp_path / "a")
    (damaged / "run.json").write_text((damaged / "run.json").read_text()[:-20])
    renamed = write(tmp_path / "b")
    shutil.move(tmp_path / "b" / "runs" / renamed, tmp_path / "b" / "runs" / "another")
    linked = tmp_path / "c" / "runs" / write(tmp_path / "c", seed=2)
    (linked / "passwd").symlink_to("/etc/passwd")
    assert merge(tmp_path, "a", "b", "c") == 1
    assert Store(tmp_path / "out").run_ids() == []
    err = capsys.readouterr().err
    assert "is damaged" in err and f"holds the run {renamed}" in err and "symbolic links" in err


@pytest.mark.parametrize("file", ["run.json", "curves.parquet", "checkpoint.pt"])
def test_a_run_of_which_any_file_is_damaged_is_not_taken_and_gives_way_to_a_whole_one(tmp_path, file, capsys):
    run_id = write(tmp_path / "a")
    write(tmp_path / "b")
    for results in ("a", "out"):
        write(tmp_path / results)
        damaged = tmp_path / results / "runs" / run_id / file
        damaged.write_bytes(damaged.read_bytes()[:-1])
    assert merge(tmp_path, "a", "b") == 1
    assert "1 runs taken, 0 were there already, 1 refused" in capsys.readouterr().out
    assert Store(tmp_path / "out").status(run_id) == "done"
    assert [path.name for path in (tmp_path / "out" / "damaged").iterdir()] == [f"{run_id}.1"]


def test_a_store_is_not_merged_into_itself(tmp_path, capsys):
    write(tmp_path / "out")
    assert merge(tmp_path, "out") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_records_travel_in_one_small_file_and_make_the_same_table(tmp_path, capsys):
    """What one machine ran counts as done on the next, without its weights; the same runs give the same file."""
    results, joined = tmp_path / "r", tmp_path / "joined"
    names = [write(results, seed=seed) for seed in (0, 1)]
    names.append(write(results, seed=2, status="diverged", reason="|Q| is 1e+06"))
    for out in ("a.tar.xz", "b.tar.xz"):
        assert main(["export", "--format", "records", "--out", str(tmp_path / out), "--results", str(results)]) == 0
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    assert main(["merge", str(tmp_path / "a.tar.xz"), "--results", str(joined)]) == 0
    assert "3 runs taken" in capsys.readouterr().out
    assert [Store(joined).status(name) for name in names] == ["done", "done", "diverged"]
    assert Store(joined).read(names[0]) == Store(results).read(names[0])
    assert [path.name for path in sorted((joined / "runs" / names[0]).iterdir())] == ["SHA256SUMS", "run.json"]
    assert main(["merge", str(tmp_path / "a.tar.xz"), "--results", str(joined)]) == 0
    assert "3 were there already" in capsys.readouterr().out


def test_records_of_a_profile_are_those_of_it_alone(tmp_path, capsys):
    write(tmp_path / "r")
    out = tmp_path / "x.tar.xz"
    words = ["export", "--format", "records", "--out", str(out), "--results", str(tmp_path / "r"), "--profile"]
    assert main([*words, "paper"]) == 2 and not out.exists()
    assert "holds no finished run of paper" in capsys.readouterr().err
    assert main([*words, "quick"]) == 0 and main([*words, "quikc"]) == 2


@pytest.mark.parametrize("fault", ["no archive", "cut off", "another file in it", "out of its folder", "changed"])
def test_a_file_of_records_that_is_none_or_torn_changes_nothing(tmp_path, capsys, fault):
    name, out = write(tmp_path / "r"), tmp_path / "x.tar.xz"
    assert main(["export", "--format", "records", "--out", str(out), "--results", str(tmp_path / "r")]) == 0
    inside = {"another file in it": f"{name}/evil.sh", "out of its folder": f"../{name}/run.json"}
    if fault == "no archive":
        out.write_text("hello")
    elif fault == "cut off":
        out.write_bytes(out.read_bytes()[:-60])
    else:
        with tarfile.open(out, "w:xz") as archive:
            archive.add(tmp_path / "r" / "runs" / name / "SHA256SUMS", f"{name}/SHA256SUMS")
            (tmp_path / "run.json").write_text("{}")
            archive.add(tmp_path / "run.json", inside.get(fault, f"{name}/run.json"))
    code = main(["merge", str(out), "--results", str(tmp_path / "joined")])
    err = capsys.readouterr().err
    assert (code, "damaged" in err) == ((1 if fault == "changed" else 2), True)
    assert not list((tmp_path / "joined").glob("runs/*"))
