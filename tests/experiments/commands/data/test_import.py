"""`offmarl data import` as a user types it: what comes in is trained on, checked, reported and verified."""

import json
import re
from importlib import resources

import numpy as np
import pytest

from offmarl.experiments.cli import main

EXAMPLE = resources.files("offmarl.benchmarks.own").joinpath("example.py").read_text()
TASK = EXAMPLE.replace("FAMILY/template", "lights/two").replace("TITLE", "Two lights").replace("template-", "")
RUN = "run --task two.py --profile smoke --algorithms bc --seeds 0 --matmul mkl --set all.hidden=[8] --jobs 1"


@pytest.fixture(autouse=True)
def recorded(no_leftovers, tmp_path, monkeypatch):
    """A task, and eight episodes of it as a user keeps them: a file of rows, with flags as Gymnasium has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    (tmp_path / "two.py").write_text(TASK)
    words = "data record --task two.py --policy random --episodes 8 --out random.npz"
    assert main(words.split()) == 0
    arrays = dict(np.load("random.npz"))
    rows = arrays["rows"]
    columns = {"s": arrays["obs"][rows].astype(int), "a": arrays["actions"].astype(float), "r": arrays["rewards"][:, 0]}
    np.savez("mine.npz", **columns, done=arrays["done"], cut=arrays["timeout"], s2=arrays["obs"][rows + 1].astype(int))
    return arrays


KEYS = "obs=s,actions=a,rewards=r,ends=done,timeouts=cut,next_obs=s2"


def imports(*words, name="mine", keys=KEYS):
    return main(["data", "import", name, "--task", "two.py", "--keys", keys, *words, "mine.npz"])


def test_imported_data_are_known_to_every_command(recorded, tmp_path, capsys):
    assert imports() == 0
    out = capsys.readouterr().out
    assert "imported: lights/two:mine (source own): 8 episodes, 80 transitions" in out
    assert "legal: there is none, so all actions are legal" in out and "s: whole numbers became floats" in out
    assert main([*RUN.split(), "--tasks", "lights/two:mine"]) == 0
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("results/runs/*/run.json"))
    assert record["cell"]["quality"] == "mine" and list(record["dataset"]["files"]) == ["mine.npz"]
    assert main(["data", "check", "--task", "two.py"]) == 1  # as both datasets are the same
    for words in ("report", "status", "verify", "data card lights/two:mine", "data list --source own"):
        assert main([*words.split(), "--task", "two.py"]) == 0, words
    out = capsys.readouterr().out
    assert "! 8 of 8 episodes are in mine too" in out and "1 doubts" in out
    assert "all sound" in out and "unavailable here" not in out and "lights/two:mine" in out
    assert "state: there is none, so it is all observations joined" in out  # the card says what was settled
    with np.load(tmp_path / "data/own/lights/two/mine.npz") as mine:
        for name, values in recorded.items():
            np.testing.assert_array_equal(mine[name], values, err_msg=name)


def test_a_dataset_of_a_task_of_ours(tmp_path, capsys, forge):
    from offmarl.benchmarks.tasks import tasks
    from offmarl.datasets.dataset import from_episodes

    story = forge.episodes(tasks()["smac/3m"], [5, 8, 60])
    ends = [{"done": True, "timeout": False}] * 3
    np.savez("three.npz", **from_episodes([one | end for one, end in zip(story, ends)], [0] * 3).arrays())
    assert main(["data", "import", "mine", "--task", "smac/3m", "three.npz"]) == 0
    assert "1 ends at the limit of 60 steps are the clock's: time-outs" in capsys.readouterr().out
    assert main(["data", "list", "--source", "own"]) == 0
    assert re.search(r"smac/3m:mine +own", capsys.readouterr().out)


def test_a_file_with_an_illegal_action_is_no_valid_data(recorded, capsys):
    recorded["legal"][recorded["rows"][12], 1, recorded["actions"][12, 1]] = False
    np.savez("illegal.npz", **recorded)
    assert main(["data", "check", "illegal.npz", "--task", "two.py"]) == 2
    assert re.search(r"illegal.npz: episode 1, step 2, agent 1: action \d is not legal", capsys.readouterr().err)


WRONG = {
    "no such file": (["nothing.h5"], "nothing.h5: there is no such file or folder"),
    "no layout": (["two.py"], "two.py: is no .npz, .hdf5, Minari dataset or vault"),
    "a layout with names of its own": (["--keys", "obs"], "--keys obs: write pairs such as obs=observations"),
    "an unknown column": (["--keys", "reward=r"], "--keys reward=…: is none of obs, state"),
    "a key that is not there": (["--keys", "obs=x"], "mine.npz: has no 'x' (obs); it has a, cut, done, r, s, s2"),
    "an unknown convention": (["--ends", "never"], "unknown --ends 'never': "),
    "a name that is taken": (["random"], "lights/two:random: is there already, as "),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_one_line_and_leave_nothing(case, capsys, tmp_path):
    words, reason = WRONG[case]
    named = {"a name that is taken": "random"}.get(case, "mine")
    files = words if case.startswith("no ") else [*(words if named == "mine" else []), "mine.npz"]
    capsys.readouterr()
    assert main(["data", "import", named, "--task", "two.py", *files]) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1
    assert not [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
