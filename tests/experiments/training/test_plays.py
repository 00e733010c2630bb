"""Plays: the same trained networks, played by the method's own sampling and without noise."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from offmarl.algorithms.madiff_d import MADiffD
from offmarl.algorithms.parts import planner
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.benchmarks.rollout import evaluate
from offmarl.experiments.commands.exchange import episodes, marl_eval
from offmarl.experiments.grid.jobs import stored_hash, stored_job
from offmarl.experiments.store.compare import outcome
from offmarl.experiments.store.loggers import scalars
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import build
from offmarl.experiments.training.policy import load_policy
from offmarl.experiments.training.run import Run, train
from offmarl.reports.records.schema import by_play


@pytest.fixture(scope="module")
def played(small, tmp_path_factory):
    """A job of MAC-Flow, its store, and the record of its first seed."""
    job, store = small("mac_flow", flow_steps=2), Store(tmp_path_factory.mktemp("plays"))
    list(train(job, store.root))
    return job, store, store.read(job.run_ids()[0])


def test_both_plays_are_of_the_networks_that_are_stored(played, battles):
    job, store, record = played
    found = by_play(record)
    assert list(found) == ["own", "zero"] == record["protocol"]["plays"]
    assert [[look["step"] for look in looks] for looks in found.values()] == [[10, 20, 30], [30]]
    method = build(job, job.seeds[:1], "cpu")
    method.load_nets(torch.load(store.runs / job.run_ids()[0] / "checkpoint.pt", weights_only=True))
    replayed = {}
    for play in found:
        method.play = play
        replayed[play] = evaluate(method, battles, [0])[0].returns[:32]
    assert replayed["zero"] == found["zero"][-1]["returns"]  # it draws nothing
    assert replayed["own"] != replayed["zero"] and found["own"][-1]["returns"] != found["zero"][-1]["returns"]


def test_playing_without_noise_changes_nothing_else(small, played, tmp_path):
    """What a run of its own sampling alone would have stored is the same to the bit."""
    job, store, _ = played
    alone = dataclasses.replace(job, protocol=dataclasses.replace(job.protocol, plays=("own",)))
    list(train(alone, tmp_path))
    one, other = outcome(store, job.run_ids()[0]), outcome(Store(tmp_path), alone.run_ids()[0])
    assert set(other["returns"]) == {f"step {step}, own" for step in (10, 20, 30)} < set(one["returns"])
    for part in ("returns", "curves", "weights"):
        for name, values in other[part].items():
            assert np.array_equal(one[part][name], values, equal_nan=True), name


def test_what_draws_nothing_is_played_once(small, battles, tmp_path):
    job = small("macql")
    run, waves = Run(job, Store(tmp_path), Host()), []
    reset, run.step = run.look.env.reset, job.protocol.steps
    run.look.env.reset = lambda seeds: (waves.append(len(seeds)), reset(seeds))[1]
    list(run.evaluate())
    (_, one, own), (_, other, zero) = run.evaluations
    assert ([one, other], len(waves), own) == (["own", "zero"], 1, zero)
    run.algorithm.play = "zero"
    assert evaluate(run.algorithm, run.look.env, list(job.seeds)) == zero


def test_every_program_is_told_the_play(played):
    _, store, record = played
    frame = episodes([record])
    assert frame.groupby("play")["return"].count().to_dict() == {"own": 96, "zero": 32}
    last = frame[(frame.play == "zero") & (frame.step == 30)]["return"].tolist()
    assert last == by_play(record)["zero"][-1]["returns"]
    nested = marl_eval([record])["smac-embedded"]["3m-good"]
    assert set(nested) == {"mac_flow-paper", "mac_flow-paper-zero"}
    assert nested["mac_flow-paper-zero"]["seed_0"]["absolute_metrics"]["return"] == last
    told = {name for _, name, _ in scalars(record, store.runs / record["run_id"])}
    assert {"evaluation/return", "evaluation_zero/return"} <= told


def test_an_older_run_is_read_in_the_play_that_its_noise_was(played, tmp_path):
    """Before, the noise was a setting of the method, and an evaluation named no play."""
    job, store, record = played
    for noise, play in (("zero", "zero"), ("fresh", "own")):
        old = json.loads(json.dumps(record))
        old["config"]["eval_noise"] = old["protocol"]["eval_noise"] = noise
        del old["protocol"]["plays"]
        old["evaluations"] = [{k: v for k, v in one.items() if k != "play"} for one in old["evaluations"][:1]]
        old["config_hash"] = stored_hash(old)
        assert stored_job(old, [0]).protocol.plays == (play,) and stored_job(old, [0]).config == job.config
        old["run_id"] = job.cells()[0].run_id(old["config_hash"])
        weights = (store.runs / record["run_id"] / "checkpoint.pt").read_bytes()
        place = Store(tmp_path).write(job.cells()[0], old, pd.DataFrame([{"step": 30}]), weights)
        assert [one["play"] for one in Store(tmp_path).read(old["run_id"])["evaluations"]] == [play]
        assert load_policy(place, job.entry.task).play == play


def test_madiff_starts_its_own_play_at_half_a_deviation_and_zero_at_none(monkeypatch):
    starts = []

    def denoise(chain, predict, noise, fix):
        starts.append(noise(len(chain.time)))
        return fix(starts[-1])

    monkeypatch.setattr(planner, "denoise", denoise)
    tiny = {"hidden": (16,), "width": 8, "multipliers": (1,), "norm_groups": 2, "history": 0, "horizon": 2}
    method = MADiffD(TaskSpec(3, 5, 7, 4, True), MADiffD.Config(diffusion_steps=4, **tiny), [3, 5])
    obs, legal = torch.randn(2, 400, 3, 5), torch.ones(2, 400, 3, 4, dtype=torch.bool)
    for play in ("own", "zero"):
        method.play = play
        method.act(obs, legal)
    assert starts[0].std() == pytest.approx(0.5, abs=0.01) and abs(starts[0].mean()) < 0.01
    assert (starts[1] == 0).all()
    assert method.acting_rule() == "normal noise, its start times 0.5"
