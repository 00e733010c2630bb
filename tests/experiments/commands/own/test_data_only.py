"""A task without an environment: it is trained, looked at on held-out episodes, reported without a number of play."""

import json
from importlib import resources

import numpy as np
import pandas as pd
import pytest
import torch

from offmarl.benchmarks import own
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.own import catalogue
from offmarl.experiments.cli import main
from offmarl.experiments.training.looks import HeldOut, look_of

EXAMPLE = resources.files("offmarl.benchmarks.own").joinpath("example.py").read_text()
TASK = '''"""Lights, of which there are only data."""

from offmarl.benchmarks.own import OwnTask


class Lights(OwnTask):
    name, title, limit = "lights/told", "Lights", 10
    sizes = dict(agents=2, obs=2, state=4, actions=3)
    datasets = {"clear": "clear.npz"}
'''
SMALL = "run --task told.py --profile smoke --algorithms bc,macql --seeds 0,1 --matmul mkl --set all.hidden=[16]"
RUN = f"{SMALL} --set bc.act_by=argmax --set all.learning_rate=0.01 --jobs 1"


@pytest.fixture(autouse=True)
def lights(no_leftovers, tmp_path, monkeypatch):
    """Forty episodes in which everybody does what a light asks for, as a file beside the task's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    (tmp_path / "told.py").write_text(TASK)
    rng, lengths = np.random.default_rng(0), np.full(40, 10)
    lights = np.eye(2, dtype=np.float32)[rng.integers(2, size=440)]
    rows = np.arange(400) + np.repeat(np.arange(40), 10)
    arrays = {"obs": np.repeat(lights[:, None], 2, 1), "state": np.tile(lights, 2)}
    arrays |= {"legal": np.ones((440, 2, 3), bool), "actions": np.repeat(lights.argmax(1)[rows][:, None], 2, 1)}
    arrays |= {"rewards": np.ones((400, 2), np.float32), "rows": rows, "behaviour": np.zeros(40, np.int16)}
    last = np.zeros(400, bool)
    last[np.cumsum(lengths) - 1] = True
    np.savez(
        "clear.npz",
        **arrays,
        done=np.zeros(400, bool),
        timeout=last,
        episode=np.repeat(np.arange(40, dtype=np.int32), 10),
    )


def test_it_trains_and_says_how_far_it_agrees_with_held_out_actions(tmp_path, capsys):
    assert main([*RUN.split(), "--dry-run"]) == 0
    assert "4 cells: 0 done, 4 pending" in capsys.readouterr().out
    assert main(RUN.split()) == 0
    out = capsys.readouterr().out
    assert "there is no environment, so nothing was played" in out and "no finished run yet" not in out
    table = pd.read_csv(tmp_path / "results/reports/lights-own/table.csv").query("quality == 'clear'")
    done = table[table["algorithm"].isin(["bc", "macql"])].set_index("algorithm")
    assert set(done["status"]) == {"trained"} and done["mean"].isna().all() and done["standing"].isna().all()
    assert done.loc["bc", "agreement"] == 1.0  # the light says it all
    assert "could not be read" not in out and "Trained without an environment" in out and "nothing is ranked" in out
    row = next(line for line in out.splitlines() if line.startswith("told clear"))
    assert row.split().count("trained°") == 2
    assert "told clear | 1.000" in (tmp_path / "results/reports/lights-own/held_out.md").read_text()
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/runs/*/run.json")]
    assert len(records) == 4 and {record["status"] for record in records} == {"trained"}
    for record in records:
        assert record["evaluations"] == [] and record["held_out"][-1]["transitions"] == 40
        assert record["latency"]["joint_ms"] > 0 and record["dataset"]["random_return_mean"] is None


def test_its_policy_is_kept_and_nothing_is_played(tmp_path, capsys):
    from offmarl.experiments.training.policy import load_policy

    assert main([*RUN.split(), "--algorithms", "bc", "--seeds", "0"]) == 0
    (folder,) = tmp_path.glob("results/runs/*")
    policy = load_policy(folder, tasks()["lights/told"])
    seen = torch.eye(2)[None, :, None].expand(1, 2, 2, 2)
    actions, _ = policy.act(seen, torch.ones(1, 2, 2, 3, dtype=torch.bool))
    assert actions[0].tolist() == [[0, 0], [1, 1]]
    capsys.readouterr()
    assert main(["validate", "told.py"]) == 0
    assert "✓ it has no environment: only its data are examined" in capsys.readouterr().out
    for words in ("data record --policy random --out new.npz", "latency --suite lights", "bench envs"):
        assert main([*words.split(), "--task", "told.py"]) == 2, words
        captured = capsys.readouterr()
        told = captured.out + captured.err
        assert told.count("lights/told: has no environment, only data") == 1 and "Traceback" not in told, words


def test_decisions_are_timed_where_there_is_an_environment(tmp_path, capsys):
    """A task that can be played, of the same family, is measured; the other is named once, not for every method."""
    lit = EXAMPLE.replace("FAMILY/template", "lights/lit").replace("TITLE", "Lit").replace("template-", "")
    (tmp_path / "lit.py").write_text(lit)
    record = "data record --task lit.py --policy random --episodes 4 --out random.npz"
    assert main(record.split()) == 0
    capsys.readouterr()
    words = "latency --suite lights --profile smoke --algorithms bc --threads 1 --seconds 0.05 --tasks all"
    assert main([*words.split(), "--task", "told.py", "--task", "lit.py"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("has no environment") == 1
    assert [row["task"] for row in json.loads(shown.out.splitlines()[-1])["rows"]] == ["lights/lit"]


def test_whole_episodes_are_held_out_and_not_trained_on():
    own.registry.cache_clear()
    main(["data", "list", "--source", "own", "--task", "told.py"])
    data, _ = catalogue()["lights/told", "clear"].load()
    job = type("Job", (), {"entry": catalogue()["lights/told", "clear"], "title": "told:clear bc", "seeds": (0,)})()
    look, again = look_of(job, data), look_of(job, data)
    assert isinstance(look, HeldOut)
    assert len(look.held.behaviour) == 4 and len(look.data.behaviour) == 36
    assert np.array_equal(look.held.obs, again.held.obs)  # drawn with a seed of its own
    both = sorted([*map(bytes, look.held.actions.reshape(4, -1)), *map(bytes, look.data.actions.reshape(36, -1))])
    assert both == sorted(map(bytes, data.actions.reshape(40, -1)))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "    sizes = dict(agents=2, obs=2, state=4, actions=3)\n",
            "",
            "write make() or batch(lanes); or, of data alone, sizes = ",
        ),
        ("obs=2, ", "", "told.py: sizes: lacks obs"),
        ("obs=2", "obs=3", "clear.npz: obs: rows of shape (2, 2), but lights/told has (2, 3)"),
    ],
)
def test_sizes_that_are_missing_or_wrong_are_one_line(old, new, reason, tmp_path, capsys):
    (tmp_path / "told.py").write_text(TASK.replace(old, new))
    assert main([*RUN.split()]) != 0
    err = capsys.readouterr().err
    assert reason in err and "Traceback" not in err
