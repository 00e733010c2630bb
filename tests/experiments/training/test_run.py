"""Training thirty updates: complete runs, bit-exact continuation, failures as records."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.benchmarks.rollout import evaluate
from offmarl.benchmarks.smax.env import SmaxEnv
from offmarl.datasets.embedded import recipes as embedded
from offmarl.experiments.grid.jobs import pending
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store.store import Store
from offmarl.experiments.training import run as training
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import build
from offmarl.experiments.training.run import train

STOCHASTIC = {"flow_steps": 2}  # it draws when it trains and when it acts


def finish(job, results):
    """Train to the end; the steps that were told."""
    return list(train(job, results))


def interrupt(job, results, at):
    """Train and stop at this step."""
    run = train(job, results)
    for step in run:
        if step == at:
            break
    run.close()


def outcome(results, run_id):
    """All of a run that must not depend on how often it was interrupted."""
    place = results / "runs" / run_id
    record = Store(results).read(run_id)
    curves = pd.read_parquet(place / "curves.parquet")
    return record["evaluations"], curves, torch.load(place / "checkpoint.pt", weights_only=True)


def assert_equal(one, other):
    assert one[0] == other[0]
    pd.testing.assert_frame_equal(one[1], other[1], check_exact=True)
    assert one[2].keys() == other[2].keys()
    assert all(torch.equal(value, other[2][name]) for name, value in one[2].items())


@pytest.fixture(scope="module")
def job(small):
    return small("mac_flow", **STOCHASTIC)


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    """The results of the job without an interruption, and what it told."""
    results = tmp_path_factory.mktemp("whole")
    return results, finish(job, results)


# Runs.


def test_every_seed_leaves_a_complete_run(whole, job, complete):
    records = complete(whole[0])
    assert set(records) == set(job.run_ids())
    for seed, run_id in zip(job.seeds, job.run_ids()):
        record = records[run_id]
        assert (record["status"], record["reason"]) == ("done", None)
        assert record["cell"]["seed"] == seed
        assert (record["config_hash"], record["protocol"]["steps"]) == (job.hash, 30)
        assert record["config"] == {**dataclasses.asdict(job.config), "hidden": [16]}
        assert record["algorithm"]["name"] == "mac_flow"
        assert record["algorithm"]["actions"] == ["continuous", "discrete"]
        assert record["algorithm"]["nfe"] == 1 and record["algorithm"]["parameters"] > 0
        assert record["engine"]["engine"] == "SMAX"
        assert record["dataset"]["episodes"] == 12 and len(record["dataset"]["sha256"]) == 64
        assert record["latency"]["joint_ms"] >= record["latency"]["min_ms"] > 0
        assert record["time"]["seeds_together"] == 2
        assert min(record["time"][part] for part in ("data_s", "update_s", "evaluate_s")) > 0
        assert record["memory_mb"] > 0
        assert record["started"] < record["finished"]
        assert record["machine"]["torch"] == torch.__version__
        assert record["code"]["version"]


@pytest.mark.parametrize(("play", "steps"), [("own", [10, 20, 30]), ("zero", [30])])
def test_every_evaluation_keeps_every_episode(whole, job, play, steps):
    for run_id in job.run_ids():
        evaluations = Store(whole[0]).read(run_id)["evaluations"]
        assert [row["step"] for row in evaluations if row["play"] == play] == steps
        for row in evaluations:
            assert len(row["returns"]) == len(row["won"]) == len(row["lengths"]) == 32
            assert all(0 <= value <= 20 + 1e-4 for value in row["returns"])
            assert all((value == pytest.approx(20, abs=1e-3)) == won for value, won in zip(row["returns"], row["won"]))


@pytest.mark.parametrize(("at", "plays"), [(10, 1), (30, 2)])
def test_a_run_stopped_between_two_waves_plays_the_evaluation_again(job, tmp_path, monkeypatch, at, plays):
    monkeypatch.setattr(SmaxEnv, "episodes_at_once", 16, raising=False)
    assert finish(job, tmp_path / "whole").count(at) == 1 + plays  # the update, and a wave of each play on the way
    interrupt(job, tmp_path / "stopped", at)
    assert not list((tmp_path / "stopped/runs").glob("[!.]*"))
    finish(job, tmp_path / "stopped")
    for run_id in job.run_ids():
        assert_equal(outcome(tmp_path / "stopped", run_id), outcome(tmp_path / "whole", run_id))


def test_an_evaluation_lies_at_the_end_even_off_the_beat(small, tmp_path):
    job = small(steps=25)
    finish(job, tmp_path)
    record = Store(tmp_path).read(job.run_ids()[0])
    steps = [(row["step"], row["play"]) for row in record["evaluations"]]
    assert steps == [(10, "own"), (20, "own"), (25, "own"), (25, "zero")]


def test_curves_have_the_loss_of_every_kept_step_and_seed(whole, job):
    curves = [outcome(whole[0], run_id)[1] for run_id in job.run_ids()]
    for curve in curves:
        assert curve["step"].tolist() == list(range(1, 31))
        assert np.isfinite(curve.drop(columns=["critic_value", "data_value"]).to_numpy()).all()
        assert len(curve.columns) >= 3
    assert not curves[0].equals(curves[1])


def test_long_runs_keep_a_hundred_points(small, tmp_path):
    job = small(steps=250)
    job = dataclasses.replace(job, protocol=dataclasses.replace(job.protocol, eval_every=250))
    finish(job, tmp_path)
    steps = outcome(tmp_path, job.run_ids()[0])[1]["step"]
    assert len(steps) == 125 and steps.tolist() == list(range(2, 251, 2))


def test_progress_is_told_after_every_update(whole):
    assert whole[1] == list(range(31))


def test_nothing_unfinished_is_left(whole):
    assert list((whole[0] / "work").glob("*")) == []


def test_training_changes_the_method(small, tmp_path):
    job = small()
    finish(job, tmp_path)
    fresh = build(job, job.seeds, "cpu").seed_state(0)
    trained = outcome(tmp_path, job.run_ids()[0])[2]
    assert fresh.keys() == trained.keys()
    assert any(not torch.equal(fresh[name], trained[name]) for name in fresh)
    curve = outcome(tmp_path, job.run_ids()[0])[1]["policy"]
    assert curve[-5:].mean() < curve[:5].mean()


def test_a_checkpoint_is_the_method_that_was_evaluated(small, tmp_path, battles):
    job = small(act_by="argmax")  # it decides without drawing
    finish(job, tmp_path)
    for seed, run_id in zip(job.seeds, job.run_ids()):
        evaluations, _, nets = outcome(tmp_path, run_id)
        method = build(job, [seed], "cpu")
        method.load_nets(nets)
        replayed = evaluate(method, battles, [seed])[0]
        assert replayed.returns[:32] == evaluations[-1]["returns"]
        assert replayed.lengths[:32] == evaluations[-1]["lengths"]


def test_a_seed_learns_the_same_alone_and_among_others(small, tmp_path):
    job = small()
    alone = small(seeds=(1,))
    finish(job, tmp_path / "together"), finish(alone, tmp_path / "alone")
    together_curve = outcome(tmp_path / "together", job.run_ids()[1])[1]
    alone_curve = outcome(tmp_path / "alone", alone.run_ids()[0])[1]
    np.testing.assert_allclose(together_curve, alone_curve, rtol=1e-4, atol=1e-5)


def test_the_same_job_gives_the_same_run(whole, job, tmp_path):
    finish(job, tmp_path)
    for run_id in job.run_ids():
        assert_equal(outcome(tmp_path, run_id), outcome(whole[0], run_id))


# Interruption.


@pytest.mark.parametrize("stops", [[11], [10], [1], [30], [4, 17, 29]])
def test_an_interrupted_run_continues_bit_for_bit(whole, job, tmp_path, stops):
    for stop in stops:
        interrupt(job, tmp_path, stop)
        assert len(list((tmp_path / "work").glob("*.pt"))) == 1
        assert not (tmp_path / "runs").exists()
    told = finish(job, tmp_path)
    assert told[1:] == list(range(stops[-1] + 1, 31))
    for run_id in job.run_ids():
        assert_equal(outcome(tmp_path, run_id), outcome(whole[0], run_id))
    assert list((tmp_path / "work").glob("*")) == []


def test_a_run_that_never_began_leaves_nothing(job, tmp_path):
    interrupt(job, tmp_path, 0)
    assert list(tmp_path.rglob("*.pt")) == []


def stopping(method, monkeypatch, function, call):
    """Ctrl-C at this call of a method's function, once."""
    cls, calls = registry()[method], []

    def stopped(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return getattr(cls, function)(self, *args, **kwargs)

    monkeypatch.setitem(registry(), method, type(cls.__name__, (cls,), {function: stopped, "name": method}))


@pytest.mark.parametrize(
    ("function", "call"),
    [("losses", 12), ("after_update", 12), ("act", 5), ("act", 80)],
    ids=["before an update", "after an update", "in the first evaluation", "in the second evaluation"],
)
def test_a_run_stopped_by_hand_anywhere_continues_bit_for_bit(whole, job, tmp_path, monkeypatch, function, call):
    stopping("mac_flow", monkeypatch, function, call)
    with pytest.raises(KeyboardInterrupt):
        finish(job, tmp_path)
    finish(job, tmp_path)
    for run_id in job.run_ids():
        assert_equal(outcome(tmp_path, run_id), outcome(whole[0], run_id))


def test_a_run_stopped_by_hand_in_its_last_evaluation_still_has_one(small, tmp_path, monkeypatch):
    job = small(steps=10)
    stopping("bc", monkeypatch, "act", 5)
    with pytest.raises(KeyboardInterrupt):
        finish(job, tmp_path)
    finish(job, tmp_path)
    for run_id in job.run_ids():
        assert [row["step"] for row in Store(tmp_path).read(run_id)["evaluations"]] == [10, 10]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"nonsense"])
