"""Distances between samples against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offmarl.experiments.studies.distances import (
    mutual_information,
    table,
    table_correlation,
    table_information,
    wasserstein,
)
from offmarl.experiments.studies.games import payoff


def test_a_shifted_sample_is_as_far_as_it_was_shifted():
    points = np.random.default_rng(0).normal(size=(60, 3))
    shift = np.array([1.0, -2.0, 2.0])
    assert wasserstein(points, points[::-1] + shift) == pytest.approx(3.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 12))
def test_no_pairing_is_shorter(seed, size):
    """A metric: zero for itself, symmetric, below the distance of any other pairing (Proposition 4.2 rests on it)."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, size, 2))
    distance = wasserstein(one, other)
    assert wasserstein(one, rng.permutation(one)) == pytest.approx(0.0, abs=1e-9)
    assert wasserstein(other, one) == pytest.approx(distance)
    for _ in range(5):
        assert distance <= np.sqrt(np.square(one - rng.permutation(other)).sum(-1).mean()) + 1e-12


def test_two_points_by_hand():
    assert wasserstein(np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]])) == pytest.approx(np.sqrt((1 + 4) / 2))


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_information_of_gaussians_follows_from_their_correlation(correlation):
    rng = np.random.default_rng(0)
    one, noise = rng.normal(size=(2, 3000, 1))
    other = correlation * one + np.sqrt(1 - correlation**2) * noise
    assert mutual_information(one, other) == pytest.approx(-0.5 * np.log(1 - correlation**2), abs=0.05)


def test_information_of_tables():
    assert table_information(np.full((2, 2), 0.25)) == 0.0
    assert table_information(np.eye(2) / 2) == pytest.approx(np.log(2))
    assert table(np.array([[0, 1], [0, 1], [1, 1], [1, 0]])).tolist() == [[0.0, 0.5], [0.25, 0.25]]


@pytest.mark.parametrize("zeta", [0.0, 0.25, 0.5, 1.0])
def test_the_payoff_games_data_are_correlated_by_their_interaction_strength(zeta):
    actions = payoff(np.random.default_rng(0), 400, zeta).actions[:, 0]
    assert table_correlation(table(actions)) == pytest.approx(2 * zeta - 1)


def test_correlation_of_a_table_is_that_of_its_actions():
    actions = np.repeat([[0, 0], [0, 1], [1, 1]], [1, 3, 6], 0)
    assert table_correlation(table(actions)) == pytest.approx(np.corrcoef(actions.T)[0, 1])


def test_an_agent_that_always_plays_the_same_is_correlated_with_nobody():
    assert table_correlation(np.array([[0.0, 0.0], [0.3, 0.7]])) == 0.0
