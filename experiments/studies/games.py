"""The small games of MAC-Flow's §4.3 and Appendix H: an episode is one joint action, and the best ones are known.

    coordination   two agents play 0 or 1; the reward is the sum; the best, (1, 1), is rare in the data (H.5, Figure 14)
    payoff         the same; the data are zeta times {(0,0), (1,1)} and 1 - zeta times {(0,1), (1,0)} (H.7, Figure 16)
    xor            two agents play a number each; the reward is -a1 a2; the data lie around (-1, 1) and (1, -1) (H.6)
    landmarks      every agent sees itself and all landmarks and moves; the reward is the negative mean distance to the
                   landmarks that the assignment of the shortest total distance gives to agents (§4.3, Figure 3)

The paper says of the data of H.5 only that the two one-sided actions are most of them; the shares here are ours, as are
the places of the landmarks (on a circle) and the spread of the data around the modes.
Shapes: N joint actions, I agents, O observation, A actions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.datasets.dataset import Dataset, from_episodes

SHARES = {(0, 1): 0.45, (1, 0): 0.45, (1, 1): 0.05, (0, 0): 0.05}
RADIUS = 0.7  # of the circle of landmarks
Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # obs [N,I,O] and joint actions -> [N]


@dataclass(frozen=True)
class Game:
    """Rules, and the observations and joint actions of its data."""

    spec: TaskSpec
    obs: np.ndarray  # [N, I, O] float32
    actions: np.ndarray  # [N, I] int64, or [N, I, A] float32
    reward: Reward
    good: float  # the least reward of a joint action that counts as one of the best
    landmarks: bool = False  # observations are the agent's place, then the landmarks'

    def dataset(self) -> Dataset:
        """The data, one transition an episode."""
        rewards = self.reward(self.obs, self.actions).astype(np.float32)
        episodes = [self._episode(*parts) for parts in zip(self.obs, self.actions, rewards)]
        return from_episodes(episodes, [0] * len(episodes))

    def _episode(self, obs: np.ndarray, action: np.ndarray, reward: np.ndarray) -> dict[str, np.ndarray]:
        agents, twice = self.spec.agents, np.stack([obs, obs])  # before and after the action
        episode = {"obs": twice, "state": twice.reshape(2, -1), "actions": action[None]}
        episode |= {"rewards": np.full((1, agents), reward), "done": np.True_, "timeout": np.False_}
        legal = {"legal": np.ones((2, agents, self.spec.actions), bool)} if self.spec.discrete else {}
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
    obs = np.ones((len(actions), 2, 1), np.float32)
    return Game(spec, obs, actions, lambda obs, a: a.sum(-1).astype(np.float64), good=2.0)


def xor(rng: np.random.Generator, count: int, spread: float = 0.05) -> Game:
    """Appendix H.6."""
    sign = rng.choice([-1.0, 1.0], count)
    joint = 0.9 * np.stack([sign, -sign], 1) + rng.normal(0, spread, (count, 2))
    spec = TaskSpec(agents=2, obs=1, state=2, actions=1, discrete=False)
    actions = joint.clip(-1, 1).astype(np.float32)[..., None]
    return Game(spec, np.ones((count, 2, 1), np.float32), actions, lambda obs, a: -a[..., 0].prod(-1), good=0.5)


def landmarks(rng: np.random.Generator, count: int, agents: int = 3, spread: float = 0.05) -> Game:
    """Section 4.3: agents start anywhere in [-1, 1]² and move straight to their landmarks."""
    angle = 2 * np.pi * np.arange(agents) / agents
    marks = RADIUS * np.stack([np.cos(angle), np.sin(angle)], 1)
    starts = rng.uniform(-1, 1, (count, agents, 2))
    flat = np.broadcast_to(marks.ravel(), (count, agents, 2 * agents))
    obs = np.concatenate([starts, flat], -1).astype(np.float32)
    moves = marks[_assigned(starts, marks)] - starts + rng.normal(0, spread, starts.shape)
    spec = TaskSpec(agents, obs=2 + 2 * agents, state=agents * (2 + 2 * agents), actions=2, discrete=False)

    def reward(obs: np.ndarray, moves: np.ndarray) -> np.ndarray:
        after = obs[..., :2] + moves
        return -np.linalg.norm(after - marks[_assigned(obs[..., :2], marks)], axis=-1).mean(-1)

    return Game(spec, obs, moves.clip(-1, 1).astype(np.float32), reward, good=-0.1, landmarks=True)


def _assigned(places: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Each agent's landmark in the assignment of the shortest total distance: [N,I,2] -> [N,I]."""
    distances = np.linalg.norm(places[:, :, None] - marks, axis=-1)
    return np.stack([linear_sum_assignment(matrix)[1] for matrix in distances])


GAMES: dict[str, Callable[..., Game]] = {game.__name__: game for game in (coordination, payoff, xor, landmarks)}
CONTINUOUS = ("xor", "landmarks")
