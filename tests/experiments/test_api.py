"""offmarl from Python: the page that shows it runs, and `offmarl play` prints what it returns."""

import re
from pathlib import Path

import numpy as np
import pytest

from offmarl.experiments import api
from offmarl.experiments.cli import main
from offmarl.experiments.errors import UserError
from offmarl.experiments.launch import serial

PAGE = Path(api.__file__).with_name("python.md")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder in which all blocks of the page have run, and their names."""
    folder, names = tmp_path_factory.mktemp("page"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
            exec(compile(block, PAGE.name, "exec"), names)
    return folder, names


def test_the_page_runs_and_its_values_are_those_of_the_store(page):
    _, names = page
    table, played = names["table"], names["played"]
    assert sorted(table["algorithm"]) == ["bc", "matd3bc"] and set(table["status"]) == {"done"}
    assert table["dataset_mean"].iloc[0] == pytest.approx(names["data"].returns().mean(), abs=0.01)
    assert len(played.returns) == 4 and played.lengths == [25] * 4
    assert names["actions"].shape == (1, 1, 3, 2) and names["runs"][0] in set(table["run_id"])


def test_what_is_stored_is_not_trained_again(page, monkeypatch):
    folder, names = page
    monkeypatch.setattr(serial, "launch", lambda left, *_: [f"{job.algorithm} would train" for job in left])
    asked = {"profile": "smoke", "seeds": [0], "steps": 20, "results": folder / "results"}
    (run_id,) = api.train("bc", "mpe/spread:random", overrides={"all": {"hidden": [16]}}, **asked)
    assert run_id == names["runs"][0]
    with pytest.raises(RuntimeError, match="^bc would train$"):
        api.train("bc", "mpe/spread:random", overrides={"all": {"hidden": [17]}}, **asked)


def test_play_prints_the_returns_of_the_seeds_episodes(page, capsys):
    folder, names = page
    words = ["play", names["runs"][0], "--results", str(folder / "results"), "--episodes", "4"]
    assert main(words) == 0
    head, returns, mean = capsys.readouterr().out.splitlines()
    assert head.startswith("BC on mpe/spread (OMAR's particle worlds, rewritten), 4 episodes of seed 1000")
    shown = [float(value) for value in returns.removeprefix("returns: ").split(", ")]
    assert np.allclose(shown, names["played"].returns, rtol=1e-3)
    assert mean.startswith(f"mean {np.mean(names['played'].returns):.4g}, ") and mean.endswith("length 25.0")
    assert main([*words, "--seed", "1"]) == 0 and returns not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nothing"], "unknown run 'nothing'"),
        (["--episodes", "0"], "--episodes 0: write a number of at least 1"),
        (["--seed", "-1"], "--seed -1: write a number from 0"),
        (["--play", "loud"], "unknown play 'loud'"),
    ],
)
def test_play_refuses_in_a_line(page, words, reason, capsys):
    folder, names = page
    run = [] if words[0] == "nothing" else [names["runs"][0]]
    assert main(["play", *run, *words, "--results", str(folder / "results")]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_unknown_names_are_told():
    for call in (
        lambda: api.task("mpe/nothing"),
        lambda: api.dataset("mpe/spread"),
        lambda: api.train("bc", "mpe/spread:x"),
    ):
        with pytest.raises(UserError):
            call()
