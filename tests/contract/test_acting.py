"""What every method promises about acting. A new file in algorithms/ is tested here without a change."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.parts.nets import MLP, AgentNet
from offmarl.experiments.training.method import acting_networks, load_networks

SEEDS = (3, 5)


def uses_noise(algorithm, obs, legal):
    """Whether acting draws from the acting streams."""
    before = algorithm.acting.state_dict()
    algorithm.act(obs, legal)
    return not all(map(torch.equal, before, algorithm.acting.state_dict()))


def test_lanes_act_alike_when_others_are_not_asked(build, spec, look):
    algorithm, lanes = build(), torch.tensor([[1, 4, 5, 9], [0, 2, 10, 11]])
    obs, legal = look(spec, episodes=12)
    before, rows = algorithm.acting.state_dict(), torch.arange(2)[:, None]
    every, _ = algorithm.act(obs, legal)
    after = algorithm.acting.state_dict()
    algorithm.acting.load_state_dict(before)
    with algorithm.acting_for(lanes, 12):
        some, memory = algorithm.act(obs[rows, lanes], None if legal is None else legal[rows, lanes])
    assert_close(some, every[rows, lanes])
    assert all(map(torch.equal, after, algorithm.acting.state_dict()))
    assert memory is None or memory.shape[:2] == lanes.shape


def test_actions_have_the_shape_and_type_of_the_task(build, spec, look):
    algorithm = build()
    for episodes in (1, 4):
        obs, legal = look(spec, episodes=episodes)
        actions, _ = algorithm.act(obs, legal)
        if spec.discrete:
            assert actions.shape == (2, episodes, spec.agents) and actions.dtype == torch.int64
        else:
            assert actions.shape == (2, episodes, spec.agents, spec.actions) and actions.dtype == torch.float32
            assert actions.abs().max() <= 1.0
        assert not actions.requires_grad


def test_only_legal_actions_are_taken(build, batch, spec, views, train):
    algorithm = train(build(), [batch(draw) for draw in range(2)])
    obs, legal = views
    free, _ = algorithm.act(100 * obs, None)
    if not spec.discrete:
        assert free.abs().max() <= 1.0
        return
    assert free.min() >= 0 and free.max() < spec.actions
    actions, _ = algorithm.act(100 * obs, legal)
    assert legal.gather(-1, actions[..., None]).all()
    assert not legal.gather(-1, free[..., None]).all()  # the mask matters
    for only in range(spec.actions):  # as for a dead unit
        single = torch.zeros_like(legal)
        single[..., only] = True
        assert (algorithm.act(100 * obs, single)[0] == only).all()


def test_acting_depends_on_the_agents_own_observation(build, views):
    algorithm = build(play="zero")
    obs, _ = views
    actions, other = (algorithm.act(x, None)[0] for x in (obs, obs.flip(1)))
    assert (actions != other).flatten(3 if actions.ndim == 4 else 2).any(-1).float().mean() > 0.2


@pytest.mark.parametrize("noise", ["zero", "fixed"])
def test_acting_needs_other_agents_observations_only_where_execution_is_centralised(build, spec, look, noise):
    algorithm = build(play=noise)
    with torch.no_grad():  # what joins the agents may start at zero and open only by training
        for parameter in algorithm.nets.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    obs, legal = look(spec, episodes=64)  # a small influence shows in few episodes only
    actions, _ = algorithm.act(obs, legal)
    changed = dict.fromkeys(range(spec.agents), False)
    for j in range(spec.agents):
        altered, mask = obs.clone(), None if legal is None else legal.clone()
        altered[:, :, j] = -3 * obs[:, :, j].flip(1)
        if mask is not None:
            mask[:, :, j] = legal[:, :, j].flip(1)
        again, _ = algorithm.act(altered, mask)
        for i in set(changed) - {j}:
            changed[i] |= not torch.equal(actions[:, :, i], again[:, :, i])
    centralised = algorithm.execution == "centralised"
    assert changed == dict.fromkeys(range(spec.agents), centralised)


def test_agents_differ_with_shared_parameters_and_without(build, spec, views):
    obs = views[0][:, :, :1].expand(-1, -1, spec.agents, -1)  # all see the same
    for share in (True, False):
        actions, _ = build(share_parameters=share, play="zero").act(obs, None)
        for i, j in itertools.combinations(range(spec.agents), 2):
            assert not torch.equal(actions[:, :, i], actions[:, :, j]), f"share_parameters={share}"


def test_agents_have_weights_of_their_own_without_sharing(build):
    shared, apart = build(share_parameters=True), build(share_parameters=False)
    assert apart.parameters() > shared.parameters()
    for net in (m for m in apart.nets.modules() if isinstance(m, AgentNet)):
        assert not net.shared
        maps = net.mlp.layers[0].weight
        assert len(maps) == len(SEEDS) * net.copies * net.agents
        assert len({tuple(m.flatten().tolist()) for m in maps}) == len(maps)


def test_nfe_is_the_number_of_network_calls_of_one_decision(build, views):
    algorithm = build()
    calls = []
    for (
        net
    ) in algorithm.nets.children():  # a perceptron may multiply in its first layer in advance: its last one counts
        perceptron = net.mlp if isinstance(net, AgentNet) else net
        part = perceptron.layers[-1] if isinstance(perceptron, MLP) else net
        part.register_forward_hook(lambda *_: calls.append(1))
    algorithm.act(*views)
    assert len(calls) == algorithm.nfe() >= 1


@pytest.mark.parametrize("noise", ["zero", "fixed"])
def test_acting_repeats_itself_without_fresh_noise(build, views, noise):
    algorithm = build(play=noise)
    assert not uses_noise(algorithm, *views)
    assert torch.equal(algorithm.act(*views)[0], algorithm.act(*views)[0])


def test_fresh_noise_changes_the_actions_of_methods_that_use_noise(build, views):
    algorithm = build(play="own")
    differs = not torch.equal(algorithm.act(*views)[0], algorithm.act(*views)[0])
    assert differs == uses_noise(algorithm, *views)
    assert algorithm.acting_rule() or not differs  # tables say what is drawn
    same_place = not torch.equal(algorithm.act(*views)[0], build(play="zero").act(*views)[0])
    assert same_place == differs


def test_fixed_noise_is_one_draw_for_all_episodes(build, views):
    algorithm = build(play="fixed")
    noise = algorithm.acting_noise(4, 3, 2)
    assert noise.shape == (2, 4, 3, 2)
    assert (noise == noise[:, :1]).all() and noise[:, 0].unique().numel() == noise[:, 0].numel()
    assert torch.equal(noise[:, :2], algorithm.acting_noise(2, 3, 2))
    assert torch.equal(noise[1:], build([SEEDS[1]], play="fixed").acting_noise(4, 3, 2))
    obs, _ = views
    actions, _ = algorithm.act(obs[:, :1].expand_as(obs), None)
    assert (actions == actions[:, :1]).all()


def test_fresh_noise_is_standard_normal_and_a_seeds_own(build):
    algorithm = build(play="own")
    noise = algorithm.acting_noise(50, 40, 5)
    assert noise.mean((1, 2, 3)).abs().max() < 0.05 and (noise.std((1, 2, 3)) - 1).abs().max() < 0.05
    assert torch.equal(noise[1:], build([SEEDS[1]], play="own").acting_noise(50, 40, 5))
    assert not torch.equal(noise[0], noise[1])
    assert (algorithm.acting_noise(50, 40, 5) != noise).any()


@pytest.mark.parametrize("share", [True, False])
def test_an_agent_kept_alone_acts_as_it_does_in_the_team(case, build, batch, spec, look, train, share):
    def make():
        return build(play="zero", share_parameters=share)

    team = train(make(), [batch(draw) for draw in range(2)])
    if team.execution != "decentralised":
        with pytest.raises(ValueError, match="no agent can act alone"):
            team.keep_agent(0)
        return
    obs, legal = look(spec, episodes=8)
    first, memory = team.act(obs, legal)
    second, _ = team.act(obs.flip(1), legal, memory)
    for agent in range(spec.agents):
        alone = make()
        alone.load_nets(team.nets.state_dict())
        alone.keep_agent(agent)
        own, mask = obs[:, :, [agent]], None if legal is None else legal[:, :, [agent]]
        one, memory = alone.act(own, mask)
        other, _ = alone.act(own.flip(1), mask, memory)
        assert_close(one, first[:, :, [agent]], rtol=0, atol=1e-4)  # round-off, which a chain of calls enlarges
        assert_close(other, second[:, :, [agent]], rtol=0, atol=1e-4)


def test_the_networks_that_act_are_enough_to_decide(build, batch, spec, look, train):
    """A policy that ships has no others; what is no network's own, such as a normaliser, goes along."""
    whole, obs = train(build(play="zero"), [batch(draw) for draw in range(2)]), look(spec, episodes=8)
    acting = acting_networks(whole)
    first, memory = whole.act(*obs)
    second, _ = whole.act(*obs, memory)
    alone = build(play="zero")
    load_networks(alone, acting)
    again, memory = alone.act(*obs)
    assert torch.equal(again, first) and torch.equal(alone.act(*obs, memory)[0], second)
    assert set(alone.nets) == {name.partition(".")[0] for name in acting}
    assert not any(name.startswith("target_") for name in alone.nets)
    for name in {key.partition(".")[0] for key in acting}:
        with pytest.raises(ValueError, match="is missing"):
            load_networks(build(), {key: value for key, value in acting.items() if key.partition(".")[0] != name})
