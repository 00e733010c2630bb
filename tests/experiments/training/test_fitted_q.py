"""Fitted Q evaluation, against values that are known exactly."""

import itertools

import numpy as np
import pytest
import torch

from offmarl.algorithms.parts.batch import Data, TaskSpec
from offmarl.experiments.training.fitted_q import Settings, fitted_q

STATES, DISCOUNT = 3, 0.8
SPEC = TaskSpec(agents=2, obs=STATES, state=STATES, actions=2, discrete=True)
REWARD = np.array([[[0.0, 1.0], [1.0, -2.0]], [[2.0, 0.0], [0.0, 1.0]], [[-1.0, 0.5], [0.0, 3.0]]])  # [state, a1, a2]
AFTER = np.array([[[1, 2], [0, 1]], [[2, 0], [1, 2]], [[0, 1], [2, 0]]])  # the next state
END = np.zeros((3, 2, 2), bool)
END[2, 1, 1] = True


def exact(policies):
    """The value of each joint policy [P, states, agents] from a state drawn at random: V = r + discount P V, solved."""
    found = []
    for policy in policies:
        r, p = np.zeros(STATES), np.zeros((STATES, STATES))
        for s in range(STATES):
            joint = (s, *policy[s])
            r[s] = REWARD[joint]
            p[s, AFTER[joint]] = not END[joint]
        found.append(np.linalg.solve(np.eye(STATES) - DISCOUNT * p, r).mean())
    return np.array(found)


def transitions(reward=REWARD):
    """Every state and joint action once, each an episode of one step: cut off, or at its end."""
    every = list(itertools.product(range(STATES), range(2), range(2)))
    states = [(s, AFTER[s, a, b]) for s, a, b in every]
    obs = torch.eye(STATES)[torch.tensor(states).flatten()][:, None].expand(-1, 2, -1)
    actions = torch.tensor([joint[1:] for joint in every])
    rewards = torch.tensor([[reward[joint]] * 2 for joint in every], dtype=torch.float32)
    done = torch.tensor([float(END[joint]) for joint in every])
    rows = 2 * torch.arange(len(every))
    return Data(obs, obs[:, 0], None, actions, rewards, done, torch.ones(len(every), dtype=torch.bool), rows), states


def choices_of(policies, states):
    return torch.tensor(np.array(policies))[:, torch.tensor(states).flatten()]


def test_a_joint_critic_finds_the_exact_values_of_a_two_agent_game():
    policies = [[[0, 0]] * 3, [[1, 1]] * 3, [[0, 1], [1, 0], [1, 1]], [[1, 0], [0, 0], [0, 1]]]
    data, states = transitions()
    settings = Settings(steps=800, batch=48, hidden=(32, 32), rate=3e-3, polyak=0.05, discount=DISCOUNT, joint=True)
    assert fitted_q(data, choices_of(policies, states), SPEC, settings).numpy() == pytest.approx(
        exact(policies), abs=0.1
    )


@pytest.mark.parametrize("discrete", [True, False])
def test_the_mean_mixer_values_every_agents_own_choice(discrete):
    """Games of one step that pay each agent for its own action: the value of a policy is what it is paid."""
    spec = TaskSpec(agents=2, obs=1, state=1, actions=2 if discrete else 1, discrete=discrete)
    draws, count = np.random.default_rng(0), 400
    actions = draws.integers(0, 2, (count, 2)) if discrete else draws.uniform(-1, 1, (count, 2, 1)).astype(np.float32)
    rewards = torch.tensor(1.0 - (actions.reshape(count, 2) - 0.5) ** 2, dtype=torch.float32)
    rewards[:, 1] = 0  # the second agent is paid nothing
    ends = torch.ones(count)
    zero, rows = torch.zeros(2 * count, 2, 1), 2 * torch.arange(count)
    data = Data(zero, zero[:, 0], None, torch.tensor(actions), rewards, ends, ends.bool(), rows)
    levels = [[1, 0], [0, 1]] if discrete else [[0.5, 0.0], [-0.5, 0.5], [0.0, -1.0]]
    own = torch.tensor(levels)[:, None].expand(-1, 2 * count, -1)
    paid = [(1 - (first - 0.5) ** 2) / 2 for first, _ in levels]
    found = fitted_q(data, own if discrete else own[..., None], spec, Settings(steps=300, hidden=(32, 32), rate=3e-3))
    assert found.numpy() == pytest.approx(paid, abs=0.05)


def test_an_episode_that_goes_on_is_worth_its_discounted_rewards():
    """One state, a reward of 1 at every step: five steps and an end, whatever is done."""
    spec, length, count = TaskSpec(agents=1, obs=1, state=1, actions=2, discrete=True), 5, 40
    obs = torch.arange(length + 1.0).repeat(count)[:, None, None]
    last = (torch.arange(length) == length - 1).repeat(count)
    rows = (torch.arange(length) + (length + 1) * torch.arange(count)[:, None]).flatten()
    actions = torch.randint(2, (count * length, 1), generator=torch.Generator().manual_seed(0))
    data = Data(obs, obs[:, 0], None, actions, torch.ones(count * length, 1), last.float(), last, rows)
    choices = torch.stack([torch.zeros(len(obs), 1, dtype=torch.int64), torch.ones(len(obs), 1, dtype=torch.int64)])
    found = fitted_q(
        data, choices, spec, Settings(steps=600, batch=64, hidden=(32,), rate=3e-3, polyak=0.1, discount=0.9)
    )
    assert found.numpy() == pytest.approx(sum(0.9**t for t in range(length)), rel=0.05)
