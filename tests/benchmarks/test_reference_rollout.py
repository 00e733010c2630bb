"""Reference rollouts: the same wherever the simulator is, another where it is not."""

import dataclasses

from offmarl.benchmarks import fingerprint as module
from offmarl.benchmarks import mpe
from offmarl.benchmarks.fingerprint import reference
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.catalogue import catalogue


def test_a_rollout_is_the_same_again_and_another_on_every_task(monkeypatch):
    names = [name for name, task in tasks().items() if task.engine != "smax"]
    first = {name: reference(tasks()[name])["rollout"] for name in names}
    module._played.cache_clear()
    assert {name: reference(tasks()[name])["rollout"] for name in names} == first
    assert len(set(first.values())) == len(names)


def test_another_physics_is_another_rollout():
    task = tasks()["mamujoco/3hopper"]
    legacy = dataclasses.replace(task, roster={"physics": "legacy"})
    assert legacy == task and reference(legacy) != reference(task)


def test_a_simulator_that_was_changed_a_little_shows(monkeypatch):
    before = reference(tasks()["mpe/spread"])
    module._played.cache_clear()
    monkeypatch.setattr(mpe, "DAMPING", mpe.DAMPING * 1.01)
    assert reference(tasks()["mpe/spread"]) != before
    module._played.cache_clear()


def test_real_starcraft_is_not_started():
    assert reference(catalogue("og_marl")["smac/3m", "good"].task) == {}
