"""An agent alone decides as it did among all, in teams of any size; and the scale of returns."""

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.dof import DoF
from offmarl.algorithms.madiff_d import MADiffD
from offmarl.algorithms.parts.planner import ReturnScale


@pytest.fixture
def build(make_spec, make_data, small_planner):
    def make(cls, agents):
        spec = make_spec("continuous", agents=agents)
        algorithm = cls(spec, cls.Config(**small_planner, diffusion_steps=5, return_to_go=True), [3, 5])
        algorithm.prepare(make_data(spec))
        algorithm.play = "zero"
        return algorithm

    return make


@pytest.mark.parametrize("agents", [2, 3])
@pytest.mark.parametrize("cls", [MADiffD, DoF])
def test_every_agent_alone_follows_its_own_view_and_rewards(build, cls, agents):
    team = build(cls, agents)
    obs, rewards = torch.rand(2, 4, agents, 5), torch.rand(2, 4, agents)
    with torch.no_grad():
        for parameter in team.nets.parameters():  # away from the initialisation, where attention is shut
            parameter += 0.1 * torch.randn_like(parameter)
    memory = team.rewarded(team.act(obs)[1], rewards)
    together = team.act(obs, None, memory)[0]
    for agent in range(agents):
        alone, own = build(cls, agents), slice(agent, agent + 1)
        alone.load_nets(team.nets.state_dict())
        alone.keep_agent(agent)
        memory = alone.rewarded(alone.act(obs[:, :, own])[1], rewards[..., own])
        assert_close(alone.act(obs[:, :, own], None, memory)[0], together[:, :, own], atol=1e-5, rtol=1e-5)


def test_the_plan_of_two_agents_has_each_in_its_own_view(build, monkeypatch):
    team = build(MADiffD, 2)
    marks = torch.arange(4).view(1, -1, 1, 1) / 10  # rows of an episode: view 0 of agents 0 and 1, view 1 of them

    def told(x, time, returns):
        asked.append(returns)
        return (x - team.abar[time].sqrt() * marks.expand_as(x)) / (1 - team.abar[time]).sqrt()

    asked: list[torch.Tensor] = []
    monkeypatch.setattr(team, "guided", told)
    plan = team.plan(torch.zeros(2, 1, 3, 2, 7), torch.tensor([0.25, 0.75]).expand(2, 1, 2))
    assert_close(plan[:, 0, :, 0], torch.tensor([[0.0, 0.3]]).expand(2, -1), atol=1e-3, rtol=0)
    assert_close(asked[0], torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(2, -1))


def test_continuous_actions_are_decoded_into_the_datas_range(build, monkeypatch):
    team = build(MADiffD, 3)
    encoded = torch.full((2, 4, 3, 4), 0.5)
    monkeypatch.setattr(team.nets["inverse"], "forward", lambda *_: encoded)
    acted = team.act(torch.rand(2, 4, 3, 5))[0]
    assert_close(acted, team.action_range.decode(encoded).clamp(-1, 1))
    assert not torch.allclose(acted, encoded)


def test_returns_that_are_all_equal_are_zero_and_small_ones_are_not_crushed():
    scale = ReturnScale(1, 0.0)
    scale.fit(torch.full((10,), 3.0))
    assert scale.encode(torch.tensor(3.0)) == 0
    scale.fit(torch.tensor([0.0, 0.02]))
    assert_close(scale.encode(torch.tensor([0.0, 0.01, 0.02])), torch.tensor([[-1.0, 0.0, 1.0]])[0], atol=1e-5, rtol=0)
