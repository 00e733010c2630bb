"""Where tasks come from besides files that a command names, and engines that step many episodes at once."""

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from offmarl.benchmarks import own, source
from offmarl.benchmarks.env import Step, View
from offmarl.benchmarks.own import OwnTask, TaskError
from offmarl.benchmarks.tasks import make_env, tasks


class Points:
    """Three steps of two agents whose action is two numbers, in arrays."""

    actions = 2

    def __init__(self, lanes):
        self.lanes = lanes

    def reset(self, seeds):
        self.t, self.seeds = 0, seeds
        return self.view()

    def view(self):
        obs = np.tile(np.asarray(self.seeds, np.float32)[:, None, None], (1, 2, 3))
        return View(obs, obs[:, 0], None)

    def step(self, actions):
        self.t += 1
        done = np.full(self.lanes, self.t == 3)
        return Step(self.view(), actions.sum((1, 2)).astype(np.float32), done, done, None)

    def close(self):
        pass


class Pointed(OwnTask):
    name, title, limit = "points/two", "Points", 3

    def batch(self, lanes):
        return Points(lanes)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that an installed package names a module with these tasks."""

    def install(**kinds):
        module = ModuleType("their_tasks")
        module.__file__ = __file__
        for name, facts in kinds.items():
            setattr(module, name, type(name, (Pointed,), {"__module__": "their_tasks", **facts}))
        entry = SimpleNamespace(value="their_tasks", load=lambda: module)
        monkeypatch.setattr(source, "entry_points", lambda group: [entry] if group == "offmarl.tasks" else [])
        own.registry.cache_clear()

    yield install
    monkeypatch.undo()
    own.registry.cache_clear()


def test_an_installed_package_offers_an_engine_that_steps_many_episodes(installed):
    installed(Mine={})
    task = tasks()["points/two"]
    assert (task.agents, task.obs, task.state, task.actions, task.discrete) == (2, 3, 3, 2, False)
    env = make_env(task, 2, 4)
    assert isinstance(env, Points) and env.lanes == 8


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ({"Mine": {"reward": "sum"}}, "leave out reward, clock and fresh"),
        ({"A": {}, "B": {}}, "entry point their_tasks: the name 'points/two' is taken"),
        ({"Mine": {"batch": lambda self, lanes: 1 / 0}}, "points/two: cannot be made"),
        ({}, "has no subclass of OwnTask"),
    ],
)
def test_what_it_offers_is_held_to_the_same_rules(installed, kinds, reason):
    installed(**kinds)
    with pytest.raises(TaskError, match=reason):
        tasks()


def test_continuous_views_without_a_size_of_actions_are_refused(installed, monkeypatch):
    monkeypatch.delattr(Points, "actions")
    installed(Mine={})
    with pytest.raises(TaskError, match="give it an attribute `actions`"):
        tasks()
