"""A T-maze for two agents: each sees a cue in the first step, nothing in the next two, and must turn by its cue.

Only a memory of the agent's own past knows the cue at the junction, so whatever looks at the present alone turns right
in half of the episodes, whatever it learns.
"""

import numpy as np
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.sampler import Sampler

LENGTH, SKILL = 4, 0.75  # steps; the share of the data's turns that follow the cue
SPEC = TaskSpec(agents=2, obs=3, state=3, actions=2, discrete=True)
SCALED = {"qmix_cql": {"cql_weight": 0.1}, "macql": {"cql_weight": 0.1}}  # weights made for returns of twenty
CASES = {"bc_rnn": "bc", "maicq": "icq", "qmix_cql": "macql"}


def see(cues, t):
    """Observations [..., I, O] at a time: the cue in the first step alone, and whether this is the junction."""
    shown = cues * (t == 0)
    return np.stack([shown, np.full_like(shown, t == LENGTH - 1), np.ones_like(shown)], -1)


@pytest.fixture(scope="module")
def data():
    """Episodes of a team that mostly follows its cues. It is rewarded by the share of agents that do."""
    rng, episodes = np.random.default_rng(0), []
    for _ in range(400):
        cues = rng.choice([-1.0, 1.0], 2).astype(np.float32)
        actions = rng.integers(2, size=(LENGTH, 2))
        actions[-1] = np.where(rng.random(2) < SKILL, cues > 0, cues < 0)
        rewards = np.zeros((LENGTH, 2), np.float32)
        rewards[-1] = (actions[-1] == (cues > 0)).mean()
        episode = {"obs": np.stack([see(cues, t) for t in range(LENGTH + 1)]), "actions": actions, "rewards": rewards}
        state = np.stack([[*cues, t / LENGTH] for t in range(LENGTH + 1)]).astype(np.float32)
        episode |= {"state": state, "legal": np.ones((LENGTH + 1, 2, 2), bool), "done": True, "timeout": False}
        episodes.append(episode)
    return from_episodes(episodes, [0] * len(episodes))


@pytest.fixture
def turns(data):
    """Train a method, and return the share of turns by the cue for each seed."""

    def run(name, episodes=400):
        cls = registry()[name]
        config = {"hidden": (32,), "learning_rate": 5e-3, "batch_size": 32} | SCALED.get(name, {})
        algorithm = cls(SPEC, cls.Config(**config), [0, 1])
        sampler = Sampler(data, [0, 1], window=algorithm.config.window)
        sampler.data = algorithm.prepare(sampler.data)
        for _ in range(200):
            algorithm.update(sampler.sample(algorithm.config.batch_size))
        algorithm.play, memory = "zero", None
        cues = np.random.default_rng(1).choice([-1.0, 1.0], (2, episodes, 2)).astype(np.float32)
        for t in range(LENGTH):
            actions, memory = algorithm.act(torch.from_numpy(see(cues, t)), None, memory)
        return (actions.numpy() == (cues > 0)).mean((1, 2))

    return run


@pytest.mark.parametrize(("recurrent", "memoryless"), CASES.items(), ids=CASES)
def test_a_memory_turns_by_the_cue_and_the_present_alone_does_not(recurrent, memoryless, turns):
    assert turns(recurrent).min() > 0.9
    assert abs(turns(memoryless) - 0.5).max() < 0.08  # over four deviations of a share
