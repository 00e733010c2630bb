"""Behaviour policies: small trained actors, committed as half-precision weights in weights/<task>-<source>.npz.

A file holds, for every quality, the actors that are recorded together and a card with the origin of each. `select`
chooses them from the snapshots of independent training runs (for robots: mujoco_policies.py).
"""

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offmarl.benchmarks.env import View
from offmarl.benchmarks.tasks import Task

ACTORS = 4  # joined in a good, medium or poor dataset
REPLAY_ACTORS_PER_RUN = 8


class Snapshot(NamedTuple):
    """A policy in training: environment steps so far, mean and deviation of its returns as recorded, weights."""

    steps: int
    score: float
    spread: float
    weights: list[np.ndarray]


def perceptron(weights: Sequence[Any], x: Any, activation: Callable[[Any], Any]) -> Any:
    """The output of a perceptron, its matrices and biases in turn; in numpy, torch or JAX."""
    *hidden, w, b = weights
    for matrix, bias in zip(hidden[::2], hidden[1::2]):
        x = activation(x @ matrix + bias)
    return x @ w + b


class Actor:
    """A greedy actor shared by all agents: a ReLU perceptron (matrices and biases) of observation and one-hot id."""

    def __init__(self, weights: Sequence[np.ndarray]):
        self.weights = [w.astype(np.float32) for w in weights]

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """The most likely legal action of every agent: [E,I]."""
        episodes, agents, _ = view.obs.shape
        ids = np.broadcast_to(np.eye(agents, dtype=np.float32), (episodes, agents, agents))
        logits = perceptron(self.weights, np.concatenate([view.obs, ids], -1), lambda x: np.maximum(x, 0.0))
        return np.where(view.legal, logits, -np.inf).argmax(-1)


def path(task: Task, source: str) -> Path:
    """The committed file of a task, for the embedded or the tuning datasets."""
    return Path(str(resources.files("offmarl.datasets.embedded").joinpath("weights", f"{task.short}-{source}.npz")))


def load(file: Path, quality: str, kind: Callable[[list[np.ndarray]], Any] = Actor) -> list[Any]:
    """The policies to record, each made from its weights by `kind`. Raises ValueError if there are none."""
    with np.load(file, allow_pickle=False) as stored:
        card = json.loads(str(stored["card"]))
        if quality not in card:
            raise ValueError(f"{file}: no behaviours for quality '{quality}'; it has {', '.join(card)}")
        return [
            kind([stored[f"{quality}/{k}/{j}"] for j in range(entry["tensors"])])
            for k, entry in enumerate(card[quality])
        ]


def save(file: Path, chosen: dict[str, list[tuple[int, Snapshot]]]) -> None:
    """Write the chosen snapshots: for each quality, pairs of a run's number and a snapshot."""
    arrays: dict[str, np.ndarray] = {}
    card: dict[str, list[dict]] = {quality: [] for quality in chosen}
    for quality, pairs in chosen.items():
        for k, (run, snapshot) in enumerate(pairs):
            facts = {"run": run, "steps": snapshot.steps, "score": round(snapshot.score, 2)}
            card[quality].append({**facts, "tensors": len(snapshot.weights)})
            arrays |= {f"{quality}/{k}/{j}": w.astype(np.float16) for j, w in enumerate(snapshot.weights)}
    np.savez_compressed(file, card=np.array(json.dumps(card)), **arrays)  # type: ignore[arg-type]


def select(runs: list[list[Snapshot]], targets: dict[str, float]) -> dict[str, list[tuple[int, Snapshot]]]:
    """Choose snapshots whose mean return is near each target.

    For good, medium and poor: one snapshot of each of the ACTORS runs that came nearest to the target; each choice
    corrects the error of those before it. For replay: evenly spaced snapshots of each run, from the first to the one up
    to which its average is nearest to the target, so that the data cover a training from its start.
    """
    chosen: dict[str, list[tuple[int, Snapshot]]] = {}
    for quality, target in targets.items():
        if quality == "replay":
            chosen[quality] = [(r, s) for r, run in enumerate(runs) for s in _history(run, target)]
            continue
        distance = [min(abs(s.score - target) for s in run) for run in runs]
        picks: list[tuple[int, Snapshot]] = []
        for r in np.argsort(distance)[:ACTORS]:
            owed = target + sum(target - s.score for _, s in picks)
            picks.append((int(r), min(runs[r], key=lambda s: abs(s.score - owed))))
        chosen[quality] = picks
    return chosen


def _history(run: list[Snapshot], target: float) -> list[Snapshot]:
    scores = np.array([s.score for s in run])
    averages = np.cumsum(scores) / np.arange(1, len(scores) + 1)
    enough = np.arange(len(scores)) >= min(len(scores), REPLAY_ACTORS_PER_RUN) - 1
    end = int(np.where(enough, np.abs(averages - target), np.inf).argmin())
    return [run[k] for k in np.linspace(0, end, REPLAY_ACTORS_PER_RUN).round().astype(int)]
