"""The game `games/dial`: datasets whose coordination, conventions, memory, coverage and agents are known.

Agents see one of `places` and a cue, both drawn anew at every step. The first agent repeats the cue of the step before
with probability `memory`, and else acts at random. The second adds the convention of the episode to the first one's
action, as often as makes the total correlation of their actions `coupling` nats over all conventions, and else acts at
random. Further agents act at random. Neither agent's own past tells the convention, so each dial moves alone.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from offmarl.datasets.dataset import Dataset, from_episodes

ACTIONS = 8


@dataclass(frozen=True)
class Dial:
    """The settings of a dataset."""

    coupling: float = 0.3  # nats a step, at most log(ACTIONS / conventions)
    conventions: int = 1
    memory: float = 0.0
    places: int = 4
    agents: int = 2
    continuous: bool = False
    episodes: int = 300
    length: int = 20
    seed: int = 0

    def weight(self) -> float:
        """How often the second agent follows the first, for `coupling`."""
        return brentq(lambda weight: self.correlation(weight) - self.coupling, 0, 1) if self.coupling else 0.0

    def correlation(self, weight: float) -> float:
        """Nats of the second action that the first tells, over all conventions."""
        rest = (1 - weight) / ACTIONS
        shifts = np.full(ACTIONS, rest)
        shifts[: self.conventions] += weight / self.conventions
        return math.log(ACTIONS) + sum(p * math.log(p) for p in shifts if p > 0)

    def memory_nats(self) -> float:
        """Nats of the first action that its past tells, a step after the first one."""
        chance = (1 - self.memory) / ACTIONS
        repeats = self.memory + chance
        others = (ACTIONS - 1) * chance * math.log(chance * ACTIONS) if chance else 0.0
        return repeats * math.log(repeats * ACTIONS) + others

    def dataset(self) -> Dataset:
        """The episodes; `behaviour` is the convention."""
        rng = np.random.default_rng(self.seed)
        conventions = rng.permutation(np.arange(self.episodes) % self.conventions)
        return from_episodes([self._episode(rng, k) for k in conventions], conventions.tolist())

    def _episode(self, rng: np.random.Generator, convention: int) -> dict[str, np.ndarray]:
        steps = (self.length + 1, self.agents)
        places, cues = rng.integers(self.places, size=steps), rng.integers(ACTIONS, size=steps)
        actions = rng.integers(ACTIONS, size=(self.length, self.agents))
        repeats = np.append(False, rng.random(self.length - 1) < self.memory)
        actions[:, 0] = np.where(repeats, np.roll(cues[:-1, 0], 1), actions[:, 0])
        follows = rng.random(self.length) < self.weight()
        actions[:, 1] = np.where(follows, (actions[:, 0] + convention) % ACTIONS, actions[:, 1])
        obs = np.concatenate([places[..., None] / self.places, np.eye(ACTIONS)[cues]], -1).astype(np.float32)
        episode = {"obs": obs, "state": obs.reshape(len(obs), -1), "done": np.False_, "timeout": np.True_}
        episode["rewards"] = np.repeat((actions[:, :1] == 0).astype(np.float32), self.agents, 1)
        if not self.continuous:
            return episode | {"actions": actions, "legal": np.ones((*steps, ACTIONS), bool)}
        spread = rng.random((*actions.shape, 1))  # within an action's eighth of the range
        return episode | {"actions": ((actions[..., None] + spread) * 2 / ACTIONS - 1).astype(np.float32)}
