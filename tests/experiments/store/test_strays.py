"""What does not belong into a store: no command ends in a traceback over it, counts a run twice, or is silent."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest

from offmarl.experiments.cli import main
from offmarl.experiments.store.store import Cell, Store
from offmarl.reports.records.reader import Records

CELL = Cell("smac/3m", "good", "embedded", "bc", "quick", "quick", 0)


def write(results, seed=0, settings="aaaa1111", status="done", finished="2026-01-01", value=1.0, **cell):
    """Store a run; its folder."""
    cell = dataclasses.replace(CELL, seed=seed, **cell)
    record = {
        "run_id": cell.run_id(settings),
        "status": status,
        "evaluations": [{"step": 10, "returns": [value, value], "won": None, "lengths": [5, 6]}],
        "config": {},
        "config_hash": settings,
        "protocol": {"steps": 10},
        "finished": finished,
    }
    return Store(results).write(cell, record, pd.DataFrame({"step": [10], "loss": [0.5]}), b"weights")


def command(*words):
    return main([*map(str, words)])


def export(results, kind="csv"):
    out = results / f"out.{kind}"
    assert command("export", "--format", kind, "--out", out, "--results", results) == 0
    return json.loads(out.read_text()) if kind == "marl-eval" else pd.read_csv(out)


# Copies and renamed folders.


@pytest.mark.parametrize("name", ["{} copy", "{}.bak", "{} (1)", "Copy of {}", "{}~"])
def test_a_copied_run_doubles_nothing_and_is_named(tmp_path, name, capsys):
    folder = write(tmp_path)
    write(tmp_path, seed=1)
    copy = shutil.copytree(folder, folder.with_name(name.format(folder.name)))
    assert len(export(tmp_path)) == 2 * 2
    assert f"left out: {copy}: holds the run {folder.name}" in capsys.readouterr().err
    records, notes = Records.read(tmp_path).select()
    assert [record["cell"]["seed"] for record in records] == [0, 1]
    assert any("1 folders hold a run of another name" in note and copy.name in note for note in notes)
    assert command("status", "--results", tmp_path) == 0
    said = capsys.readouterr().out
    assert f"left out: {copy}: holds the run" in said and "bc                    2" in said
    assert command("verify", "--results", tmp_path) == 1
    assert "a copy, or renamed" in capsys.readouterr().out


def test_a_run_under_the_name_of_another_is_none(tmp_path):
    """The other cell is pending; what lies in its place is set aside."""
    folder = write(tmp_path)
    other = folder.with_name(folder.name.replace(".s0.", ".s1."))
    shutil.copytree(folder, other)
    assert Store(tmp_path).status(folder.name) == "done"
    assert Store(tmp_path).status(other.name) == "pending"
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == [f"{other.name}.1"]


# Two settings of a cell, and two profiles.


@pytest.mark.parametrize("kind", ["csv", "marl-eval"])
def test_an_export_takes_one_set_of_settings_and_says_which(tmp_path, kind, capsys):
    for seed in (0, 1):
        write(tmp_path, seed, "aaaa1111", value=1.0)
        write(tmp_path, seed, "bbbb2222", value=2.0, finished="2026-02-01")
    write(tmp_path, 2, "aaaa1111", value=3.0)
    found = export(tmp_path, kind)
    out, err = capsys.readouterr()
    assert "(2 runs)" in out and "runs with other settings are left out on smac/3m good (aaaa1111)" in err
    if kind == "csv":
        assert set(found["return"]) == {2.0} and len(found) == 4
    else:
        runs = found["smac-embedded"]["3m-good"]["bc-quick"]
        assert {name: run["step_0"]["return"] for name, run in runs.items()} == dict.fromkeys(
            ["seed_0", "seed_1"], [2.0, 2.0]
        )


def test_an_export_keeps_profiles_apart(tmp_path):
    write(tmp_path, value=1.0)
    write(tmp_path, value=2.0, profile="smoke")
    found = export(tmp_path, "marl-eval")["smac-embedded"]["3m-good"]
    returns = {name: runs["seed_0"]["step_0"]["return"][0] for name, runs in found.items()}
    assert returns == {"bc-quick-quick": 1.0, "bc-quick-smoke": 2.0}


def test_an_export_names_the_runs_without_a_result(tmp_path, capsys):
    write(tmp_path)
    lost = [write(tmp_path, 1, status="diverged"), write(tmp_path, 2, status="failed")]
    export(tmp_path)
    said = capsys.readouterr().err
    assert f"left out: {lost[0]}: diverged" in said and f"left out: {lost[1]}: failed" in said


# Stray files and folders.


def text(content):
    return lambda path: path.write_text(content)


def folder(path):
    path.mkdir()


STRAYS = {
    "runs/.DS_Store": text("x"),
    "runs/notes.txt": text("x"),
    "runs/backup.zip": text("x"),
    "runs/empty": folder,
    "runs/mine/run.json": text("[1]"),
    "runs/mine2/run.json": folder,
    "runs/RUN/SHA256SUMS~": text("x"),
    "runs/RUN/notes": folder,
    "grids/notes.json": text("mine"),
    "grids/list.json": text("[1, 2]"),
    "grids/bytes.json": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "grids/empty.json": text(""),
    "grids/other.json": text('{"jobs": [{"run_ids": [1]}]}'),
    "grids/half.json": text('{"jobs": [{"run_ids": ["a"], "lease": "l", "algorithm": "bc", "steps": "many"}]}'),
    "grids/folder.json": folder,
    "work/notes.txt": text("x"),
    "work/mine.lock": text("not a lock"),
    "work/list.lock": text("[1]"),
    "work/types.lock": text('{"pid": "x", "host": 7, "seeds": 3, "step": "a"}'),
    "work/folder.lock": folder,
    "work/a+b.pt": text("x"),
    "damaged/notes.txt": text("x"),
    "measurements/notes.txt": text("x"),
    "measurements/inference/notes.json": text("mine"),
    "reports/smac/table.csv~": text("x"),
    "reports/notes.txt": text("x"),
    "experiments/notes.txt": text("x"),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_file_ends_no_command(tmp_path, stray, capsys):
    results = tmp_path / "results"
    run = write(results)
    path = results / stray.replace("RUN", run.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    STRAYS[stray](path)
    assert command("status", "--results", results) == 0
    said = capsys.readouterr().out
    assert "bc                    1" in said
    unreadable = stray.startswith("grids/") or stray in ("runs/empty", "runs/mine/run.json", "runs/mine2/run.json")
    assert (str(results / "/".join(stray.split("/")[:2])) in said) == unreadable
    assert command("status", "--json", "--results", results) == 0
    assert len(json.loads(capsys.readouterr().out)["left_out"]) == unreadable
    assert len(export(results)) == 2
    assert command("report", "--suite", "smac", "--results", results) == 0
    assert command("merge", results, "--results", tmp_path / "out") in (0, 1)
    assert Store(tmp_path / "out").run_ids() == [run.name]
    assert command("verify", "--results", results) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err
