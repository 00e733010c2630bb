"""The small games are what the paper says of them."""

from itertools import permutations

import numpy as np
import pytest

from offmarl.experiments.studies.distances import table
from offmarl.experiments.studies.games import GAMES, RADIUS, STRIDE, coordination, landmarks, payoff, xor


def make(name):
    return GAMES[name](np.random.default_rng(0), 400, **({"zeta": 0.5} if name == "payoff" else {}))


@pytest.mark.parametrize("name", GAMES)
def test_data_are_episodes_with_the_games_reward(name):
    game = make(name)
    data, steps = game.dataset(), game.actions.shape[1]
    assert len(data.behaviour) == 400 and len(data) == 400 * steps
    assert np.array_equal(data.actions, game.actions.reshape(data.actions.shape))
    assert np.array_equal(data.obs, game.obs.reshape(data.obs.shape))
    paid = game.reward(data.obs[data.rows], data.actions)
    assert np.allclose(data.rewards, paid[:, None]) and data.rewards.shape == (len(data), game.spec.agents)
    assert np.array_equal(data.state, data.obs.reshape(len(data.obs), game.spec.state))
    assert (data.timeout if game.move else data.done).sum() == 400  # the clock ends what could go on


def test_the_best_of_the_coordination_game_is_rare_in_its_data():
    game = coordination(np.random.default_rng(0), 1000)
    assert table(game.actions[:, 0]).tolist() == [[0.05, 0.45], [0.45, 0.05]]
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert game.reward(game.obs[:4, 0], pairs).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("zeta", [0.0, 0.25, 1.0])
def test_interaction_is_the_share_of_equal_actions(zeta):
    game = payoff(np.random.default_rng(0), 400, zeta)
    assert np.mean(game.actions[..., 0] == game.actions[..., 1]) == zeta


def test_xor_pays_opposite_signs():
    game = xor(np.random.default_rng(0), 400)
    assert (game.reward(game.obs[:, :-1], game.actions) >= game.good).all()
    same = np.abs(game.actions)
    assert (game.reward(game.obs[:, :-1], same) < 0).all()
    assert 0.4 < (game.actions[:, 0, 0] > 0).mean() < 0.6


@pytest.mark.parametrize("agents", [2, 3, 4])
def test_landmarks_are_given_by_the_shortest_assignment(agents):
    game = landmarks(np.random.default_rng(1), 30, agents)
    marks = game.obs[0, 0, 0, 2:].reshape(agents, 2)
    assert np.allclose(np.linalg.norm(marks, axis=1), RADIUS)
    for obs in game.obs[:, 0]:
        ways = np.linalg.norm(obs[:, None, :2] - marks, axis=-1)
        shortest = min(permutations(range(agents)), key=lambda order: ways[np.arange(agents), list(order)].sum())
        there = (marks[list(shortest)] - obs[:, :2]) / STRIDE
        assert game.reward(obs, there) == pytest.approx(0.0, abs=1e-6)
        still = game.reward(obs, np.zeros((agents, 2)))
        assert still == pytest.approx(-ways[np.arange(agents), list(shortest)].mean(), abs=1e-6)


def test_a_move_of_the_landmark_game_leads_where_the_data_go_on():
    game = landmarks(np.random.default_rng(1), 30)
    assert np.array_equal(game.move(game.obs[:, :-1], game.actions), game.obs[:, 1:])
    assert np.allclose(game.obs[:, 1:, :, :2] - game.obs[:, :-1, :, :2], STRIDE * game.actions, atol=1e-6)
    assert np.array_equal(game.obs[..., 2:], np.broadcast_to(game.obs[:1, :1, :, 2:], game.obs[..., 2:].shape))


def test_the_landmark_games_data_go_straight_to_the_landmarks_and_stay():
    exact = landmarks(np.random.default_rng(1), 200, spread=0.0)
    places, marks = exact.obs[..., :2].astype(float), exact.obs[0, 0, 0, 2:].reshape(-1, 2)
    rewards = exact.reward(exact.obs[:, :-1], exact.actions)
    assert (np.diff(rewards) > -1e-6).all() and np.allclose(rewards[:, -1], 0.0, atol=1e-6)
    last = np.linalg.norm(places[:, -1, :, None] - marks, axis=-1)
    assert np.array_equal(np.sort(last.argmin(-1)), np.tile(np.arange(3), (200, 1)))  # all are covered
    way, whole = np.diff(places, axis=1), places[:, -1] - places[:, 0]
    assert np.allclose(np.linalg.norm(way, axis=-1).sum(1), np.linalg.norm(whole, axis=-1), atol=1e-5)
    noisy = landmarks(np.random.default_rng(1), 200)
    assert (noisy.reward(noisy.obs[:, :-1], noisy.actions)[:, -1] >= noisy.good).mean() > 0.95
