"""The small games of MAC-Flow's §4.3 and Appendix H, whose best joint actions are known.

An episode is one joint action, with landmarks eight:

    coordination   two agents play 0 or 1; the reward is the sum; the best, (1, 1), is rare in the data (H.5, Figure 14)
    payoff         the same; the data are zeta times {(0,0), (1,1)} and 1 - zeta times {(0,1), (1,0)} (H.7, Figure 16)
    xor            two agents play a number each; the reward is -a1 a2; the data lie around (-1, 1) and (1, -1) (H.6)
    landmarks      every agent sees itself and all landmarks and moves; the reward is the negative mean distance, after
                   the move, to the landmarks that the assignment of the shortest total distance gives to agents before
                   it (§4.3, Figure 3); the clock ends an episode

The paper says of the data of H.5 only that the two one-sided actions are most of them; the shares here are ours, as are
the places of the landmarks (on a circle), the length of a move and of an episode, and the spread of the data around the
modes.
Shapes: N episodes, T steps, I agents, O observation, A actions; `...` any axes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.datasets.dataset import Dataset, from_episodes

SHARES = {(0, 1): 0.45, (1, 0): 0.45, (1, 1): 0.05, (0, 0): 0.05}
RADIUS = 0.7  # of the circle of landmarks
STEPS, STRIDE = 8, 0.25  # of an episode with landmarks; how far the action 1 moves an agent
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of obs [...,I,O] and joint actions


@dataclass(frozen=True)
class Game:
    """Rules, and the observations and joint actions of its data."""

    spec: TaskSpec
    obs: np.ndarray  # [N, T + 1, I, O] float32
    actions: np.ndarray  # [N, T, I] int64, or [N, T, I, A] float32
    reward: Rule  # -> [...]
    good: float  # the least reward of an episode's last joint action that counts as one of the best
    move: Rule | None = None  # observations that follow [...,I,O]; none: an episode ends with its first joint action

    def dataset(self) -> Dataset:
        """The data."""
        rewards = self.reward(self.obs[:, :-1], self.actions).astype(np.float32)
        episodes = [self._episode(*parts) for parts in zip(self.obs, self.actions, rewards)]
        return from_episodes(episodes, [0] * len(episodes))

    def _episode(self, obs: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> dict[str, np.ndarray]:
        agents, clock = self.spec.agents, np.bool_(self.move is not None)
        episode = {"obs": obs, "state": obs.reshape(len(obs), -1), "actions": actions, "done": ~clock, "timeout": clock}
        episode["rewards"] = np.repeat(rewards[:, None], agents, 1)
        legal = {"legal": np.ones((len(obs), agents, self.spec.actions), bool)} if self.spec.discrete else {}
        return episode | legal


def coordination(rng: np.random.Generator, count: int) -> Game:
    """Appendix H.5."""
    return _matrix(rng, count, SHARES)


def payoff(rng: np.random.Generator, count: int, zeta: float) -> Game:
    """Appendix H.7: `zeta` is the interaction strength, from 0 to 1."""
    equal, unequal = zeta / 2, (1 - zeta) / 2
    return _matrix(rng, count, {(0, 0): equal, (1, 1): equal, (0, 1): unequal, (1, 0): unequal})


def _matrix(rng: np.random.Generator, count: int, shares: dict[tuple[int, int], float]) -> Game:
    """Two agents, two actions, their sum as reward; exactly these shares, in random order."""
    pairs = np.repeat(np.array(list(shares)), np.round(count * np.array(list(shares.values()))).astype(int), 0)
    actions = rng.permutation(pairs)
    spec = TaskSpec(agents=2, obs=1, state=2, actions=2, discrete=True)
    obs = np.ones((len(actions), 2, 2, 1), np.float32)
    return Game(spec, obs, actions[:, None], lambda obs, a: a.sum(-1).astype(np.float64), good=2.0)


def xor(rng: np.random.Generator, count: int, spread: float = 0.05) -> Game:
    """Appendix H.6."""
    sign = rng.choice([-1.0, 1.0], count)
    joint = 0.9 * np.stack([sign, -sign], 1) + rng.normal(0, spread, (count, 2))
    spec = TaskSpec(agents=2, obs=1, state=2, actions=1, discrete=False)
    actions = joint.clip(-1, 1).astype(np.float32)[:, None, :, None]
    return Game(spec, np.ones((count, 2, 2, 1), np.float32), actions, lambda obs, a: -a[..., 0].prod(-1), good=0.5)


def landmarks(rng: np.random.Generator, count: int, agents: int = 3, spread: float = 0.1) -> Game:
    """Section 4.3: agents start anywhere in [-1, 1]² and move straight to their landmarks, as far as a step goes."""
    angle = 2 * np.pi * np.arange(agents) / agents
    marks = RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)
    spec = TaskSpec(agents, obs=2 + 2 * agents, state=agents * (2 + 2 * agents), actions=2, discrete=False)

    def way(obs: np.ndarray) -> np.ndarray:
        return marks[_assigned(obs[..., :2], marks)] - obs[..., :2]

    def reward(obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return -np.linalg.norm(way(obs) - STRIDE * actions, axis=-1).mean(-1)

    def move(obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return np.concatenate([obs[..., :2] + STRIDE * actions, obs[..., 2:]], -1).astype(np.float32)

    flat = np.broadcast_to(marks.ravel(), (count, agents, 2 * agents))
    obs, actions = [np.concatenate([rng.uniform(-1, 1, (count, agents, 2)), flat], -1).astype(np.float32)], []
    for _ in range(STEPS):
        far = way(obs[-1])
        straight = far / np.maximum(np.linalg.norm(far, axis=-1, keepdims=True), STRIDE)
        actions.append((straight + rng.normal(0, spread, far.shape)).clip(-1, 1).astype(np.float32))
        obs.append(move(obs[-1], actions[-1]))
    return Game(spec, np.stack(obs, 1), np.stack(actions, 1), reward, good=-0.1, move=move)


def _assigned(places: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Each agent's landmark in the assignment of the shortest total distance: [...,I,2] -> [...,I]."""
    distances = np.linalg.norm(places[..., None, :] - marks, axis=-1)
    found = [linear_sum_assignment(matrix)[1] for matrix in distances.reshape(-1, *distances.shape[-2:])]
    return np.array(found).reshape(places.shape[:-1])


GAMES: dict[str, Callable[..., Game]] = {game.__name__: game for game in (coordination, payoff, xor, landmarks)}
CONTINUOUS = ("xor", "landmarks")
