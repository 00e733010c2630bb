"""From the protocol's key to targets: what a time-out is worth, in closed form."""

import numpy as np
import pytest
import torch

from offmarl.algorithms.om2p import OM2P
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.datasets.dataset import from_episodes
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import make_trainer

DISCOUNT, REWARD = 0.9, 2.0


@pytest.fixture
def data():
    """An episode of three steps cut by the clock, each paying the same; observations count the steps."""
    obs = np.repeat(np.arange(4, dtype=np.float32)[:, None, None], 2, 1)
    actions, rewards = np.zeros((3, 2, 1), np.float32), np.full((3, 2), REWARD, np.float32)
    episode = {"obs": obs, "state": obs[:, 0], "actions": actions, "rewards": rewards, "done": False, "timeout": True}
    return from_episodes([episode], [0])


@pytest.mark.parametrize(("bootstrap", "wanted"), [(True, REWARD / (1 - DISCOUNT)), (False, REWARD)])
def test_the_fixed_point_of_a_critic_goes_through_the_clock_only_where_the_protocol_says_so(data, bootstrap, wanted):
    """The value that gives the last step no error: r + discount V if it is bootstrapped, r if it ends."""
    config = OM2P.Config(hidden=(16,), discount=DISCOUNT, batch_size=64)
    method, sampler, _ = make_trainer(OM2P(TaskSpec(2, 1, 1, 1, False), config, [0]), data, Host(), bootstrap)
    batch = sampler.sample(64)
    last = (batch.number[0] == 2).nonzero()[:, 0]
    batch = type(batch)(*(None if part is None else part[:, last] for part in batch))
    for name in ("critic", "target_critic"):
        method.nets[name].forward = lambda obs, actions: torch.full((1, 2, *actions.shape[1:-1], 1), wanted)
    assert method.critic_loss(batch).item() == pytest.approx(0.0, abs=1e-6)
