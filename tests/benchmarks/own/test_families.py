"""The families that come with offmarl: what they state is so, they are sound, and a missing package is told."""

import dataclasses

import numpy as np
import pytest

from offmarl.benchmarks import own
from offmarl.benchmarks.fingerprint import fingerprint
from offmarl.benchmarks.own import contract
from offmarl.benchmarks.tasks import make_env, tasks, unavailable
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.experiments.cli import main


@pytest.mark.parametrize("name", own.house())
def test_stated_sizes_are_those_of_the_environment(name):
    task, env = tasks()[name], make_env(tasks()[name], 1)
    assert own.sizes(env) == {key: getattr(task, key) for key in own.sizes(env)}
    env.close()


@pytest.mark.parametrize("name", ["lbf/8x8-2p-2f-coop", "rware/tiny-2ag"])
def test_they_are_sound(name, monkeypatch):
    monkeypatch.setattr(contract, "SEEDS", contract.SEEDS[:2])
    assert [text for sound, text, _ in contract.examine(tasks()[name]) if not sound] == []


def test_stated_sizes_that_are_not_the_environments_are_found(monkeypatch):
    monkeypatch.setattr(contract, "SEEDS", contract.SEEDS[:2])
    task = dataclasses.replace(tasks()["lbf/8x8-2p-2f-coop"], obs=13)
    sound, text, _ = next(iter(contract.examine(task)))
    assert not sound and "its environment shows {'agents': 2, 'obs': 12," in text


def test_food_is_won_together_and_pays_the_whole_team():
    env = make_env(tasks()["lbf/8x8-2p-2f-coop"], 8)
    team, view, rng = (
        catalogue()["lbf/8x8-2p-2f-coop", "good"].team()[0],
        env.reset(np.arange(8)),
        np.random.default_rng(0),
    )
    paid, over = np.zeros(8), np.zeros(8, bool)
    while not over.all():
        step = env.step(team(view, rng))
        assert (step.reward[:, 0] == step.reward[:, 1]).all()
        view, paid, over = step.view, paid + step.reward[:, 0], over | step.done
    assert step.won is not None and np.allclose(paid[step.won], 1) and step.won.mean() > 0.7
    env.close()


def test_without_its_package_a_family_is_known_and_not_available(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(own, "_installed", lambda package: package != "lbforaging")
    task = tasks()["lbf/8x8-2p-2f-coop"]
    assert unavailable(task) == "needs lbforaging: pip install lbforaging" and "missing" in fingerprint(task)
    words = [
        "--suite",
        "coordination",
        "--tasks",
        "lbf/8x8-2p-2f-coop",
        "--algorithms",
        "bc",
        "--results",
        str(tmp_path),
    ]
    assert main(["run", *words]) == 3
    assert "needs lbforaging: pip install lbforaging" in capsys.readouterr().err
