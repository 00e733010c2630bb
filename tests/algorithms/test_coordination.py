"""The pure coordination game of MAC-Flow's Appendix H.5: 2 for (1, 1), 1 for one of the two, 0 for neither.

The data hold the best joint action rarely, and each agent plays 1 in less than half of them, so cloning cannot find it.
For continuous actions, 0 is played as -0.8 and 1 as 0.8, and the sign counts.
"""

import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.base import Batch, TaskSpec

COUNTS = {(0, 1): 35, (1, 0): 35, (1, 1): 12, (0, 0): 18}
# Settings that are made for returns of thousands, at the scale of a game that pays two.
SCALED = {
    "mac_flow": {"alpha": 0.1},
    "ma_fql": {"alpha": 0.1},
    "macql": {"cql_weight": 0.3},
    "om2p": {"bc_weight": 0.1},
    "omiga": {"alpha": 0.1},
}
CASES = [
    pytest.param(cls, space, id=f"{name}-{space}") for name, cls in registry().items() for space in sorted(cls.actions)
]


@pytest.fixture
def play(make_spec):
    """Train a method on the game and return the share of (1, 1) in what it plays."""

    def run(cls, space):
        spec = TaskSpec(agents=2, obs=3, state=3, actions=2 if space == "discrete" else 1, discrete=space == "discrete")
        config = {"hidden": (32, 32), "learning_rate": 3e-3, "discount": 0.0, "eval_noise": "fresh"}
        algorithm = cls(spec, cls.Config(**config | SCALED.get(cls.name, {})), [0, 1])
        batch = _data(spec)
        for _ in range(400):
            algorithm.update(batch)
        legal = torch.ones(2, 500, 2, 2, dtype=torch.bool) if spec.discrete else None
        actions, _ = algorithm.act(torch.ones(2, 500, 2, 3), legal)
        chosen = actions == 1 if spec.discrete else actions[..., 0] > 0
        return chosen.all(-1).float().mean(1).min()

    return run


def _data(spec):
    """All hundred joint actions in one batch, the same for both seeds."""
    joint = torch.tensor([pair for pair, count in COUNTS.items() for _ in range(count)]).expand(2, -1, -1)
    B = joint.shape[1]
    obs, state, ones = torch.ones(2, B, 2, 3), torch.ones(2, B, 3), torch.ones(2, B, 2, 2, dtype=torch.bool)
    actions = joint if spec.discrete else 1.6 * (joint[..., None] - 0.5)
    legal = ones if spec.discrete else None
    rewards = joint.sum(-1, keepdim=True).float().expand(-1, -1, 2)
    return Batch(obs, actions, rewards, obs, torch.ones(2, B), legal, legal, state, state, actions)


@pytest.mark.parametrize(("cls", "space"), CASES)
def test_methods_with_a_critic_find_the_best_joint_action_of_the_data(cls, space, play):
    share = play(cls, space)
    if "critic" in cls(TaskSpec(2, 3, 3, 2, space == "discrete"), cls.Config(hidden=(8,)), [0]).nets:
        assert share > 0.9
    else:
        assert share < 0.3  # cloning plays what is frequent
