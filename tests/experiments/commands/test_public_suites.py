"""Suites on public data."""

import json

from miniature_data import hopper

from offmarl.experiments.cli import main

SUITE = ["run", "--suite", "continuous", "--source", "omiga", "--profile", "smoke", "--algorithms", "bc", "--jobs", "1"]


TINY = ["--seeds", "0", "--set", "all.hidden=[16]", "--set", "all.batch_size=8"]


RUBBISH = [
    ("checkpoint.pt", lambda b: b[:-1]),
    ("run.json", lambda b: b + b" "),
    ("checkpoint.pt", lambda b: b[: len(b) // 2]),
    ("checkpoint.pt", lambda b: b""),
    ("run.json", lambda b: b'{"cell": 7}'),
    ("run.json", lambda b: b.replace(b'"config": {', b'"config": {"hidden": "x", "strange": 1, ')),
]


def test_a_suite_runs_on_the_public_data_that_are_there_and_says_what_is_not(public_data, tmp_path, capsys):
    hopper(public_data("omiga", "mamujoco/3hopper", "expert"))
    results = ["--results", str(tmp_path / "results")]
    assert main([*SUITE, *TINY, *results]) == 0
    said = capsys.readouterr()
    assert "not available: mamujoco/3hopper (medium, medium-replay, medium-expert): no data at" in said.err
    assert "offmarl data get --source omiga --tasks mamujoco/3hopper" in said.err
    assert "not available: mpe/spread" in said.err and "--source embedded or omar" in said.err
    (record,) = [json.loads(file.read_text()) for file in tmp_path.glob("results/runs/*/run.json")]
    assert record["cell"]["source"] == "omiga"
    assert record["engine"]["physics"] == "legacy"
    assert record["dataset"]["files"] and record["dataset"]["ends"] == "delimiter"
    table = (tmp_path / "results/reports/continuous-omiga/table.csv").read_text()
    assert "not available" in table
    played = f"{tmp_path}/results/runs/{record['run_id']}"
    out = str(tmp_path / "played.npz")
    again = ["data", "record", "--tasks", "mamujoco/3hopper", "--policy", played, "--episodes", "2", "--out", out]
    assert main(again) == 0
    assert main([*again[:3], "mpe/spread", *again[4:]]) == 2
    assert "was trained on mamujoco/3hopper" in capsys.readouterr().err
    folder = tmp_path / "results" / "runs" / record["run_id"]
    for n, (file, content) in enumerate(RUBBISH):  # the first two with sums that tell, the others without
        before = (folder / file).read_bytes()
        (folder / file).write_bytes(content(before))
        if n == 2:
            (folder / "SHA256SUMS").unlink()
        assert main(again) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--policy {folder}: is not the folder of a finished run" in line
        (folder / file).write_bytes(before)
    assert main(again) == 0


def test_nothing_at_all_to_run_on_is_an_exit_code_of_its_own(public_data, tmp_path, capsys):
    assert main([*SUITE, "--results", str(tmp_path / "results")]) == 3
    said = capsys.readouterr().err
    assert "nothing to run" in said and "offmarl data get --source omiga" in said
    assert main(["run", "--suite", "smac", "--source", "og_marl", "--results", str(tmp_path / "results")]) == 3
    assert "oxwhirl/smac.git" in capsys.readouterr().err


def test_damaged_public_data_fail_their_cells_with_the_reason_and_no_others(public_data, tmp_path, capsys):
    hopper(broken := public_data("omiga", "mamujoco/3hopper", "expert"))
    hopper(public_data("omiga", "mamujoco/3hopper", "medium"), seed=1)
    broken.found().write_bytes(broken.found().read_bytes()[:-200])
    assert main([*SUITE, *TINY, "--results", str(tmp_path / "results")]) == 1
    records = [json.loads(file.read_text()) for file in tmp_path.glob("results/runs/*/run.json")]
    by_quality = {record["cell"]["quality"]: record for record in records}
    assert by_quality["medium"]["status"] == "done"
    assert "is not a complete HDF5 file" in by_quality["expert"]["reason"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_dry_run_on_damaged_data_still_plans(public_data, tmp_path, capsys):
    hopper(broken := public_data("omiga", "mamujoco/3hopper", "expert"))
    broken.found().write_bytes(broken.found().read_bytes()[:-200])
    plan = [*SUITE, *TINY, "--dry-run", "--results", str(tmp_path / "results")]
    assert main(plan) == 0
    said = capsys.readouterr()
    assert "1 cells: 0 done, 1 pending" in said.out and "not available: mamujoco/3hopper" in said.err
