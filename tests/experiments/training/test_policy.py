"""A stored policy plays as the one that was trained, and only in its own task."""

import numpy as np
import pytest
import torch

from offmarl.benchmarks.tasks import tasks
from offmarl.experiments.errors import UserError
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.policy import Player, load_policy


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """The folder of a finished run's second seed."""
    results, job = tmp_path_factory.mktemp("results"), small()
    assert run_serial([job], results, Host()) == []
    return results / "runs" / job.run_ids()[1]


def test_it_has_the_stored_weights_and_plays_legal_actions(folder, marines, battles):
    method = load_policy(folder, marines)
    stored = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert method.seeds == [1]
    loaded = method.seed_state(0)
    assert loaded.keys() == stored.keys() and all(torch.equal(loaded[name], stored[name]) for name in stored)
    view = battles.reset(np.arange(battles.lanes))
    actions = Player(method)(view, np.random.default_rng(0))
    assert actions.shape == (battles.lanes, marines.agents)
    assert np.take_along_axis(view.legal, actions[..., None], -1).all()


def test_another_task_and_a_damaged_run_are_refused(folder, marines, tmp_path):
    with pytest.raises(UserError, match="was trained on smac/3m, not on mpe/spread"):
        load_policy(folder, tasks()["mpe/spread"])
    with pytest.raises(UserError, match="is not the folder of a finished run"):
        load_policy(tmp_path, marines)
    file = folder / "checkpoint.pt"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="checkpoint.pt: does not match"):
        load_policy(folder, marines)
    file.write_bytes(content)
