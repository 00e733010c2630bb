"""What trains: whoever makes it, the method has prepared its data."""

import pytest

from offmarl.algorithms import registry
from offmarl.experiments.studies import toy_games
from offmarl.experiments.timing.throughput import random_data, training_pace
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import job_trainer
from offmarl.experiments.training.run import train


def train_job(small, results):
    for step in train(small(steps=1), results):
        if step:
            break


def measure(small, results):
    training_pace(small(), Host(), 0.0)


def study(small, results):
    (first, *_) = toy_games.toy_games().values()
    budget = toy_games.Budget(steps=1, evaluations=1, samples=8, seeds=[0], data=64)
    one = first.model_copy(update={"profiles": {"smoke": budget}, "arms": {"one": {}}, "settings": None})
    one.run("smoke", "embedded", Host(), results, 1)


@pytest.mark.parametrize("make", [train_job, measure, study])
def test_whoever_trains_prepares_the_data_once(make, small, tmp_path, monkeypatch):
    calls = []

    def prepare(original, self, data):
        calls.append(type(self).name)
        return original(self, data)

    for method in {registry()["bc"], *(registry()[each.method] for each in toy_games.toy_games().values())}:
        original = method.prepare
        monkeypatch.setattr(method, "prepare", lambda self, data, original=original: prepare(original, self, data))
    make(small, tmp_path)
    assert len(calls) == 1


def test_batches_show_the_data_as_the_method_prepared_it(small, monkeypatch):
    monkeypatch.setattr(registry()["bc"], "prepare", lambda self, data: data._replace(rewards=data.rewards + 100))
    job = small()
    trainer = job_trainer(job, random_data(job.entry.task), Host())
    assert trainer.sampler.sample(8).rewards.min() >= 100 and trainer.update.sampler is trainer.sampler
