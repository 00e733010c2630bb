"""Curves are means since the last point, of every term."""

import numpy as np
import pandas as pd
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.matd3bc import MATD3BC
from offmarl.algorithms.parts.algorithm import LARGEST_Q
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.contract.fixtures import make_batch  # noqa: F401  a fixture
from offmarl.experiments.training.curve import Since
from offmarl.experiments.training.run import train


def test_matd3bcs_policy_losses_show_with_their_mean(make_batch):  # noqa: F811
    """They come in every other update, and never in the hundredth."""
    method = MATD3BC(TaskSpec(3, 5, 7, 4, False), MATD3BC.Config(hidden=(16,)), [3, 5])
    since, seen = Since(), []
    for draw in range(10):
        seen.append(method.update(make_batch(method.spec, draw=draw)))
        since.add(seen[-1])
    point = since.take()
    assert set(point) == {name for metrics in seen for name in metrics} > set(seen[-1])
    for name, values in point.items():
        own = torch.stack([metrics[name] for metrics in seen if name in metrics])
        wanted = own.amax(0) if name == LARGEST_Q else own.mean(0)
        assert values == pytest.approx(wanted.tolist(), rel=1e-5), name
    assert since.take() == {}


def test_a_point_is_the_mean_of_the_updates_since_the_last_one(small, monkeypatch, tmp_path):
    bc = registry()["bc"]

    def losses(self, batch):
        odd = {"odd": torch.full((len(self.seeds),), float(self.updates))} if self.updates % 2 else {}
        return bc.losses(self, batch) | odd

    monkeypatch.setitem(registry(), "odd", type("Odd", (bc,), {"losses": losses, "name": "odd"}))
    job = small("odd", steps=220)
    run = train(job, tmp_path)
    for step in run:
        if step == 101:  # within a point of two updates
            break
    run.close()
    list(train(job, tmp_path))
    curve = pd.read_parquet(tmp_path / "runs" / job.run_ids()[0] / "curves.parquet")
    assert curve["step"].tolist() == list(range(2, 221, 2))
    assert np.array_equal(curve["odd"], curve["step"] - 1)  # the one of the two that has the term
