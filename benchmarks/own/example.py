"""TITLE: two players who are paid when both do what a light asks for."""

import numpy as np
from gymnasium import spaces

from offmarl.benchmarks.own import OwnTask


class Light:
    """A ParallelEnv, as PettingZoo has it: `agents` are those who still play. Replace it by an environment of yours."""

    possible_agents = ["left", "right"]

    def observation_space(self, agent):
        """What an agent sees."""
        return spaces.Box(0.0, 1.0, (2,), np.float32)

    def action_space(self, agent):
        """What an agent may do."""
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        """Observations and infos. All that is random comes from the seed."""
        self.rng, self.agents = np.random.default_rng(seed), list(self.possible_agents)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions):
        """Observations, rewards, terminations, truncations and infos."""
        paid = float(all(action == self.light for action in actions.values()))
        return (self._observe(), *(dict.fromkeys(self.agents, value) for value in (paid, False, False, {})))

    def close(self):
        """Nothing is open."""

    def _observe(self):
        self.light = int(self.rng.integers(2))
        return {agent: np.eye(2, dtype=np.float32)[self.light] for agent in self.agents}


class Template(OwnTask):
    """Its facts; `offmarl.benchmarks.own` says what more there may be."""

    name = "FAMILY/template"  # family/task, for the command line; a family of yours is a suite
    title = "TITLE"  # in tables
    limit = 10  # actions after which the clock ends an episode
    reward = "mean"  # what every agent gets: apart, sum or mean
    packages = ("gymnasium",)  # whose versions decide the numbers
    datasets = {"random": "template-random.npz"}  # beside this file

    def make(self):
        """An environment: a ParallelEnv, or Gymnasium's with Tuple spaces."""
        return Light()