def test_a_damaged_checkpoint_means_starting_again(whole, job, tmp_path, damage):
    interrupt(job, tmp_path, 11)
    (file,) = (tmp_path / "work").glob("*.pt")
    file.write_bytes(damage(file.read_bytes()))
    assert finish(job, tmp_path)[1] == 1
    for run_id in job.run_ids():
        assert_equal(outcome(tmp_path, run_id), outcome(whole[0], run_id))


def test_the_leftover_of_other_seeds_is_not_continued(small, tmp_path):
    interrupt(small(seeds=(0, 1)), tmp_path / "reused", 11)
    other = small(seeds=(0, 2))
    finish(other, tmp_path / "reused")
    finish(other, tmp_path / "clean")
    for run_id in other.run_ids():
        assert_equal(outcome(tmp_path / "reused", run_id), outcome(tmp_path / "clean", run_id))


def test_checkpoints_are_written_on_the_way(job, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)  # after every update
    run = train(job, tmp_path)
    for step in run:
        if step == 7:
            break
    (file,) = (tmp_path / "work").glob("*.pt")
    assert torch.load(file, weights_only=True)["step"] == 7
    run.close()


# Failures.


def test_a_failing_job_becomes_a_record_that_says_why(small, explosive, tmp_path):
    job = small(explosive)
    with pytest.raises(FloatingPointError):
        finish(job, tmp_path)
    for run_id in job.run_ids():
        record = Store(tmp_path).read(run_id)
        assert record["status"] == "failed"
        assert record["reason"] == "FloatingPointError: the loss is not finite"
        assert "in losses" in record["traceback"]
        assert record["config"]["hidden"] == [16]
        assert record["evaluations"] == []


