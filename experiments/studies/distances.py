"""Distances from samples (2-Wasserstein, by exact assignment), and dependence: mutual information, correlation."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.special import digamma


def matched(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The pairing of two samples [K,D] with the least sum of squared distances: indices of `other` [K]."""
    return linear_sum_assignment(np.square(one[:, None] - other[None]).sum(-1))[1]


def wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """2-Wasserstein distance of two samples [K,D] of one size."""
    return float(np.sqrt(np.square(one - other[matched(one, other)]).sum(-1).mean()))


def mutual_information(one: np.ndarray, other: np.ndarray, neighbours: int = 5) -> float:
    """Mutual information of paired samples [K,D] and [K,E] in nats, not below zero; K > `neighbours`.

    Source: Kraskov, Stögbauer and Grassberger (2004), first estimator.
    """
    both = np.concatenate([one, other], 1)
    radius = KDTree(both).query(both, neighbours + 1, p=np.inf)[0][:, -1]
    terms = [digamma(_count_within(part, radius) + 1).mean() for part in (one, other)]
    return max(0.0, float(digamma(neighbours) + digamma(len(one)) - sum(terms)))


def _count_within(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How many other points lie strictly within each point's radius."""
    found = KDTree(points).query_ball_point(points, np.nextafter(radius, 0.0), p=np.inf, return_length=True)
    return np.asarray(found) - 1


def table(actions: np.ndarray) -> np.ndarray:
    """Shares of the joint actions of two agents with two actions: [K,2] -> [2,2]."""
    return np.histogram2d(actions[:, 0], actions[:, 1], bins=2, range=[[-0.5, 1.5]] * 2)[0] / len(actions)


def table_information(shares: np.ndarray) -> float:
    """Mutual information in nats of a table of shares."""
    independent = shares.sum(1, keepdims=True) * shares.sum(0, keepdims=True)
    played = shares > 0
    return float((shares[played] * np.log(shares[played] / independent[played])).sum())


def table_correlation(shares: np.ndarray) -> float:
    """Correlation of two agents' actions in a table of shares [2,2]; 0 where an agent plays one action alone."""
    one, other = shares[1].sum(), shares[:, 1].sum()
    variance = one * (1 - one) * other * (1 - other)
    return float((shares[1, 1] - one * other) / np.sqrt(variance)) if variance > 1e-12 else 0.0
