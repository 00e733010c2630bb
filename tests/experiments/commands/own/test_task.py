"""A task of your own: one file, recorded, trained, reported, checked and repeated by the commands that a user types."""

import json
import os
import re
import subprocess
import sys
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from trap import FAULTS

from offmarl.benchmarks import own, source
from offmarl.experiments.cli import main

pytestmark = pytest.mark.usefixtures("no_leftovers")
EXAMPLE = resources.files("offmarl.benchmarks.own").joinpath("example.py").read_text()
TASK = EXAMPLE.replace("FAMILY/template", "lights/two").replace("TITLE", "Two lights").replace("template-", "")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file of a task, whose data are recorded, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(TASK)
    assert (
        main(["data", "record", "--task", "two.py", "--policy", "random", "--episodes", "6", "--out", "random.npz"])
        == 0
    )
    return tmp_path / "two.py"


def edit(file, *pairs):
    """Change the file, as if a new process came to it."""
    for old, new in pairs:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    for cached in (source._tree, source._form):
        cached.cache_clear()


SMALL = "run --task two.py --profile smoke --algorithms bc,macql --seeds 0 --matmul mkl --set all.hidden=[8] --jobs"


def run(*words):
    return main([*SMALL.split(), "1", *words])


def records(tmp_path):
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("results/runs/*/run.json"))]
    return {record["run_id"]: record for record in found}


def test_a_task_is_trained_and_reported_without_a_word_of_a_paper(file, tmp_path, capsys):
    assert run() == 0
    out = capsys.readouterr().out
    assert "Two lights" in out and "paper)" not in out and "Paper:" not in out and "agreement" not in out
    table = pd.read_csv(tmp_path / "results/reports/lights-own/table.csv")
    done = table.query("status == 'done' and task == 'lights/two'")
    assert sorted(done["algorithm"]) == ["bc", "macql"] and done["published_mean"].isna().all()
    assert table.query("algorithm == 'matd3bc'").empty  # acts in continuous spaces only
    (first, second) = records(tmp_path).values()
    assert first["dataset"]["task"]["code"] == own.registry()["lights/two"].code
    assert first["dataset"]["random_return_mean"] == pytest.approx(2.5, abs=0.8)  # ten steps, paid every fourth
    assert table["random_mean"].tolist() == [first["dataset"]["random_return_mean"]] * len(table)
    assert re.search(r"dataset +data mean +random +BC", out)
    assert first["dataset"]["task"]["roster"]["reward"] == "mean" and "gymnasium" in first["engine"]
    assert first["evaluations"][-1]["lengths"] == [10] * 32 and first["protocol"]["timeout_bootstrap"]


def test_agents_may_bear_the_names_of_facts_of_ours(file, tmp_path):
    edit(file, ('["left", "right"]', '["prey", "clock"]  # longer, or Python would run the file that it has compiled'))
    assert run() == 0
    (record, _) = records(tmp_path).values()
    roster = record["dataset"]["task"]["roster"]
    assert (roster["clock"], list(roster["agents"])) == ("limit", ["prey", "clock"]) and "prey" not in record["engine"]


def test_the_other_commands_know_a_task_of_a_file(file, tmp_path, capsys):
    assert run() == 0
    run_id = next(iter(records(tmp_path)))
    for words in ("report", "status", "verify", f"rerun {run_id}", "data check", "data card lights/two:random"):
        assert main([*words.split(), "--task", "two.py"]) == 0, words
    out = capsys.readouterr().out
    assert "all sound" in out and "unavailable here" not in out and out.count("the same bit for bit") == 3
    assert main(["bench", "envs", "--task", "two.py", "--seconds", "0.01"]) == 0
    assert re.search(r"lights/two +Two lights +8 ", capsys.readouterr().out)
    assert main([*["report", "--suite", "all", "--site", "site", "--task", "two.py"]]) == 0
    assert "Two lights" in (tmp_path / "site/index.html").read_text()
    policy = ["--policy", str(tmp_path / "results/runs" / run_id), "--out", "played.npz", "--episodes", "3"]
    assert main(["data", "record", "--task", "two.py", *policy]) == 0
    assert main(["data", "check", "played.npz", "--task", "two.py"]) == 0


