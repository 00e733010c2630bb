"""The embedded data are what they claim: weak data come from weak players, and argmax does not undo them."""

import dataclasses

import numpy as np
import pytest

from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.benchmarks.rollout import evaluate
from offmarl.benchmarks.tasks import make_env
from offmarl.datasets.embedded.recipes import LANES, catalogue
from offmarl.datasets.sampler import Sampler


@pytest.mark.parametrize("quality", ["good", "medium", "poor"])
def test_recordings_meet_their_target_and_cloning_them_by_argmax_returns_as_much(quality):
    recipe = dataclasses.replace(catalogue()["smac/3m", quality], episodes=512)
    data, task = recipe.record(lambda _: None), recipe.task
    assert data.returns().mean() == pytest.approx(recipe.target[0], abs=1.5)

    bc = registry()["bc"]
    spec = TaskSpec(task.agents, task.obs, task.state, task.actions, task.discrete)
    algorithm = bc(spec, bc.Config(hidden=(128, 128), learning_rate=1e-3), [0])
    sampler = Sampler(data, [0])
    for _ in range(800):
        algorithm.update(sampler.sample(128))
    (episodes,) = evaluate(algorithm, make_env(task, LANES), [0])
    cloned, mean = np.mean(episodes.returns), data.returns().mean()
    assert mean - 4.0 < cloned < mean + 3.0  # above, argmax would undo noise; below, it mixes the teams' conventions
