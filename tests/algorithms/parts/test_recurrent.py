"""The memory of the recurrent methods, and their windows of the data."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from offmarl.algorithms.parts.recurrent import AgentGRU, Config, Windows, mean_over
from offmarl.algorithms.parts.streams import SeedStreams

SEEDS = (3, 5)


@pytest.fixture(params=[True, False], ids=["shared", "own"])
def gru(request, make_spec):
    """Makes a network of three agents, whose biases are not zero."""

    def make(**over):
        config = Config(hidden=(6, 8), share_parameters=request.param, **over)
        net = AgentGRU(SeedStreams(SEEDS, "initialisation"), make_spec(), config, 4)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        return net

    return make


def look(rows, windows=6):
    """Observations [S,B,T,I,O] of three agents, in which no episode begins but at the first row."""
    first = torch.zeros(2, windows, rows, dtype=torch.bool)
    first[:, :, 0] = True
    return torch.randn(2, windows, rows, 3, 5), first


def test_the_memory_is_that_of_torchs_gated_recurrent_unit(gru):
    net, (obs, first) = gru(), look(rows=7)
    found = net(obs, first)
    for s in range(2):
        for i in range(3):
            g = s if net.shared else 3 * s + i
            x = torch.cat([obs[s, :, :, i], net.ids[i].expand(6, 7, 3)], -1) if net.shared else obs[s, :, :, i]
            one, two = net.mlp.layers
            x = nn.functional.gelu(x @ one.weight[g] + one.bias[g]) @ two.weight[g] + two.bias[g]
            unit = nn.GRU(8, 8, batch_first=True)
            weights = {"ih": net.of_input, "hh": net.of_memory}
            unit.load_state_dict(
                {f"weight_{n}_l0": part.weight[g].T for n, part in weights.items()}
                | {f"bias_{n}_l0": part.bias[g, 0] for n, part in weights.items()}
            )
            memories, _ = unit(x.relu())
            expected = memories.relu() @ net.last.weight[g] + net.last.bias[g]
            assert_close(found[s, :, :, i], expected, rtol=1e-5, atol=1e-5)


def test_step_by_step_it_gives_what_it_gives_along_a_window(gru):
    net, (obs, first), memory = gru(), look(rows=9), None
    along = net(obs, first)
    for t in range(9):
        out, memory = net.step(obs[:, :, t], memory)
        assert memory.shape == (2, 6, 3, 8)
        assert_close(out, along[:, :, t], rtol=1e-5, atol=1e-6)


def test_the_memory_begins_anew_where_an_episode_does_in_its_own_window_alone(gru):
    net, (obs, first) = gru(), look(rows=8)
    along = net(obs, first)
    first[0, 2, 5] = True
    again = net(obs, first)
    changed = (along != again).flatten(3).any(-1)
    assert changed[0, 2, 5:].all() and changed.sum() == 3
    alone = net(obs[:, :, 5:], first[:, :, 5:])
    assert_close(again[0, 2, 5:], alone[0, 2], rtol=1e-5, atol=1e-6)


def test_burn_in_fills_the_memory_and_gets_no_gradient(gru):
    net, (obs, first) = gru(burn_in=3), look(rows=8)
    obs.requires_grad_()
    whole = net(obs, first)
    assert whole.shape[2] == 5
    whole.square().sum().backward()
    assert not obs.grad[:, :, :3].any() and obs.grad[:, :, 3:].flatten(3).any(-1).all()
    net.burn_in = 0
    assert_close(whole, net(obs, first)[:, :, 3:])  # the same numbers as if nothing were left out


def test_one_agents_network_alone_gives_what_it_gave_among_all(gru):
    net, (obs, first) = gru(), look(rows=4)
    every, (out, memory) = net(obs, first), net.step(obs[:, :, 0], None)
    later, _ = net.step(obs[:, :, 1], memory)
    net.keep_agent(1)
    assert_close(net(obs[:, :, :, 1:2], first), every[:, :, :, 1:2])
    own, held = net.step(obs[:, :, 0, 1:2], None)
    assert_close(own, out[:, :, 1:2])
    assert_close(held, memory[:, :, 1:2])
    assert_close(net.step(obs[:, :, 1, 1:2], held)[0], later[:, :, 1:2])


def test_windows_are_the_datas_consecutive_rows(make_spec, make_data):
    data = make_data(make_spec(), episodes=3, length=4)  # rows 0-4, 5-9, 10-14; transitions 0-3, 4-7, 8-11
    steps = Windows(data, horizon=7, burn_in=2).at(torch.tensor([[0, 2], [5, 11]]))
    rows = torch.tensor([[range(0, 7), range(2, 9)], [range(6, 13), [13, 14, 14, 14, 14, 14, 14]]])
    before = torch.tensor([[[0, 0], [0, 1]], [[4, 5], [11, 12]]])
    assert torch.equal(steps.obs, data.obs[torch.cat([before, rows], 2)])
    assert torch.equal(steps.state, data.state[rows]) and torch.equal(steps.legal, data.legal[rows])
    assert torch.equal(steps.first, torch.cat([before, rows], 2) % 5 == 0)
    assert torch.equal(steps.taken, rows % 5 < 4)
    assert torch.equal(steps.followed, rows[..., :-1] % 5 < 4)
    number = rows - rows // 5 - (rows % 5 == 4).long()  # the last row of an episode repeats its transition
    for name in ("actions", "rewards", "done"):
        assert torch.equal(getattr(steps, name), getattr(data, name)[number]), name


def test_an_episodes_end_without_a_recorded_successor_is_cloned_and_not_valued(make_spec, make_data):
    data = make_data(make_spec(), episodes=3, length=4)
    data.done[[3, 7]] = 0.0  # time-outs that are valued; of the second the last row is there twice
    data.obs[9] = data.obs[8]
    data.obs[2] = data.obs[1]  # nobody moved; that is no end
    data.obs[4, ..., 0] = data.obs[3, ..., 0]  # nor is a successor lost where a number stays as it was
    steps = Windows(data, horizon=15).at(torch.tensor([[0]]))
    assert steps.taken[0, 0].logical_not().nonzero()[:, 0].tolist() == [4, 9, 14]
    assert steps.followed[0, 0].logical_not().nonzero()[:, 0].tolist() == [4, 8, 9]


def test_rows_that_do_not_count_change_no_mean_and_no_gradient():
    values, counts = torch.randn(2, 4, 5, 3), torch.rand(2, 4, 5) < 0.5
    expected = torch.stack([v[c].mean() for v, c in zip(values, counts)])
    assert_close(mean_over(values, counts), expected)
    values = values.masked_fill(~counts[..., None], torch.inf).requires_grad_()  # as of an action that is not legal
    mean_over(values, counts).sum().backward()
    assert_close(mean_over(values, counts).detach(), expected)
    assert not values.grad[~counts].any() and values.grad[counts].all()
    one = torch.zeros(1, 2, 2, dtype=torch.bool)
    one[0, 1, 0] = True
    assert mean_over(torch.full((1, 2, 2), 7.0), one) == 7


def test_the_shortest_window_is_one_transition():
    assert Config(horizon=2).horizon == 2


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"horizon": 1}, {"burn_in": -1}])
def test_settings_that_make_no_window_or_memory_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)
