"""Environments of other packages, as a user brings them: `offmarl validate` finds them sound. CONTRIBUTING says how."""

import numpy as np
import pytest
from gymnasium import spaces

from offmarl.benchmarks import own, tasks
from offmarl.benchmarks.own import OwnTask, contract, sizes
from offmarl.benchmarks.own.pettingzoo import envs


class Balance:
    """A task of vmas, one lane of it, as a ParallelEnv."""

    def __init__(self):
        import vmas

        self.env = vmas.make_env("balance", num_envs=1, device="cpu", continuous_actions=True)
        self.possible_agents = [agent.name for agent in self.env.agents]

    def observation_space(self, agent):
        (size,) = self.env.observation_space[self.possible_agents.index(agent)].shape
        return spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def action_space(self, agent):
        return spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, seed):
        self.agents = list(self.possible_agents)
        return self._named(self.env.reset(seed=seed)), {agent: {} for agent in self.agents}

    def step(self, actions):
        obs, rewards, done, _ = self.env.step([[action.tolist()] for action in actions.values()])
        ended, cut, infos = (dict.fromkeys(self.agents, value) for value in (bool(done[0]), False, {}))
        self.agents = [] if done[0] else self.agents
        return self._named(obs), {name: float(reward[0]) for name, reward in zip(actions, rewards)}, ended, cut, infos

    def close(self):
        """Nothing is open."""

    def _named(self, values):
        return {name: value[0].numpy() for name, value in zip(self.possible_agents, values)}


def module(name, **settings):
    """What makes the ParallelEnv of a module."""
    return lambda self: pytest.importorskip(name).parallel_env(**settings)


FOREIGN = {
    "mpe2 spread": (25, module("mpe2.simple_spread_v3", max_cycles=25)),
    "mpe2 tag": (25, module("mpe2.simple_tag_v3", max_cycles=25)),
    "knights-archers-zombies": (40, module("pettingzoo.butterfly.knights_archers_zombies_v11", max_cycles=40)),
    "multiwalker": (40, module("pettingzoo.sisl.multiwalker_v9", max_cycles=40)),
    "pursuit": (15, module("pettingzoo.sisl.pursuit_v5", max_cycles=15)),
    "vmas balance": (20, lambda self: pytest.importorskip("vmas") and Balance()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOREIGN)
def test_environments_of_others_are_sound(name, monkeypatch):
    limit, make = FOREIGN[name]
    facts = {"name": "foreign/one", "title": name, "limit": limit, "make": make}
    user = type("Foreign", (OwnTask,), facts)("foreign.py")
    task = tasks.UserTask("foreign/one", "foreign", **sizes(envs(user, 1)), limit=limit, engine="own")
    monkeypatch.setattr(own, "registry", lambda: {"foreign/one": user})
    monkeypatch.setattr(contract, "SEEDS", contract.SEEDS[:3])
    assert [text for sound, text, _ in contract.examine(task) if not sound] == []
