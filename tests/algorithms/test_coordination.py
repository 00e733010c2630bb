"""The pure coordination game of MAC-Flow's Appendix H.5: 2 for (1, 1), 1 for one of the two, 0 for neither.

The data hold the best joint action rarely, and each agent plays 1 in less than half of them, so cloning cannot find it.
For continuous actions, 0 is played as -0.8 and 1 as 0.8, and the sign counts.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.sampler import Sampler

COUNTS = {(0, 1): 35, (1, 0): 35, (1, 1): 12, (0, 0): 18}
SMALL = {"width": 8, "multipliers": (1,), "norm_groups": 2, "history": 0, "horizon": 2, "diffusion_steps": 4}
# Settings that are made for returns of thousands, and networks for long observations, at the scale of this game.
SCALED = {
    "mac_flow": {"alpha": 0.1, "distillation_over": "mean"},
    "ma_fql": {"alpha": 0.1, "distillation_over": "mean"},
    "macql": {"cql_weight": 0.3},
    "om2p": {"bc_weight": 0.03},
    "omiga": {"alpha": 0.1},
    "comadice": {"alpha": 0.1},
    "recipe": {"bc_weight": 0.03},
    "ma_sfbc": {"widths": (32, 16)},
    "madiff_d": SMALL,
    "madiff_c": SMALL,
    "dof": SMALL,
    "bc_rnn": {"horizon": 2},
    "maicq": {"horizon": 2},
    "qmix_cql": {"horizon": 2, "cql_weight": 0.3},
}
CASES = [
    pytest.param(cls, space, id=f"{name}-{space}") for name, cls in registry().items() for space in sorted(cls.actions)
]


@pytest.fixture
def play(make_spec):
    """Train a method on the game and return the share of (1, 1) in what it plays."""

    def run(cls, space):
        spec = TaskSpec(agents=2, obs=3, state=3, actions=2 if space == "discrete" else 1, discrete=space == "discrete")
        config = {"hidden": (32, 32), "learning_rate": 3e-3, "discount": 0.0}
        algorithm = cls(spec, cls.Config(**config | SCALED.get(cls.name, {})), [0, 1])
        sampler = Sampler(_data(spec), [0, 1], window=algorithm.config.window)
        sampler.data = algorithm.prepare(sampler.data)
        sampler.streams = SimpleNamespace(integers=lambda high, size: torch.arange(size).expand(2, -1))  # all, always
        for _ in range(200):
            algorithm.update(sampler.sample(100))
        legal = torch.ones(2, 500, 2, 2, dtype=torch.bool) if spec.discrete else None
        actions, _ = algorithm.act(torch.ones(2, 500, 2, 3), legal)
        chosen = actions == 1 if spec.discrete else actions[..., 0] > 0
        return chosen.all(-1).float().mean(1).min()

    return run


def _data(spec):
    """A hundred episodes of one joint action each."""
    episodes = []
    for joint in (np.array(pair) for pair, count in COUNTS.items() for _ in range(count)):
        episode = {"obs": np.ones((2, 2, 3), np.float32), "state": np.ones((2, 3), np.float32)}
        episode["actions"] = joint[None] if spec.discrete else np.float32(1.6 * (joint[None, :, None] - 0.5))
        episode["rewards"] = np.full((1, 2), joint.sum(), np.float32)
        episode |= {"legal": np.ones((2, 2, 2), bool)} if spec.discrete else {}
        episodes.append(episode | {"done": True, "timeout": False})
    return from_episodes(episodes, [0] * len(episodes))


@pytest.mark.parametrize(("cls", "space"), CASES)
def test_methods_with_a_critic_find_the_best_joint_action_of_the_data(cls, space, play):
    share = play(cls, space)
    if "critic" in cls(TaskSpec(2, 3, 3, 2, space == "discrete"), cls.Config(**SCALED.get(cls.name, {})), [0]).nets:
        assert share > 0.9
    else:
        assert share < 0.3  # cloning plays what is frequent
