"""The robots' behaviour policies: networks, what is chosen from a training, the training, and the committed files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from offmarl.benchmarks.env import Step, View
from offmarl.benchmarks.mamujoco import ROBOTS, MaMujocoEnv
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.embedded import actors as behaviours
from offmarl.datasets.embedded import train_mujoco
from offmarl.datasets.embedded.mujoco_policies import LEVEL, REPLAY, Moments, Pilot, Snapshot, choose, forward
from offmarl.datasets.embedded.recipes import Training, catalogue
from offmarl.datasets.embedded.train_mujoco import EXPLORATION, Learner, Played, play, ppo

QUALITIES = ("expert", "medium", "medium-replay")


def task(name):
    return tasks()[f"mamujoco/{name}"]


def weights(seed, networks, *sizes):
    rng = np.random.default_rng(seed)
    layers = [((networks, n, k), (networks, k)) for n, k in zip(sizes, sizes[1:])]
    return [rng.normal(size=shape) for layer in layers for shape in layer]


def recipe(name, quality):
    return catalogue()[f"mamujoco/{name}", quality]


def snapshot(score, spread=0.0, steps=0):
    return Snapshot(steps, score, spread, weights(0, 1, 11, 3))


# Networks.


def test_every_network_reads_and_drives_its_own_part_in_numpy_and_in_torch():
    w, x = weights(0, 2, 6, 5, 3), np.random.default_rng(1).normal(size=(7, 2, 6))
    out = forward(w, x)
    for j in range(2):
        assert out[:, j] == pytest.approx(np.tanh(x[:, j] @ w[0][j] + w[1][j]) @ w[2][j] + w[3][j])
    theirs = forward([torch.from_numpy(t) for t in w], torch.from_numpy(x), torch.tanh)
    assert theirs.numpy() == pytest.approx(out)


def test_one_network_drives_all_agents_from_the_raw_state_in_their_order():
    state = np.random.default_rng(0).normal(size=(4, 111)).astype(np.float32)
    view = View(np.zeros((4, 2, 113), np.float32), state, None)
    w = [0.1 * t for t in weights(1, 1, 27, 8)]
    action = Pilot(w, noise=0.0)(view, np.random.default_rng(0))
    assert action.reshape(4, 8) == pytest.approx(np.clip(state[:, :27] @ w[0][0] + w[1][0], -1, 1), abs=1e-5)


def test_noise_is_gaussian_and_independent_between_agents_and_actions_stay_in_range():
    view = View(np.zeros((5000, 6, 23), np.float32), np.zeros((5000, 17), np.float32), None)
    quiet = [np.zeros((1, 17, 6)), np.zeros((1, 6))]
    action = Pilot(quiet, noise=0.1)(view, np.random.default_rng(0))[..., 0]
    assert action.dtype == np.float32
    assert action.std(0) == pytest.approx(0.1, rel=0.05)
    assert np.abs(np.corrcoef(action.T) - np.eye(6)).max() < 0.06
    loud = Pilot([*quiet[:1], np.full((1, 6), 0.95)], noise=0.1)(view, np.random.default_rng(0))
    assert loud.max() == 1.0


def test_a_mean_far_outside_the_range_still_gets_half_of_the_noise():
    view = View(np.zeros((5000, 2, 8), np.float32), np.zeros((5000, 6), np.float32), None)
    far = Pilot([np.zeros((1, 6, 2)), np.array([[-7.0, 7.0]])], noise=0.2)
    inside = 1 - np.abs(far(view, np.random.default_rng(0)))
    assert (inside > 0).mean() == pytest.approx(0.5, abs=0.03)
    assert np.sqrt(np.square(inside).mean()) == pytest.approx(0.2 / 2**0.5, rel=0.05)


def test_moments_grow_row_by_row_and_fold_into_the_first_layer():
    rows = np.random.default_rng(0).normal(3.0, [[0.5, 2.0], [1.0, 7.0]], (400, 2, 2))
    moments = Moments(rows[:50])
    moments.add(rows[50:170])
    moments.add(rows[170:])
    assert moments.mean == pytest.approx(rows.mean(0))
    assert moments.var == pytest.approx(rows.var(0))
    w, b = weights(0, 2, 2, 3)
    assert forward(moments.fold(w, b), rows) == pytest.approx(forward([w, b], moments.normal(rows)), abs=1e-5)


# What is chosen.


def test_a_level_has_the_mean_and_spread_asked_for_and_mixes_runs():
    runs = [[snapshot(100.0 * k, 50.0) for k in range(30)], [snapshot(100.0 * k + 30, 50.0) for k in range(25)]]
    for mean, spread in ((1500, 600), (700, 60)):
        chosen = choose(runs, (mean, spread), replay=False)
        scores = np.array([s.score for _, s in chosen])
        assert len(chosen) == LEVEL
        assert {r for r, _ in chosen} == {0, 1}
        assert scores.mean() == pytest.approx(mean, abs=40)
        assert np.hypot(scores.std(), 50) == pytest.approx(spread, abs=60)


def test_a_level_out_of_reach_is_made_of_the_best():
    chosen = choose([[snapshot(10.0 * k) for k in range(90)]], (5000, 0), replay=False)
    assert min(s.score for _, s in chosen) >= 800


def test_replay_runs_from_the_first_snapshot_to_where_the_mixture_fits():
    runs = [[snapshot(100.0 * k, steps=k) for k in range(40)], [snapshot(0.0, steps=k) for k in range(40)]]
    first = [s for r, s in choose(runs, (800, 500), replay=True) if r == 0]
    assert len(first) == REPLAY
    assert first[0].steps == 0
    assert 15 <= first[-1].steps <= 18
    gaps = np.diff([s.steps for s in first])
    assert gaps.max() - gaps.min() <= 1


# Training.


@pytest.mark.parametrize(("name", "steps"), [("2ant", 400), ("2halfcheetah", 400)])
def test_the_same_seeds_train_the_same_policies_into_a_file_that_loads(name, steps, tmp_path, monkeypatch):
    for constant, value in dict(EPISODES=1, SNAPSHOTS=9, BATCH=32, EPOCHS=1).items():
        monkeypatch.setattr(train_mujoco, constant, value)
    short = replace(task(name), limit=10)
    targets = dict.fromkeys(QUALITIES, (0.0, 1.0))
    monkeypatch.setattr(behaviours, "path", lambda *_: tmp_path / "0.npz")
    for k in range(2):
        chosen = train_mujoco.train_behaviours(
            short, targets, Training(runs=2, steps=steps, noise=0.1), tmp_path / f"{k}.npz"
        )
    one, other = (np.load(tmp_path / f"{k}.npz") for k in range(2))
    assert all(np.array_equal(one[field], other[field]) for field in one.files)
    assert len(chosen["medium-replay"]) == 2 * REPLAY
    assert chosen["medium-replay"][0][:2] != chosen["medium-replay"][REPLAY - 1][:2]
    view = MaMujocoEnv(short, 3).reset(np.arange(3))
    for pilot in recipe(name, "expert").team():
        assert pilot(view, np.random.default_rng(0)).shape == (3, short.agents, short.actions)


@pytest.mark.parametrize(("updates", "expected"), [(2, EXPLORATION), (3, 0.2)])
def test_training_starts_with_more_noise_and_ends_with_that_of_its_budget(monkeypatch, updates, expected):
    for constant, value in dict(LEARNING_RATE=0.0, BATCH=32, EPOCHS=1).items():
        monkeypatch.setattr(train_mujoco, constant, value)
    seen = []
    monkeypatch.setattr(train_mujoco, "play", lambda *args: seen.append(play(*args)) or seen[-1])
    policies = ppo(replace(task("2ant"), limit=20), 0, Training(runs=1, steps=32, noise=0.2))
    for _ in range(updates):
        next(policies)
    around_zero = seen[-1].action[seen[-1].live]  # untrained policies do almost nothing
    assert around_zero.std() == pytest.approx(expected, rel=0.1)


class Bullseye:
    """Two lanes of twenty steps that pay for actions near .5; a stand-in for a robot."""

    lanes = 2

    def __init__(self, task):
        self.task, self.rng = task, np.random.default_rng(0)

    def reset(self, seeds):
        self.clock = 0
        return self.view()

    def view(self):
        seen = self.rng.normal(size=(2, 111)).astype(np.float32)
        return View(np.zeros((2, 2, 113), np.float32), seen, None)

    def step(self, actions):
        self.clock += 1
        over = np.full(2, self.clock >= 20)
        return Step(self.view(), -np.square(actions - 0.5).sum((1, 2)), over, over, None)


def test_training_finds_the_actions_that_pay(monkeypatch):
    for constant, value in dict(LEARNING_RATE=0.01, BATCH=400, EPOCHS=4, GAMMA=0.0).items():
        monkeypatch.setattr(train_mujoco, constant, value)
    learner = Learner(task("2ant"), 0)
    learner.env = Bullseye(task("2ant"))

    def mode():
        return Pilot(learner.weights(), 0.0)(learner.env.reset(None), np.random.default_rng(0)).mean()

    assert mode() == pytest.approx(0.0, abs=0.05)
    for _ in range(20):
        learner.update()
    assert 0.2 < mode() < 0.8


def test_advantages_end_at_falls_and_look_past_timeouts():
    learner = Learner(task("2ant"), 0)
    with torch.no_grad():
        for parameter in learner.critic:
            parameter.zero_()
        learner.critic[-1].fill_(2.0)  # every state is worth 2
    live = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)  # lanes 0 and 1 last two steps, the others one
    view = View(None, np.zeros((3, 4, 111), np.float32), None)
    reward = np.ones((2, 4), np.float32)
    played = Played(view, None, reward, live, np.array([False, True, False, True]))
    r, g, l = train_mujoco.REWARD_SCALE, train_mujoco.GAMMA, train_mujoco.LAMBDA
    fell, late = r - 2, r + g * 2 - 2
    expected = [late + g * l * fell, late + g * l * late, fell, late, fell, late]
    assert learner._advantage(played) == pytest.approx(expected, abs=1e-6)


# The committed files.


@pytest.mark.parametrize("name", list(ROBOTS))
def test_the_committed_file_is_small_and_complete(name):
    file = behaviours.path(task(name), "embedded")
    assert file.stat().st_size < 400_000
    with np.load(file, allow_pickle=False) as stored:
        card = json.loads(str(stored["card"]))
        assert all(np.isfinite(stored[field]).all() for field in stored.files if field != "card")
    assert set(card) == set(QUALITIES)
    assert len({(entry["run"], entry["steps"]) for entry in card["medium-replay"]}) >= REPLAY // 2
    score = {q: np.mean([entry["score"] for entry in card[q]]) for q in QUALITIES}
    assert score["medium-replay"] < score["expert"] > score["medium"]


@pytest.mark.parametrize("name", list(ROBOTS))
def test_a_committed_policy_scores_as_its_card_says(name):
    card = json.loads(str(np.load(behaviours.path(task(name), "embedded"))["card"]))["expert"]
    best = int(np.argmax([entry["score"] for entry in card]))
    pilot, rng = recipe(name, "expert").team()[best], np.random.default_rng(0)
    played = play(MaMujocoEnv(task(name), 4), lambda view: pilot(view, rng), 900 + np.arange(4))
    returns = (played.reward * played.live).sum(0)
    assert np.median(returns) == pytest.approx(card[best]["score"], rel=0.3)


# What is recorded.


@pytest.mark.parametrize("name", list(ROBOTS))
def test_a_recording_has_the_noise_of_the_training_around_every_policy_and_no_more_bytes_than_said(name):
    noise = recipe(name, "medium").training.noise
    assert noise >= 0.1
    short = replace(task(name), limit=100)
    some = replace(recipe(name, "medium"), task=short, episodes=8, lanes=8)
    data = some.record(lambda _: None)
    assert sum(array.nbytes for array in data.arrays().values()) <= some.disk()
    for k, pilot in enumerate(recipe(name, "medium").team()):
        rows = data.behaviour[data.episode] == k
        view = View(data.obs[data.rows[rows]], data.state[data.rows[rows]], None)
        mode = Pilot(pilot.weights, 0.0)(view, np.random.default_rng(0))
        around = np.sqrt(np.square(data.actions[rows] - mode).mean((0, 1, 2)))
        assert 0.7 * noise < around < 1.05 * noise
        assert np.abs(data.actions[rows]).max() <= 1


@pytest.mark.parametrize(
    ("name", "quality"), [*(("3hopper", quality) for quality in QUALITIES), ("2ant", "expert"), ("2ant", "medium")]
)
def test_a_dataset_of_a_robot_that_falls_still_has_200000_transitions(name, quality):
    whole = recipe(name, quality)
    episodes = 8
    data = replace(whole, episodes=episodes, lanes=episodes).record(lambda _: None)
    assert len(data) / episodes * whole.episodes > 150_000  # a few episodes tell no more


def test_a_dataset_joined_in_full_counts_the_episodes_of_both():
    parts = [recipe("3hopper", quality) for quality in ("medium", "expert")]
    joined = recipe("3hopper", "medium-expert")
    assert joined.work == sum(part.work for part in parts)
    assert joined.disk() == sum(part.disk() for part in parts)
    assert recipe("2halfcheetah", "medium-expert").work == recipe("2halfcheetah", "medium").work


@pytest.mark.parametrize("name", ["2halfcheetah", "6halfcheetah"])
def test_a_dataset_of_a_robot_that_never_falls_has_200000_transitions(name):
    for quality in QUALITIES:
        assert recipe(name, quality).episodes * task(name).limit >= 200_000