def test_a_job_whose_data_cannot_be_made_is_a_failed_record(small, tmp_path, monkeypatch):
    job = small()
    recipe = embedded.catalogue()["smac/3m", "good"]
    broken = dataclasses.replace(recipe, behaviours=[{"lanes": 1}])
    monkeypatch.setitem(embedded.catalogue(), ("smac/3m", "good"), broken)
    with pytest.raises(TypeError):
        finish(job, tmp_path)
    record = Store(tmp_path).read(job.run_ids()[1])
    assert record["status"] == "failed"
    assert record["reason"].startswith("TypeError: ") and "lanes" in record["reason"]


def test_one_failure_does_not_stop_the_others(small, explosive, tmp_path, capsys):
    grid = [small(explosive), small()]
    failures = run_serial(grid, tmp_path, Host())
    assert len(failures) == 1
    assert failures[0] == "3m:good explosive: FloatingPointError: the loss is not finite"
    store = Store(tmp_path)
    assert [store.status(run_id) for job in grid for run_id in job.run_ids()] == ["failed"] * 2 + ["done"] * 2
    said = capsys.readouterr().err
    assert "[2/4] 3m:good explosive failed: FloatingPointError" in said
    assert "[4/4] 3m:good bc done" in said


def test_a_second_start_replaces_a_failure(small, explosive, tmp_path, monkeypatch):
    job = small(explosive)
    run_serial([job], tmp_path, Host())
    monkeypatch.setitem(registry(), explosive, registry()["bc"])  # mended
    assert pending([job], Store(tmp_path)) == [job]
    assert run_serial([job], tmp_path, Host()) == []
    assert [Store(tmp_path).status(run_id) for run_id in job.run_ids()] == ["done"] * 2
    assert pending([job], Store(tmp_path)) == []


