"""The command line: help, refusals in one line, plans that write nothing."""

import signal
import subprocess
import sys

import pytest

from offmarl.experiments.cli import COMMANDS, main
from offmarl.experiments.commands.options import parse_seeds
from offmarl.experiments.errors import UserError

RUN = ["run", "--suite", "smac"]

# What is wrong, the words after `offmarl`, and what the message must contain.
BAD = {
    "suite": (["run", "--suite", "smaq"], "'smac'"),
    "algorithm": ([*RUN, "--algorithms", "mac_flo"], "'mac_flow'"),
    "one algorithm of two": ([*RUN, "--algorithms", "bc,flowbc"], "'flow_bc'"),
    "task": ([*RUN, "--tasks", "smac/3mm"], "'smac/3m'"),
    "task without its family": ([*RUN, "--tasks", "5m_vs_6m"], "'smac/5m_vs_6m'"),
    "quality": ([*RUN, "--tasks", "smac/3m:goood"], "'good'"),
    "quality of another task": ([*RUN, "--tasks", "smacv2/zerg_5_vs_5:good"], "replay"),
    "no quality after the colon": ([*RUN, "--tasks", "smac/3m:"], "good"),
    "profile": ([*RUN, "--profile", "quik"], "'quick'"),
    "source": ([*RUN, "--source", "embeded"], "'embedded'"),
    "variant": ([*RUN, "--variant", "relased"], "'released'"),
    "steps": ([*RUN, "--steps", "0"], "--steps 0: write a number of updates of at least 1"),
    "setting": ([*RUN, "--set", "mac_flow.alhpa=1"], "'alpha'"),
    "setting of all": ([*RUN, "--set", "all.batchsize=1"], "'batch_size'"),
    "method of a setting": ([*RUN, "--set", "mac_flo.alpha=1"], "'mac_flow'"),
    "type of a setting": ([*RUN, "--set", "bc.batch_size=many"], "bc.batch_size=many: write a value of type int"),
    "setting out of its range": ([*RUN, "--set", "bc.discount=1.5"], "bc.discount=1.5: write a number from 0 to 1"),
    "setting below its range": (
        [*RUN, "--set", "all.learning_rate=-1"],
        "learning_rate=-1: write a number of at least 0",
    ),
    "setting that is no number": ([*RUN, "--set", "mac_flow.alpha=.nan"], "alpha=nan: write a value of type float"),
    "type of a list": ([*RUN, "--set", "bc.hidden=16"], "[256,256]"),
    "choice": ([*RUN, "--set", "bc.act_by=argmx"], "'argmax'"),
    "setting without a value": ([*RUN, "--set", "bc.batch_size"], "METHOD.SETTING=VALUE"),
    "setting without a method": ([*RUN, "--set", "batch_size=3"], "METHOD.SETTING=VALUE"),
    "unreadable value": ([*RUN, "--set", "bc.hidden=[16"], "cannot be read"),
    "falling seeds": ([*RUN, "--seeds", "5-2"], "write 0-5 or 0,2,4"),
    "seeds of letters": ([*RUN, "--seeds", "a"], "write 0-5 or 0,2,4"),
    "seeds with a gap": ([*RUN, "--seeds", "1,,2"], "write 0-5 or 0,2,4"),
    "no seeds": ([*RUN, "--seeds", ""], "write 0-5 or 0,2,4"),
    "device": ([*RUN, "--device", "gpu"], "cpu, cuda or auto"),
    "matmul": ([*RUN, "--matmul", "blas"], "mkl, onednn or auto"),
    "absent device": ([*RUN, "--device", "cuda:99"], "cuda:99"),
    "no jobs": ([*RUN, "--jobs", "0"], "--jobs"),
    "TF32 and determinism": ([*RUN, "--deterministic", "--tf32"], "--tf32"),
    "no threads": ([*RUN, "--threads", "0"], "--threads"),
    "results below a file": ([*RUN, "--results", "/dev/null/results"], "/dev/null/results"),
    "results with too long a name": (["status", "--results", "x" * 300], "xxx: File name too long; write another name"),
    "source of a merge with too long a name": (["merge", "x" * 300], "File name too long"),
    "results in another encoding": ([*RUN, "--results", "caf\udce9"], "the name is not UTF-8"),
    "suite of a report": (["report", "--suite", "smacs"], "'smac'"),
    "profile of a report": (["report", "--suite", "smac", "--profile", "papr"], "'paper'"),
    "results of a report": (["report", "--suite", "smac", "--results", "/nowhere"], "/nowhere"),
    "results of a status": (["status", "--results", "/nowhere"], "/nowhere"),
    "results of a rerun": (["rerun", "a.run", "--results", "/nowhere"], "a.run"),
    "form of a dataset": (["data", "card", "smac-3m-good"], "smac/3m:good"),
    "dataset to compare": (["data", "compare", "smac/3m:good", "smac/3m"], "smac/3m: must be task:quality"),
    "dataset": (["data", "card", "smac/3m:god"], "'good'"),
    "derived from nothing": (["data", "derive", "x", "--from", "smac/3m:god"], "'good'"),
    "weights": (["data", "derive", "x", "--from", "smac/3m:good:0.5,smac/3m:poor:0.6"], "0.5 + 0.6"),
    "dataset without a quality": (["data", "card", "smac/3m:"], "good"),
    "datasets to record": (["data", "record", "--tasks", "smac/9m"], "'smac/8m'"),
    "scripted particles": (["data", "train-behaviour", "mpe/tag"], "scripted"),
    "task of a file": (["data", "check", "x.npz", "--task", "mpe/spred"], "'mpe/spread'"),
    "absent file": (["data", "check", "nothing.npz", "--task", "mpe/spread"], "nothing.npz"),
    "source of a list": (["data", "list", "--source", "omigga"], "'omiga'"),
    "source of a download": (["data", "get", "--source", "embedded"], "og_marl"),
    "task of a download": (["data", "get", "--source", "omiga", "--tasks", "smac/3m"], "'smac/2c_vs_64zg'"),
    "downloads side by side": (["data", "get", "--source", "omiga", "--jobs", "0"], "--jobs"),
    "source of a check": (["data", "check", "--source", "omra"], "'omar'"),
    "file without a task": (["data", "check", "mine.npz"], "--task mamujoco/3hopper"),
    "source of a run": ([*RUN, "--source", "ogmarl"], "'og_marl'"),
    "policy on two tasks": (
        ["data", "record", "--policy", "random", "--tasks", "smac/3m,smac/8m"],
        "one task",
    ),
    "policy without a file": (["data", "record", "--policy", "random", "--tasks", "smac/3m"], "--out mine.npz"),
    "no episodes of a policy": (
        ["data", "record", "--policy", "random", "--tasks", "smac/3m", "--out", "x.npz", "--episodes", "0"],
        "--episodes 0",
    ),
    "file to record without a policy": (["data", "record", "--tasks", "smac/3m", "--out", "x.npz"], "go with --policy"),
    "task of no files": (["data", "check", "--task", "smac/3m"], "name these, too"),
    "merge of nothing": (["merge", "."], "holds no runs"),
    "file imported twice": (["data", "import", "x", "--task", "smac/3m", "a.npz", "./a.npz"], "is named twice"),
    "setting of a method that does not run": (
        [*RUN, "--algorithms", "bc", "--set", "mac_flow.alpha=3"],
        "--set mac_flow.alpha: this method is not among those that run",
    ),
    "policy that is no run": (
        ["data", "record", "--policy", "nowhere", "--tasks", "smac/3m", "--out", "x.npz"],
        "folder of a finished run",
    ),
    "benchmark of a task": (["bench", "envs", "--tasks", "mpe/spred"], "'mpe/spread'"),
    "benchmark of no time": (["bench", "envs", "--seconds", "0"], "--seconds 0"),
    "no data": (["run", "--suite", "smac", "--data-fraction", "0"], "--data-fraction 0: write a share"),
    "more than the data": (["run", "--suite", "smac", "--data-fraction", "2"], "--data-fraction 2: write a share"),
    "suite misspelt": (["run", "--suite", "continous"], "'continuous'"),
    "task of all suites": (["run", "--suite", "all", "--tasks", "mpe/spred"], "'mpe/spread'"),
    "behaviours that are scripted": (["data", "train-behaviour", "smac/2c_vs_64zg"], "scripted"),
}


