"""The small games are what the paper says of them."""

from itertools import permutations

import numpy as np
import pytest

from offmarl.experiments.studies.distances import table
from offmarl.experiments.studies.games import GAMES, RADIUS, coordination, landmarks, payoff, xor


def make(name):
    return GAMES[name](np.random.default_rng(0), 400, **({"zeta": 0.5} if name == "payoff" else {}))


@pytest.mark.parametrize("name", GAMES)
def test_data_are_episodes_of_one_joint_action_with_the_games_reward(name):
    game = make(name)
    data = game.dataset()
    assert len(data) == len(data.behaviour) == len(game.obs) == 400
    assert np.array_equal(data.actions, game.actions)
    assert np.allclose(data.rewards, game.reward(game.obs, game.actions)[:, None])
    assert data.done.all() and data.state.shape[1] == game.spec.state
    assert data.obs.shape[1:] == (game.spec.agents, game.spec.obs)


def test_the_best_of_the_coordination_game_is_rare_in_its_data():
    game = coordination(np.random.default_rng(0), 1000)
    assert table(game.actions).tolist() == [[0.05, 0.45], [0.45, 0.05]]
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert game.reward(game.obs[:4], pairs).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("zeta", [0.0, 0.25, 1.0])
def test_interaction_is_the_share_of_equal_actions(zeta):
    game = payoff(np.random.default_rng(0), 400, zeta)
    assert np.mean(game.actions[:, 0] == game.actions[:, 1]) == zeta


def test_xor_pays_opposite_signs():
    game = xor(np.random.default_rng(0), 400)
    assert (game.reward(game.obs, game.actions) >= game.good).all()
    same = np.abs(game.actions)
    assert (game.reward(game.obs, same) < 0).all()
    assert 0.4 < (game.actions[:, 0] > 0).mean() < 0.6


@pytest.mark.parametrize("agents", [2, 3, 4])
def test_landmarks_are_given_by_the_shortest_assignment(agents):
    game = landmarks(np.random.default_rng(1), 30, agents, spread=0.0)
    marks = game.obs[0, 0, 2:].reshape(agents, 2)
    assert np.allclose(np.linalg.norm(marks, axis=1), RADIUS)
    for obs in game.obs:
        ways = np.linalg.norm(obs[:, None, :2] - marks, axis=-1)
        shortest = min(permutations(range(agents)), key=lambda order: ways[np.arange(agents), list(order)].sum())
        there = marks[list(shortest)] - obs[:, :2]
        assert game.reward(obs[None], there[None])[0] == pytest.approx(0.0, abs=1e-6)
        still = game.reward(obs[None], np.zeros((1, agents, 2)))[0]
        assert still == pytest.approx(-ways[np.arange(agents), list(shortest)].mean(), abs=1e-6)