@pytest.mark.parametrize(
    ("pair", "again"),
    [
        (("paid = float(", "paid = 2 * float("), True),
        (("limit = 10", "limit = 11"), True),
        (('reward = "mean"', 'reward = "sum"'), True),
        (("# in tables", "# in every table"), False),
        (("What an agent sees.", "What one sees."), False),
    ],
)
def test_what_may_change_a_result_gives_the_run_another_name(file, tmp_path, pair, again, capsys):
    assert run("--algorithms", "bc") == 0
    before = set(records(tmp_path))
    edit(file, pair)
    assert run("--algorithms", "bc") == 0
    assert (set(records(tmp_path)) != before) == again
    capsys.readouterr()
    assert main(["verify", "--task", "two.py"]) == 0
    assert ("unavailable here, so not compared" in capsys.readouterr().out) == again


def test_two_workers_give_what_one_gives(file, tmp_path):
    assert run() == 0
    alone = records(tmp_path)
    (tmp_path / "results").rename(tmp_path / "alone")
    command = [sys.executable, "-m", "offmarl.experiments.cli", *SMALL.split(), "2"]
    subprocess.run(command, check=True, capture_output=True)
    together = records(tmp_path)
    assert together.keys() == alone.keys()
    for run_id, record in together.items():
        assert record["evaluations"] == alone[run_id]["evaluations"]


def test_other_data_are_other_runs_and_missing_ones_are_told(file, tmp_path, capsys):
    assert run("--algorithms", "bc") == 0
    arrays = dict(np.load("random.npz"))
    np.savez("random.npz", **arrays | {"rewards": arrays["rewards"] + 1})
    assert run("--algorithms", "bc") == 0 and len(records(tmp_path)) == 2
    os.remove("random.npz")
    assert run() == 3
    assert "offmarl data record --task" in capsys.readouterr().err


def illegal(arrays):
    arrays["legal"][arrays["rows"][7], 1, arrays["actions"][7, 1]] = False


@pytest.mark.parametrize(
    ("spoil", "limit", "reason"),
    [
        (illegal, 10, r"episode 0, step 7, agent 1: action \d is not legal \(1 such"),
        (lambda arrays: None, 9, "episode 0 has 10 steps, but the task's limit is 9"),
        (lambda arrays: arrays.pop("rewards"), 10, r"fields missing: \['rewards'\]"),
    ],
)
def test_data_that_do_not_fit_the_task_are_refused(file, capsys, spoil, limit, reason):
    arrays = dict(np.load("random.npz"))
    spoil(arrays)
    np.savez("random.npz", **arrays)
    edit(file, ("limit = 10", f"limit = {limit}"))
    assert main(["data", "check", "--task", "two.py", "lights/two"]) == 1
    assert re.search(f"! .*random.npz: {reason}", capsys.readouterr().out)


def test_ends_at_the_limit_are_time_outs_unless_the_clock_is_the_environments(file, capsys):
    arrays = dict(np.load("random.npz"))
    np.savez("random.npz", **arrays | {"done": arrays["timeout"], "timeout": arrays["done"]})
    assert main([*["data", "check", "--task", "two.py", "lights/two"]]) == 0
    assert "6 end at the time limit" in capsys.readouterr().out
    edit(file, ("limit = 10", 'clock = "env"\n    limit = 10'))
    assert main([*["data", "check", "--task", "two.py", "lights/two"]]) == 0
    assert "0 end at the time limit" in capsys.readouterr().out


def test_a_script_plays_and_slips(file, tmp_path, capsys):
    (tmp_path / "script.py").write_text("def act(view, rng):\n    return view.obs.argmax(-1)\n")
    words = "data record --task two.py --policy script.py --episodes 4 --out good.npz"
    assert main(words.split()) == 0 and "return_mean 10.0" in capsys.readouterr().out
    assert main([*words.split(), "--epsilon", "1"]) == 0 and "return_mean 10.0" not in capsys.readouterr().out
    (tmp_path / "script.py").write_text("x = 1")
    assert main(words.split()) == 2 and "has no function act(view, rng)" in capsys.readouterr().err


