"""Online fine-tuning: what is kept was played, every seed plays for itself, a stopped run plays the same again."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import Batch, TaskSpec
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.benchmarks.tasks import tasks
from offmarl.experiments.grid.jobs import OnlinePhase
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing.throughput import random_data
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import job_trainer
from offmarl.experiments.training.online import OnlineSampler
from offmarl.experiments.training.run import train

SPEC = TaskSpec(agents=3, obs=3, state=2, actions=4, discrete=True)
LANES = 4


@pytest.fixture
def playing(countdown):
    """Makes a method that plays the countdown in four episodes of each seed."""

    class Short(countdown):
        def reset(self, seeds):
            return super().reset(seeds % 1009)  # as float32 holds them

    def make(seeds=(3, 5), method="bc", offline=None, share=0.0, rounds=40, bootstrap=False, **settings):
        kind = registry()[method]
        algorithm = kind(SPEC, kind.Config(hidden=(16,), batch_size=8, **settings), list(seeds))
        return OnlineSampler(algorithm, [Short(LANES) for _ in seeds], rounds, (offline, share), 0.0, bootstrap)

    return make


def test_what_is_kept_is_what_was_played(playing):
    online = playing()
    for _ in range(30):
        online.play()
    for k in range(2):
        kept = {name: values[k, : online.count[k]] for name, values in online.kept.items()}
        seed, t = kept["state"].T
        assert torch.equal(kept["rewards"], (seed + t)[:, None].expand(-1, 3))  # never what comes after an end
        assert torch.equal(kept["next_state"], torch.stack([seed, t + 1], 1))
        assert torch.equal(kept["done"], (t == seed % 4).float())
        assert torch.equal(kept["obs"][:, 0, :2], kept["state"]) and kept["legal"].dtype == torch.bool
        assert kept["legal"].gather(-1, kept["actions"][..., None]).all()
        played = {(int(s), int(step)): a for s, step, a in zip(seed, t, kept["actions"])}
        assert len(played) == len(seed)  # no transition twice
        for s, step, following, done in zip(seed, t, kept["next_actions"], kept["done"]):
            after = played.get((int(s), int(step) + (not done)), following)  # of an unfinished episode: its own so far
            assert torch.equal(following, after) or (int(s), int(step) + 1) not in played
        assert len(seed.unique()) > 2 * LANES  # several waves of episodes


def test_batches_hold_every_seeds_own_transitions_uniformly(playing):
    online = playing(rounds=2000)
    batch = online.sample(2000)
    assert online.capacity >= online.count.max() >= 2000
    for k in range(2):
        assert set(batch.number[k].tolist()) <= set(range(int(online.count[k])))
        assert torch.equal(batch.rewards[k], online.kept["rewards"][k, batch.number[k]])
    assert batch.obs.shape == (2, 2000, 3, 3) and batch.window is None
    assert abs(batch.number[0].float().mean() / (online.count[0] - 1) - 0.5) < 0.03


@pytest.mark.parametrize("method", ["bc", "macql", "mac_flow", "icq", "mabcq"])
def test_a_seed_plays_the_same_in_any_company(playing, method):
    settings = {"flow_steps": 2} if method == "mac_flow" else {}
    together, alone = playing((3, 5), method, **settings), playing((5,), method, **settings)
    for online in (together, alone):
        online.sample(8)
        for _ in range(10):
            online.algorithm.update(online.sample(8))
    count = int(alone.count[0])
    assert count == together.count[1] > 20
    for name, values in alone.kept.items():
        assert torch.equal(values[0, :count], together.kept[name][1, :count]), name


def test_what_follows_the_clock_is_valued_where_the_protocol_says_so(playing):
    online = playing(bootstrap=True)
    for _ in range(30):
        online.play()
    kept = {name: values[0, : online.count[0]] for name, values in online.kept.items()}
    seed, t = kept["state"].T
    assert torch.equal(kept["done"], ((t == seed % 4) & (seed % 3 != 0)).float())
    assert ((t == seed % 4) & (seed % 3 == 0)).any()


def test_exploring_draws_and_leaves_acting_as_it_was(playing):
    """At equal observations a method that acts alike otherwise takes several actions; its own streams stand still."""
    for method in ("bc", "macql", "mac_flow"):
        algorithm = playing(method=method).algorithm
        algorithm.play = "zero"
        obs, legal = torch.ones(2, 200, 3, 3), torch.ones(2, 200, 3, 4, dtype=torch.bool)
        before = algorithm.acting.state_dict()
        with algorithm.exploring(SeedStreams([3, 5], "exploring")):
            explored = algorithm.act(obs, legal)[0]
        assert len(explored[0, :, 0].unique()) > 1, method
        assert len(algorithm.act(obs, legal)[0][0, :, 0].unique()) == 1, method
        assert all(map(torch.equal, before, algorithm.acting.state_dict()))


def test_a_softmax_draw_has_the_softmaxs_shares():
    scores = torch.tensor([0.0, 1.0, 2.0])
    drawn = (scores + SeedStreams([0], "x").gumbel(40_000, 3)).argmax(-1)[0].bincount(minlength=3)
    assert torch.allclose(drawn / 40_000, scores.softmax(0), atol=0.01)


class Offline:
    """Batches that say where they come from."""

    def sample(self, size):
        column = torch.full((2, size, 3), -1)
        state = torch.zeros(2, size, 2)
        legal = torch.ones(2, size, 3, 4, dtype=torch.bool)
        obs, done, number = torch.zeros(2, size, 3, 3), torch.zeros(2, size), torch.full((2, size), -1)
        return Batch(obs, column, column.float(), obs, done, legal, legal, state, state, column, number)


@pytest.mark.parametrize(("share", "given"), [(0.0, 0), (0.25, 2), (0.5, 4)])
def test_a_share_of_every_batch_is_the_offline_data(playing, share, given):
    batch = playing(offline=Offline(), share=share).sample(8)
    assert batch.actions.shape == (2, 8, 3)
    assert ((batch.number == -1).sum(1) == given).all()


def online_job(small, method, **over):
    job = small(method, flow_steps=2)
    phase = OnlinePhase(start=15, lanes=2, share=0.5, noise=0.0)
    return dataclasses.replace(job, protocol=dataclasses.replace(job.protocol, online=phase, **over))


@pytest.mark.parametrize("at", [12, 15, 16, 24])
def test_a_run_stopped_before_or_within_the_online_phase_ends_the_same(small, tmp_path_factory, at):
    job = online_job(small, "mac_flow")
    whole, stopped = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("stopped")
    steps = list(train(job, whole))
    assert steps == list(range(31))
    run = train(job, stopped)
    for step in run:
        if step == at:
            break
    run.close()
    again = list(train(job, stopped))
    assert again[1] == min(at, 15) + 1  # the online phase begins again where it began
    for run_id in job.run_ids():
        one, other = (Store(place).read(run_id) for place in (whole, stopped))
        assert one["evaluations"] == other["evaluations"] and one["status"] == "done"
        curves = [pd.read_parquet(place / "runs" / run_id / "curves.parquet") for place in (whole, stopped)]
        pd.testing.assert_frame_equal(*curves, check_exact=True)


def test_a_run_is_evaluated_where_its_online_phase_begins(small, tmp_path):
    job = online_job(small, "mac_flow", eval_every=20, plays=("own",))
    list(train(job, tmp_path))
    record = Store(tmp_path).read(job.run_ids()[0])
    assert [evaluation["step"] for evaluation in record["evaluations"]] == [15, 20, 30]


TINY = {"width": 8, "multipliers": [1], "norm_groups": 2, "diffusion_steps": 4, "history": 0, "horizon": 2}


@pytest.mark.parametrize(("method", "settings"), [("madiff_d", TINY), ("icq", {"td_lambda": 0.8, "lambda_steps": 3})])
def test_methods_that_need_whole_episodes_say_that_they_cannot(method, settings, small, tmp_path):
    job = small(method, **settings)
    phase = OnlinePhase(start=2, lanes=2, share=0.0, noise=0.0)
    job = dataclasses.replace(job, protocol=dataclasses.replace(job.protocol, online=phase))
    with pytest.raises(ValueError, match="whole episodes"):
        list(train(job, tmp_path))
    record = Store(tmp_path).read(job.run_ids()[0])
    assert record["status"] == "failed" and "cannot go online" in record["reason"]


def test_noise_moves_continuous_actions_within_their_range(tmp_path):
    from offmarl.benchmarks.tasks import make_env
    from offmarl.experiments.grid.jobs import Request, jobs

    overrides = {"matd3bc": {"hidden": [16]}}
    (job,) = jobs(
        Request("continuous", "smoke", algorithms=["matd3bc"], tasks=["mpe/spread:medium"], overrides=overrides)
    )
    task = tasks()[job.task]
    kept = {}
    for noise in (0.0, 0.5):
        algorithm, sampler, _ = job_trainer(dataclasses.replace(job, seeds=(0,)), random_data(task), Host())
        online = OnlineSampler(algorithm, [make_env(task, 1, 2)], 4, (sampler, 0.0), noise)
        online.play()
        kept[noise] = online.kept["actions"][0, :2].numpy()
        online.close()
    assert 0.1 < np.abs(kept[0.5] - kept[0.0]).mean() < 1.0 and np.abs(kept[0.5]).max() <= 1.0
