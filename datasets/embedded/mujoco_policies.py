"""Behaviour policies of the robots: small networks, committed as half-precision weights in weights/<task>-<source>.npz.

OMIGA's agents observe the complete state, so one network controls all of them; OMAR's observe only their own joints, so
each has its own network. Every actuator gets independent Gaussian noise, as in the training (recipes.yaml has it).
`train_mujoco.py` wrote the files.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from offmarl.benchmarks.env import View
from offmarl.datasets.embedded.actors import Snapshot, perceptron

LEVEL, REPLAY = 4, 8  # snapshots joined in a level; snapshots of each run joined in a replay
CANDIDATES = 60  # that a level is chosen from
MIXING_BONUS = 0.1  # for each further run in a level, in standard deviations


def senses(view: View, networks: int, inputs: int) -> Any:
    """The networks' inputs [E,J,inputs]: the first entries of the state if J is 1, else each agent's observation."""
    return view.state[:, None, :inputs] if networks == 1 else view.obs


def forward(weights: Sequence[Any], x: Any, tanh: Callable[[Any], Any] = np.tanh) -> Any:
    """Perceptrons with weights [J,in,out] and biases [J,out] in turn: [E,J,in] -> [E,J,out], in numpy or torch."""
    wide = [w if w.ndim == 3 else w[:, None] for w in weights]
    return perceptron(wide, x.swapaxes(0, 1), tanh).swapaxes(0, 1)


class Moments:
    """Running mean and variance of the inputs: [J,n]."""

    def __init__(self, rows: np.ndarray):
        self.count, self.mean, self.var = len(rows), rows.mean(0), rows.var(0)

    def add(self, rows: np.ndarray) -> None:
        """Add inputs: [B,J,n]."""
        shift, share = rows.mean(0) - self.mean, len(rows) / (self.count + len(rows))
        self.mean = self.mean + share * shift
        self.var = (1 - share) * self.var + share * rows.var(0) + share * (1 - share) * shift**2
        self.count += len(rows)

    def normal(self, rows: np.ndarray) -> np.ndarray:
        """Inputs of zero mean and unit deviation."""
        return ((rows - self.mean) / np.sqrt(self.var + 1e-8)).astype(np.float32)

    def fold(self, w: np.ndarray, b: np.ndarray | float = 0.0) -> list[np.ndarray]:
        """A first layer [...,J,n,k] for normalised inputs as one for raw inputs."""
        w = w / np.sqrt(self.var + 1e-8)[..., None]
        return [w, b - (self.mean[..., None] * w).sum(-2)]


class Pilot:
    """A policy for all agents of a task: one network (J = 1) that reads the state, or one for each agent.

    `weights` are as in `forward`, `noise` is the standard deviation of the noise on every action.
    """

    def __init__(self, weights: Sequence[np.ndarray], noise: float):
        self.weights, self.noise = [w.astype(np.float32) for w in weights], noise

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I,A] within [-1, 1]."""
        action = forward(self.weights, senses(view, *self.weights[0].shape[:2]))
        mean = np.clip(action.reshape(*view.obs.shape[:2], -1), -1.0, 1.0)  # far outside, no noise would be left
        return np.clip(mean + self.noise * rng.standard_normal(mean.shape, np.float32), -1.0, 1.0)


def choose(runs: list[list[Snapshot]], target: tuple[float, float], replay: bool) -> list[tuple[int, Snapshot]]:
    """Snapshots whose mixture comes nearest to a mean and deviation of returns.

    For a level, LEVEL of them, preferably from several runs. For replay, REPLAY evenly spaced ones of every run, from
    the first to the best last one, so that the data cover a training from its start.
    """
    if replay:
        best = []
        for run in runs:
            spans = [np.linspace(0, end, REPLAY).round().astype(int) for end in range(REPLAY // 2, len(run))]
            best.append(spans[int(_distance(run, np.array(spans), target).argmin())])
        return [(r, runs[r][k]) for r, span in enumerate(best) for k in span]
    pairs = sorted(((r, s) for r, run in enumerate(runs) for s in run), key=lambda pair: abs(pair[1].score - target[0]))
    within = sum(abs(s.score - target[0]) <= 2 * target[1] for _, s in pairs)
    pairs = pairs[: max(CANDIDATES, within)]
    pairs = [pairs[k] for k in np.unique(np.linspace(0, len(pairs) - 1, CANDIDATES).round().astype(int))]
    teams = np.array(list(combinations(range(len(pairs)), LEVEL)))
    author = np.sort(np.array([r for r, _ in pairs])[teams])
    mixed = (np.diff(author) > 0).sum(1)
    distance = _distance([s for _, s in pairs], teams, target) - MIXING_BONUS * target[1] * mixed
    return [pairs[k] for k in teams[int(distance.argmin())]]


def _distance(snapshots: list[Snapshot], teams: np.ndarray, target: tuple[float, float]) -> np.ndarray:
    """How far mean (counted twice) and deviation of mixtures of snapshots, [teams, members], are from the target."""
    score = np.array([s.score for s in snapshots])[teams]
    variance = np.array([s.spread for s in snapshots])[teams] ** 2
    spread = np.sqrt(variance.mean(1) + score.var(1))
    return 2 * np.abs(score.mean(1) - target[0]) + np.abs(spread - target[1])