FACTS = 'name = "lights/two"\n    title = "T"\n    limit = 3\n    make = lambda self: 1\n    '


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def f(:", "cannot be imported (SyntaxError"),
        ("x = 1", "has no subclass of OwnTask"),
        ("raise SystemExit(5)", "SystemExit"),
        (None, "is not a Python file"),
        (f"class A(OwnTask):\n    {FACTS}\n\nclass B(OwnTask):\n    {FACTS}", "the name 'lights/two' is taken by"),
        (f"class A(OwnTask):\n    {FACTS}rewards = 'sum'", "unknown fact 'rewards': did you mean 'reward'?"),
        (f"class A(OwnTask):\n    {FACTS}reward = 'total'", "reward: input should be 'apart', 'sum' or 'mean'"),
        (f"class A(OwnTask):\n    {FACTS}limit = 2.5", "limit: input should be a valid integer"),
        (f"class A(OwnTask):\n    {FACTS}name = 'two'", "name: "),
        (f"class A(OwnTask):\n    {FACTS}name = 'smac/3m'", "the family 'smac' is offmarl's"),
        (TASK.replace("lights/two", "om2p/two"), "'om2p' is a suite"),
        (f"class A(OwnTask):\n    {FACTS}packages = 'torch'", "packages: "),
        (f"class A(OwnTask):\n    {FACTS}packages = ['no-such-thing']", "pip install no-such-thing"),
        ("class A(OwnTask):\n    name = 'lights/two'\n    limit = 3", "lacks title"),
        ("class A(OwnTask):\n    name = 'lights/two'\n    title = 'T'\n    limit = 3", "write make() or batch"),
        (f"class A(OwnTask):\n    {FACTS}", "int: neither a ParallelEnv"),
        (f"class A(OwnTask):\n    {FACTS}make = lambda self: 1 / 0", "cannot be made (ZeroDivisionError"),
        (f"class A(OwnTask):\n    {FACTS}make = lambda self: exit(3)", "cannot be made (SystemExit"),
        (f"class A(OwnTask):\n    {FACTS}batch = lambda self, lanes: 1", "write either make() or batch"),
        (f"class A(OwnTask):\n    {FACTS}frame = lambda self, env: 1", "pictures need both scene(env) and frame(env)"),
        (f"class A(OwnTask):\n    {FACTS}score = (3, 3)", "score: the returns that count as 0 and 100 must differ"),
        (
            f"class A(OwnTask):\n    {FACTS}score = (3, 1)",
            "score: the return that counts as 100 must be the higher one",
        ),
        (f"class A(OwnTask):\n    {FACTS}score = (float('nan'), 1)", "score.0: input should be a finite number"),
        (f"class A(OwnTask):\n    {FACTS}title = 'a\\nb'", "title: "),
        (f"class A(OwnTask):\n    {FACTS}limit = 10**30", "limit: input should be less than or equal to 1000000"),
        (f"class A(OwnTask):\n    {FACTS}datasets = ['a.npz']", "datasets: input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_task_is_refused_in_one_line(tmp_path, text, reason, capsys):
    file = tmp_path / "broken.py"
    if text is not None:
        file.write_text(f"from offmarl.benchmarks.own import OwnTask\n\n\n{text}\n")
    assert main(["run", "--task", str(file), "--results", str(tmp_path / "results")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line and reason in line and not (tmp_path / "results").exists()


TRAPPED = """from trap import Trap
from offmarl.benchmarks.own import OwnTask


class Trapped(OwnTask):
    name, title, limit = "trap/one", "Trap", 9
    make = lambda self: Trap()
    MADE
"""
SPOILT = {
    **{name: f"make = lambda self: Trap('{name}')" for name in FAULTS},
    "masks of one agent": "legal = lambda self, env: [[True] * 4]",
    "a state of words": "state = lambda self, env: 'abc'",
    "a hook that fails": "won = lambda self, env, info: 1 / 0",
    "nobody": "make = lambda self: type('Nobody', (Trap,), {'possible_agents': []})()",
    "nobody is paid": "make = lambda self: type('Free', (Trap,), {'step': lambda env, a: ({}, {}, {}, {}, {})})()",
}


@pytest.mark.parametrize("fault", SPOILT)
def test_an_environment_at_fault_is_one_line_that_names_the_file_and_leaves_nothing(
    fault, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trapped.py").write_text(TRAPPED.replace("MADE", SPOILT[fault]))
    words = "data record --task trapped.py --policy random --episodes 2 --out x.npz"
    assert main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"offmarl: {tmp_path / 'trapped.py'}: ") and line.count("trapped.py") == 1
    assert {file.name for file in tmp_path.iterdir()} <= {"trapped.py", "__pycache__"}


def test_without_its_file_a_store_says_what_is_missing_and_how_to_name_it(file, tmp_path, monkeypatch, capsys):
    assert run("--algorithms", "bc") == 0
    (run_id,) = records(tmp_path)
    monkeypatch.setenv(own.PATHS, "")
    own.registry.cache_clear()
    capsys.readouterr()
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "  lights/two: a task that is not known here; name its file: --task FILE" in out
    assert "all sound, 3 not compared" in out and "its suite 'lights' is unavailable here" in out
    assert main(["report", "--suite", "all", "--site", "site"]) == 0
    assert "left out: lights/two: a task that is not known here; name its file: --task FILE" in capsys.readouterr().out
    assert main(["status"]) == 0
    capsys.readouterr()
    for words in (
        "report --suite lights",
        f"rerun {run_id}",
        f"watch {run_id}",
        "watch lights/two:random bc",
        f"play {run_id}",
        "latency --suite lights",
        "data card lights/two:random",
        "bench envs --tasks lights/two",
        "select --suite lights",
        "judge lights/two:random",
    ):
        assert main(words.split()) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert "--task FILE" in line, words


def test_a_word_that_is_no_file_and_a_missing_suite_are_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["run", "--task", "smac/3m"])
    assert "--tasks chooses tasks by their names" in capsys.readouterr().err
    assert main(["run"]) == 2 and "--suite: name one" in capsys.readouterr().err


def test_a_new_task_is_validated_with_its_data_and_doubts_are_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "lamps", "--kind", "task"]) == 0
    text = (tmp_path / "lamps.py").read_text()
    assert 'name = "mine/lamps"' in text and "emplate" not in text and "TITLE" not in text
    assert main(["data", "record", "--task", "lamps.py", "--policy", "random", "--out", "lamps-random.npz"]) == 0
    assert main(["validate", "lamps.py"]) == 0
    out = capsys.readouterr().out
    assert "✓ the same seed gives the same episode" in out and "✓ random: 0 of 2 features are outside" in out
    file = tmp_path / "lamps.py"
    edit(file, ("np.random.default_rng(seed)", "np.random.default_rng()"), ("np.eye(2, dtype", "-3 * np.eye(2, dtype"))
    assert main(["validate", "lamps.py"]) == 1
    out = capsys.readouterr().out
    assert "✗ the same seed gives the same episode: no" in out and "✗ random: 2 of 2 features are outside" in out
    assert main(["new", "lamps", "--kind", "task"]) == 2


SUITE = "title: Mine\nalgorithms: {bc: Cloning}\ngroups: {lights: {lights/two: [random]}}\n"


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """The file of a suite of one's own, which is forgotten afterwards."""
    monkeypatch.setattr("offmarl.experiments.grid.suite.FILES", {})
    (tmp_path / "mine.yaml").write_text(SUITE)
    return tmp_path / "mine.yaml"


def test_a_suite_may_be_a_file_with_its_own_methods_and_tasks(file, suite, tmp_path, capsys):
    words = "run --suite mine.yaml --task two.py --profile smoke --seeds 0 --jobs 1 --matmul mkl --set all.hidden=[8]"
    assert main(words.split()) == 0
    table = pd.read_csv(tmp_path / "results/reports/mine-own/table.csv")
    assert set(table["title"]) == {"Cloning"} and table["status"].tolist() == ["done", "done"]
    assert main(["verify", "--suite", "mine.yaml", "--task", "two.py"]) == 0 and "all sound" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        (SUITE.replace("algorithms", "algorithm"), "mine.yaml", "mine.yaml: unknown key 'algorithm': did you mean"),
        (
            SUITE.replace("lights/two", "lights/tow"),
            "mine.yaml",
            "unknown task 'lights/tow': did you mean 'lights/two'",
        ),
        (SUITE, "smac.yaml", "the suite name 'smac' is invalid or already taken"),
        (SUITE, "lights.yaml", "the suite name 'lights' is invalid or already taken"),
        (SUITE + "paper: A\npublished: macflow_tabel1", "mine.yaml", "'macflow_tabel1': did you mean 'macflow_table1'"),
        (SUITE.replace("random", "rando"), "mine.yaml", "unknown quality of lights/two 'rando': did you mean 'random'"),
        (SUITE + "title: Yours", "mine.yaml", "mine.yaml, line 4: is not YAML (the key 'title' stands there twice)"),
        (None, "missing.yaml", "missing.yaml: cannot be read (No such file"),
    ],
)
def test_a_file_that_is_no_suite_is_refused_in_one_line(file, suite, tmp_path, text, name, reason, capsys):
    if text is not None:
        (tmp_path / name).write_text(text)
    (tmp_path / "results").mkdir()
    assert main(["report", "--suite", name, "--task", "two.py"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