@pytest.mark.parametrize("what", BAD)
def test_wrong_input_is_refused_in_one_line_that_helps(what, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments, expected = BAD[what]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("offmarl: ")
    assert expected in said.err
    assert list(tmp_path.rglob("*")) == []  # and nothing was begun


@pytest.mark.parametrize("words", [*COMMANDS, "data list", "data record", "bench envs", "bench train"])
def test_the_help_of_every_command_shows_its_own_examples(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    assert 1 <= len(shown) <= 4
    assert all(line.startswith(f"  offmarl {words}") for line in shown)


def test_help_imports_no_command_and_nothing_heavy():
    code = "import sys; from offmarl.experiments.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += (
        "print([n for n in sys.modules if n.startswith(('offmarl.experiments.', 'torch', 'numpy', 'pandas', 'yaml'))])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "['offmarl.experiments.environment', 'offmarl.experiments.cli']"


def test_a_command_imports_its_own_module_alone():
    code = "import sys; from offmarl.experiments.cli import parser; parser(['status'])\n"
    code += "print([n for n in sys.modules if n.startswith('offmarl.experiments.commands.')])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "['offmarl.experiments.commands.options', 'offmarl.experiments.commands.status']"


def test_help_of_run_names_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = capsys.readouterr().out
    for option in [
        "suite",
        "profile",
        "source",
        "algorithms",
        "tasks",
        "seeds",
        "variant",
        "steps",
        "set",
        "jobs",
        "threads",
        "device",
        "matmul",
        "deterministic",
        "results",
        "dry-run",
    ]:
        assert f"--{option}" in shown


def test_version_is_the_packages(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"offmarl {version('offmarl')}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("3", [3]), ("0-2", [0, 1, 2]), ("4,1", [4, 1]), ("0-1,5, 7-8", [0, 1, 5, 7, 8]), ("2,2-3", [2, 3])],
)
def test_seeds_are_numbers_and_rising_ranges(text, expected):
    assert parse_seeds(text) == expected


@pytest.mark.parametrize("text", ["5-2", "a", "", "1,", "1-", "-1", "1.5", "0-3-5", "1 2"])
def test_other_seeds_are_refused(text):
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_a_dry_run_counts_cells_and_trains_nothing(small, capsys, tmp_path):
    options = ["--profile", "smoke", "--tasks", "smac/3m:good", "--algorithms", "bc,macql", "--results", str(tmp_path)]
    assert main([*RUN, *options, "--set", "all.hidden=[16]", "--seeds", "0-2", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "6 cells: 0 done, 6 pending" in shown
    assert "\ntime: " in shown and "evaluation" in shown and "disk: at most" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert rows["bc"][:3] == rows["macql"][:3] == ["paper", "1", "3"]
    assert rows["method"] == ["variant", "jobs", "cells", "training", "evaluation"]
    assert rows["bc"][3:] == ["less", "than", "a", "minute"] * 2
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_knows_continuous_actions_too(capsys, tmp_path):
    options = ["--tasks", "mpe/spread:random", "--set", "all.hidden=[8]", "--results", str(tmp_path), "--dry-run"]
    assert main(["run", "--suite", "continuous", *options]) == 0
    shown = capsys.readouterr().out
    assert "\ntime: " in shown and "evaluation" in shown
    assert {line.split()[0] for line in shown.splitlines()} > {"bc", "mac_flow"}


def test_a_dry_run_knows_what_is_done(small, capsys, tmp_path):
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.store.store import Store

    options = ["--profile", "smoke", "--tasks", "smac/3m:good", "--algorithms", "bc", "--results", str(tmp_path)]
    (job,) = grid.jobs(grid.Request("smac", "smoke", algorithms=["bc"], tasks=["smac/3m:good"]))
    for cell, run_id in zip(job.cells(), job.run_ids()):
        Store(tmp_path).write(cell, {"run_id": run_id, "status": "done"})
    assert main([*RUN, *options, "--dry-run"]) == 0
    assert "2 cells: 2 done, 0 pending" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_by_hand_is_an_exit_code_of_its_own_and_the_same_command_goes_on(
    small, capsys, tmp_path, monkeypatch, complete, number, code
):
    from offmarl.algorithms import registry

    class Stopped(registry()["bc"]):
        updates = 0

        def losses(self, batch):
            Stopped.updates += 1
            if Stopped.updates == 40:
                signal.raise_signal(number)
            return super().losses(batch)

    monkeypatch.setitem(registry(), "bc", Stopped)
    options = ["--profile", "smoke", "--tasks", "smac/3m:good", "--algorithms", "bc", "--set", "all.hidden=[16]"]
    command = [*RUN, *options, "--jobs", "1", "--results", str(tmp_path)]
    assert main(command) == code
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "offmarl: stopped; run the same command again to continue"
    assert "Traceback" not in said.err
    assert len(list((tmp_path / "work").glob("*.pt"))) == 1
    assert main(command) == 0
    assert Stopped.updates == 150  # the update in which it came was finished and saved
    assert {record["status"] for record in complete(tmp_path).values()} == {"done"}


def test_nothing_to_run_is_an_exit_code_of_its_own(capsys, tmp_path):
    assert main([*RUN, "--algorithms", "", "--results", str(tmp_path)]) == 3
    assert "nothing to run" in capsys.readouterr().err


def test_an_empty_store_has_no_runs_to_report(capsys, tmp_path):
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no runs yet\n"


def test_the_benchmark_of_simulators_prints_both_paces(capsys):
    assert main(["bench", "envs", "--tasks", "mpe/tag", "--seconds", "0.05"]) == 0
    head, row, foot = capsys.readouterr().out.splitlines()
    assert "random steps/s" in head and "recorded steps/s" in head and "wall-clock" in foot
    *_, random, recorded = row.split()
    assert int(random.replace(",", "")) > 0 and int(recorded.replace(",", "")) > 0
