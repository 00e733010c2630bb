"""The joint flow keeps tactics apart that independent flows mix, shown on recorded battles.

Two teams of marines: one goes north before it fights, the other south. At the start of a battle the data's joint
action is "all north" or "all south", in equal shares; a policy that decides for each agent apart sends some north and
some south in most of its draws (3 of 4 with three agents and a fair coin).
"""

import numpy as np
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.benchmarks.tasks import make_env, tasks
from offmarl.datasets.dataset import Dataset, from_episodes
from offmarl.datasets.embedded.record import record
from offmarl.datasets.embedded.tactics import NORTH, SOUTH, Tactic
from offmarl.datasets.sampler import Sampler

UPDATES, DRAWS = 600, 256


@pytest.fixture(scope="module")
def opening() -> tuple[Dataset, np.ndarray]:
    """Recorded flank tactics cut to their first two actions, and the step of each transition."""
    task = tasks()["smac/3m"]
    flanks = [Tactic(task, lane=22.0), Tactic(task, lane=10.0)]
    data = record(make_env(task, 64), flanks, episodes=256, epsilon=0.0, seed=0)
    starts = np.searchsorted(data.episode, np.arange(256))
    cut = [
        {name: getattr(data, name)[data.rows[k] : data.rows[k] + 3] for name in ("obs", "state", "legal")}
        | {name: getattr(data, name)[k : k + 2] for name in ("actions", "rewards")}
        | {"done": False, "timeout": True}
        for k in starts
    ]
    return from_episodes(cut, data.behaviour.tolist()), np.tile([0, 1], 256)


def of_one_tactic(actions: np.ndarray) -> float:
    """Share of joint actions [N,I] in which all go north or all go south."""
    return float(((actions == NORTH).all(1) | (actions == SOUTH).all(1)).mean())


def sampled_share(data: Dataset, step: np.ndarray, joint: bool) -> float:
    """Train the flow on the opening, then sample joint actions at starts of battles."""
    task = tasks()["smac/3m"]
    method = registry()["mac_flow"]
    config = method.Config(hidden=(128, 128), learning_rate=2e-3, flow_steps=10, action_scale=4.0, joint_flow=joint)
    spec = TaskSpec(task.agents, task.obs, task.state, task.actions, True)
    algorithm = method(spec, config, [0])
    sampler = Sampler(data, [0])
    for _ in range(UPDATES):
        loss = algorithm.flow_loss(sampler.sample(128)).sum()
        algorithm.optimiser.zero_grad()
        loss.backward()
        algorithm.optimiser.step()
    first = torch.from_numpy(data.rows[step == 0][:DRAWS])
    obs, legal = torch.from_numpy(data.obs)[first][None], torch.from_numpy(data.legal)[first][None]
    batch = sampler.sample(DRAWS)._replace(obs=obs, next_obs=obs, legal=legal, next_legal=legal)
    _, actions = algorithm.teach(batch, algorithm.streams.normal(DRAWS, task.agents, task.actions))
    return of_one_tactic(actions[0].numpy())


def test_the_joint_flow_follows_one_tactic_where_independent_flows_mix_two(opening: tuple[Dataset, np.ndarray]) -> None:
    data, step = opening
    recorded = of_one_tactic(data.actions[step == 0])
    joint, independent = (sampled_share(data, step, joint=kind) for kind in (True, False))
    print(
        f"share of joint actions of one tactic: data {recorded:.2f}, joint {joint:.2f}, independent {independent:.2f}"
    )
    assert recorded == 1.0
    assert joint > 0.9
    assert independent < 0.5
