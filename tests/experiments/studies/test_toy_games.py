"""The papers' small experiments, from the command line and by their parts."""

import json

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from offmarl.algorithms import registry
from offmarl.experiments.cli import main
from offmarl.experiments.studies.games import GAMES, STRIDE
from offmarl.experiments.studies.toy_games import evaluate, play, q_total, sample, toy_games


@pytest.mark.parametrize("name", toy_games())
def test_an_experiment_ends_in_a_page_a_table_and_a_figure(name, tmp_path, capsys):
    assert main(["experiment", name, "--profile", "smoke", "--results", str(tmp_path)]) == 0
    page = (tmp_path / f"reports/experiments/{name}-smoke.md").read_text()
    assert toy_games()[name].claim in page and "**Verdict: " in page and page in capsys.readouterr().out
    image = imread(tmp_path / f"reports/experiments/{name}-smoke.png")
    assert image.shape[1] > 600 and image[..., :3].std() > 0.05
    record = json.loads((tmp_path / f"measurements/experiment/{name}-smoke.json").read_text())
    evaluations = {(row["arm"], row["setting"], row["step"], row["seed"]) for row in record["rows"]}
    study = toy_games()[name]
    assert len(evaluations) == len(record["rows"]) == len(study.arms) * len(study.variations()) * 3 * 2
    before = (tmp_path / f"reports/experiments/{name}-smoke.csv").read_text()
    assert main(["experiment", name, "--profile", "smoke", "--results", str(tmp_path)]) == 0
    assert (tmp_path / f"reports/experiments/{name}-smoke.csv").read_text() == before  # seeds decide


@pytest.fixture
def covering():
    """An untrained method and its game of landmarks."""
    game = GAMES["landmarks"](np.random.default_rng(0), 20)
    kind = registry()["mac_flow"]
    return kind(game.spec, kind.Config(hidden=(16, 16), flow_steps=3), [0, 1]), game


def test_gaps_lie_below_their_bounds_and_distances_below_the_distillation(covering):
    """Propositions 4.2 and 4.3 are theorems: they hold of any networks, trained or not."""
    method, game = covering
    for row in evaluate(method, game, 40):
        assert row["wasserstein"] <= row["distillation"] + 1e-6
        assert row["below_bound"] == 1.0
        assert all(gap <= bound for gap, bound in zip(row["gaps"], row["bounds"], strict=True))


def test_evaluations_draw_the_same_noise_each_time_and_leave_training_alone(covering):
    method, game = covering
    before = method.streams.state_dict()
    first, again = (sample(method, game.obs[:2, 0], 8) for _ in range(2))
    played = (play(method, game, "joint", 2, 8) for _ in range(2))
    assert all(np.array_equal(a, b) for pair in (zip(first, again), zip(*played)) for a, b in pair)
    assert all(torch.equal(a, b) for a, b in zip(before, method.streams.state_dict()))
    assert first[0].shape == (2, 2, 8, 3, 2)
    assert not np.array_equal(first[0][0], first[0][1])  # seeds differ


@pytest.mark.parametrize("who", ["joint", "policies"])
def test_an_episode_is_played_by_the_games_rules_from_the_datas_starts(covering, who):
    method, game = covering
    obs, rewards = play(method, game, who, 2, 8)
    assert obs.shape == (2, 2, 8, 9, *game.obs.shape[2:]) and rewards.shape == (2, 2, 8, 8)
    assert np.array_equal(obs[:, :, :, 0], np.broadcast_to(game.obs[None, :2, None, 0], obs[:, :, :, 0].shape))
    actions = np.diff(obs[..., :2], axis=3) / STRIDE
    assert np.abs(actions).max() <= 1 + 1e-5 and np.allclose(
        rewards, game.reward(obs[:, :, :, :-1], actions), atol=1e-5
    )
    first = sample(method, game.obs[:2, 0], 8)[("joint", "policies").index(who)]
    assert np.allclose(actions[:, :, :, 0], first, atol=1e-5)  # the draws of an evaluation
    assert not np.allclose(actions[:, :, :, 1], first, atol=0.1)  # and noise of its own for the next step


def test_returns_are_sums_over_the_episode_and_its_end_is_the_last_reward(covering):
    method, game = covering
    paid = {who: play(method, game, who, 6, 40)[1] for who in ("joint", "policies")}
    for seed, row in enumerate(evaluate(method, game, 40)):
        for who, rewards in paid.items():
            assert row[f"{who}_return"] == pytest.approx(8 * rewards[seed].mean())
            assert row[f"{who}_end"] == pytest.approx(rewards[seed, ..., 7].mean())
            assert row[f"{who}_best"] == np.mean(rewards[seed, ..., 7] >= -0.1)
        gaps = (paid["joint"] - paid["policies"])[seed].sum(2).mean(1)
        assert row["return_gap"] == pytest.approx(np.abs(gaps).mean())


def test_q_total_is_the_mean_of_the_agents_critics(covering):
    method, game = covering
    obs = torch.from_numpy(game.obs[:, 0]).expand(2, -1, -1, -1)
    actions = torch.from_numpy(game.actions[:, 0]).expand(2, -1, -1, -1)
    members = method.nets["critic"](obs, actions)[..., 0]  # [S, 2, B, I]
    assert torch.allclose(q_total(method, obs, actions), members.mean(3).mean(1))


@pytest.mark.parametrize("words", [["fig99"], ["fig3", "--profile", "quik"], ["fig3", "--threads", "0"]])
def test_wrong_words_are_refused(words, tmp_path, capsys):
    assert main(["experiment", *words, "--results", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
