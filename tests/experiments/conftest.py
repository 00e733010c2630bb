import dataclasses
import json

import pytest
import torch

from offmarl.algorithms import registry
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.store.store import Store


@pytest.fixture(scope="module")
def small(battles):
    """Make jobs of thirty updates; smac/3m:good stands for twelve episodes of two tactics while they are in use."""
    tactics = [{"lane": 22.0}, {"lane": 10.0}]
    recipe = dataclasses.replace(catalogue()["smac/3m", "good"], episodes=12, behaviours=tactics)
    lanes = battles.lanes

    def make(algorithm="bc", seeds=(0, 1), steps=30, **settings):
        request = grid.Request(
            suite="smac",
            profile="smoke",
            algorithms=[algorithm],
            tasks=["smac/3m:good"],
            seeds=seeds,
            overrides={"all": {"hidden": [16], "batch_size": 8}, algorithm: settings},
        )
        (job,) = grid.jobs(request)
        episodes = lanes // len(seeds)
        protocol = dataclasses.replace(job.protocol, steps=steps, eval_every=10, eval_episodes=episodes)
        return dataclasses.replace(job, protocol=protocol)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue(), ("smac/3m", "good"), recipe)
        yield make


@pytest.fixture
def explosive(monkeypatch):
    """A method that fails at its fourth update; its name."""

    class Explosive(registry()["bc"]):
        name = "explosive"

        def losses(self, batch):
            self.count = getattr(self, "count", 0) + 1
            if self.count == 4:
                raise FloatingPointError("the loss is not finite\nat all")
            return super().losses(batch)

    monkeypatch.setitem(registry(), "explosive", Explosive)
    return "explosive"


@pytest.fixture(scope="session")
def complete():
    """Assert that every visible run of a results directory is whole; return the records by run id."""
    import pandas as pd

    def check(results):
        found = {}
        for place in (results / "runs").iterdir():
            if place.name.startswith("."):
                continue
            record = json.loads((place / "run.json").read_text())
            assert record == Store(results).read(place.name)
            assert record["run_id"] == place.name
            if record["status"] == "done":
                assert len(pd.read_parquet(place / "curves.parquet")) > 0
                assert torch.load(place / "checkpoint.pt", weights_only=True)
            found[place.name] = record
        return found

    return check
