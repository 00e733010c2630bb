"""A critic's mean value beside the data's discounted return."""

import pandas as pd
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.contract.fixtures import make_data, make_spec  # noqa: F401  fixtures
from offmarl.experiments.commands.status import survey
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.curve import Values, discounted_return
from offmarl.experiments.training.run import train
from offmarl.reports.records.schema import strayed


@pytest.mark.parametrize(("bootstrapped", "wanted"), [(False, (1 + 1.5 + 1.75) / 3), (True, 2.0)])
def test_the_datas_discounted_return_follows_the_rule(make_data, make_spec, bootstrapped, wanted):  # noqa: F811
    """A reward of 1 in every step, discount 1/2: 2 for ever, 1.75 in three steps, 1.5 in two, 1 in the last."""
    data = make_data(make_spec(), episodes=2, length=3)
    done = torch.zeros(6) if bootstrapped else data.done
    data = data._replace(rewards=torch.ones_like(data.rewards), done=done)
    assert discounted_return(data, 0.5) == pytest.approx(wanted)


def test_a_run_keeps_the_value_of_every_evaluation_and_status_lists_those_far_off(small, tmp_path, monkeypatch):
    job, measured, point = small("macql"), [], Values.point
    monkeypatch.setattr(
        Values, "point", lambda self, algorithm: measured.append(point(self, algorithm)) or measured[-1]
    )
    list(train(job, tmp_path))
    assert len(measured) == 3
    store = Store(tmp_path)
    for run_id in job.run_ids():
        value = store.read(run_id)["value"]
        curve = pd.read_parquet(tmp_path / "runs" / run_id / "curves.parquet").dropna(subset=["critic_value"])
        assert curve["step"].tolist() == [10, 20, 30] and curve["critic_value"].iloc[-1] == value["value"]
        assert set(curve["data_value"]) == {value["data_value"]} and value["data_value"] > 0
        assert strayed(value) == (not 0.5 <= value["value"] / value["data_value"] <= 2)
    far = [run_id for run_id in job.run_ids() if strayed(store.read(run_id)["value"])]
    assert [row["run_id"] for row in survey(store)["strayed"]] == far and far


def test_a_methods_own_loss_called_value_stays_in_its_curves(small, tmp_path, monkeypatch):
    class Named(registry()["macql"]):
        name = "named"

        def losses(self, batch):
            return {"value": torch.stack(list(super().losses(batch).values())).sum(0)}

    monkeypatch.setitem(registry(), "named", Named)
    job = small("named", seeds=(0,), steps=10)
    list(train(job, tmp_path))
    curve = pd.read_parquet(tmp_path / "runs" / job.run_ids()[0] / "curves.parquet").iloc[-1]
    assert curve["critic_value"] == Store(tmp_path).read(job.run_ids()[0])["value"]["value"] != curve["value"]


def test_a_method_without_a_critic_has_no_value(small, tmp_path):
    job = small("bc", steps=10)
    list(train(job, tmp_path))
    assert Store(tmp_path).read(job.run_ids()[0])["value"] is None
    assert not strayed(None)