# Divergence.


def test_a_critic_that_runs_away_ends_its_run_as_diverged_with_the_step(small, tmp_path):
    job = small("macql", learning_rate=1e6)
    told = finish(job, tmp_path)
    assert told[-1] < 30  # no use in going on
    for run_id in job.run_ids():
        record = Store(tmp_path).read(run_id)
        assert record["status"] == "diverged"
        assert re.fullmatch(r"(\|Q\| is .*|.* is (nan|inf)) at step \d+(, more than .*)?", record["reason"])
    assert pending([job], Store(tmp_path)) == []  # the same again would come of it


@pytest.fixture
def half_lost(monkeypatch):
    """BC whose first seed turns into NaN at the fourth update; its name."""

    def losses(self, batch):
        lost = torch.tensor([float("nan") if s == 0 and self.updates >= 4 else 1.0 for s in self.seeds])
        return {name: value * lost for name, value in registry()["bc"].losses(self, batch).items()}

    bc = registry()["bc"]
    monkeypatch.setitem(registry(), "half_lost", type("HalfLost", (bc,), {"losses": losses, "name": "half_lost"}))
    return "half_lost"


def test_a_seed_that_diverges_leaves_the_others_alone(small, half_lost, tmp_path):
    job, alone = small(half_lost), small(half_lost, seeds=(1,))
    assert finish(job, tmp_path / "both")[-1] == 30
    finish(alone, tmp_path / "alone")
    lost, kept = job.run_ids()
    assert Store(tmp_path / "both").read(lost)["reason"] == "policy is nan at step 4"
    assert Store(tmp_path / "both").read(kept)["status"] == "done"
    nets, others = outcome(tmp_path / "both", kept)[2], outcome(tmp_path / "alone", alone.run_ids()[0])[2]
    assert all(torch.allclose(nets[name], others[name], rtol=1e-5, atol=2e-6) for name in others)


def test_a_divergence_survives_an_interruption(small, half_lost, tmp_path):
    job = small(half_lost)
    interrupt(job, tmp_path, 11)
    finish(job, tmp_path)
    assert [Store(tmp_path).status(run_id) for run_id in job.run_ids()] == ["diverged", "done"]
    assert Store(tmp_path).read(job.run_ids()[0])["reason"] == "policy is nan at step 4"


def test_a_seed_that_was_stored_before_its_job_failed_keeps_its_result(job, whole, tmp_path, monkeypatch):
    write, written = Store.write, []

    def full(self, cell, record, *files):
        if record["status"] == "done" and written:
            raise OSError(28, "No space left on device")
        written.append(cell.seed)
        return write(self, cell, record, *files)

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(OSError):
        finish(job, tmp_path)
    assert [Store(tmp_path).status(run_id) for run_id in job.run_ids()] == ["done", "failed"]
    assert_equal(outcome(tmp_path, job.run_ids()[0]), outcome(whole[0], job.run_ids()[0]))


def test_where_no_reward_is_paid_no_value_is_too_large(small, tmp_path, monkeypatch):
    real = training.load

    def unpaid(entry):
        data, card = real(entry)
        return dataclasses.replace(data, rewards=0 * data.rewards), card

    monkeypatch.setattr(training, "load", unpaid)
    job = small("macql")
    finish(job, tmp_path)
    assert {Store(tmp_path).read(run_id)["status"] for run_id in job.run_ids()} == {"done"}
