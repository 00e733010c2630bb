"""Networks with the seed axis, against plain networks without it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.algorithms.parts.nets import MLP, AgentNet, LayerNorm, Linear, frozen, polyak, target_copy
from offmarl.algorithms.parts.streams import SeedStreams

SEEDS = (3, 5)
TIGHT = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def streams():
    return SeedStreams(SEEDS, "initialisation")


@pytest.fixture
def scramble():
    """Random values in place of zeros and ones, so that no bias or norm can hide."""

    @torch.no_grad()
    def fill(net):
        g = torch.Generator().manual_seed(2)
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) / parameter.shape[-2] ** 0.5)
        return net

    return fill


def agent_net(streams, hidden, shared, agents=3, **over):
    """A network of `agents` with 5 inputs and 4 outputs."""
    config = BaseConfig(hidden=hidden, share_parameters=shared)
    return AgentNet(streams, TaskSpec(agents, 5, 7, 4, True), config, 5, 4, **over)


def plain(mlp, group, x):
    """What one group of weights makes of x [..., in], layer by layer."""
    for k, layer in enumerate(mlp.layers):
        x = F.linear(x, layer.weight[group].T, layer.bias[group, 0])
        if k < len(mlp.layers) - 1:
            x = F.gelu(x)
            if mlp.norms is not None:
                norm = mlp.norms[k]
                x = F.layer_norm(x, x.shape[-1:], norm.weight[group, 0], norm.bias[group, 0])
    return x


# Layers


@pytest.mark.parametrize("copies", [1, 3])
def test_linear_equals_one_plain_map_for_each_group(streams, scramble, copies):
    layer, x = scramble(Linear(streams, copies, 5, 4)), torch.randn(2 * copies, 7, 5)
    out = layer(x)
    assert out.shape == (2 * copies, 7, 4)
    for g in range(2 * copies):
        assert_close(out[g], F.linear(x[g], layer.weight[g].T, layer.bias[g, 0]), **TIGHT)


def test_linear_starts_xavier_uniform_with_zero_bias(streams):
    layer, bound = Linear(streams, 2, 60, 40), (6 / (60 + 40)) ** 0.5
    assert (layer.bias == 0).all()
    assert layer.weight.abs().max() <= bound
    for weight in layer.weight:
        assert weight.max() > 0.99 * bound and weight.min() < -0.99 * bound
        assert abs(weight.mean()) < 0.03 * bound
        assert_close(weight.std().item(), bound / 3**0.5, rtol=0.03, atol=0)


def test_the_last_layer_starts_like_the_others(streams):
    for layer in MLP(streams, 30, (40, 50), 60).layers:
        bound = (6 / sum(layer.weight.shape[1:])) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound


def test_layer_norm_equals_plain_layer_norm_for_each_group(scramble):
    layer, x = scramble(LayerNorm(3, 6)), 4 * torch.randn(3, 7, 6) + 1
    out = layer(x)
    for g in range(3):
        assert_close(out[g], F.layer_norm(x[g], (6,), layer.weight[g, 0], layer.bias[g, 0]), **TIGHT)


def test_layer_norm_starts_as_plain_normalisation():
    x = 4 * torch.randn(3, 7, 6) + 1
    assert_close(LayerNorm(3, 6)(x), F.layer_norm(x, (6,)), **TIGHT)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_mlp_equals_a_plain_network_for_each_group(streams, scramble, hidden, layer_norm):
    net = scramble(MLP(streams, 5, hidden, 4, layer_norm, copies=2))
    x = torch.randn(4, 3, 7, 5)  # any axes between group and input
    out = net(x)
    assert out.shape == (4, 3, 7, 4)
    for g in range(4):
        assert_close(out[g], plain(net, g, x[g]), **TIGHT)


# Agents


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_agent_net_equals_a_plain_network_for_each_seed_copy_and_agent(streams, scramble, shared, copies, layer_norm):
    agents = 3
    net = scramble(agent_net(streams, (8, 6), shared, agents, layer_norm=layer_norm, copies=copies))
    first, second = torch.randn(2, 7, agents, 2), torch.randn(2, 7, agents, 3)
    out = net(first, second)
    assert out.shape == ((2, copies, 7, agents, 4) if copies > 1 else (2, 7, agents, 4))
    out = out.view(2, copies, 7, agents, 4)
    x = torch.cat([first, second], -1)
    for s in range(2):
        for k in range(copies):
            for i in range(agents):
                own = x[s, :, i]
                if shared:
                    own, group = torch.cat([own, torch.eye(agents)[i].expand(7, agents)], -1), s * copies + k
                else:
                    group = (s * copies + k) * agents + i
                assert_close(out[s, k, :, i], plain(net.mlp, group, own), **TIGHT)


@pytest.mark.parametrize("shared", [True, False])
def test_ensemble_copies_differ_at_the_start(streams, shared):
    net = agent_net(streams, (8,), shared, copies=2)
    out = net(torch.randn(2, 7, 3, 5))
    assert (out[:, 0] != out[:, 1]).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("copies", [1, 2])
def test_a_seed_starts_with_the_same_weights_in_any_company(streams, shared, copies):
    def make(streams):
        return agent_net(streams, (8, 6), shared, layer_norm=True, copies=copies)

    together = make(streams).state_dict()
    for k, seed in enumerate(SEEDS):
        alone = make(SeedStreams([seed], "initialisation")).state_dict()
        for name, value in together.items():
            assert torch.equal(value.unflatten(0, (2, -1))[k], alone[name]), name


def test_gradients_of_groups_do_not_mix(streams):
    net = agent_net(streams, (8,), False, layer_norm=True, copies=2)
    net(torch.randn(2, 7, 3, 5))[0, 1, :, 2].sum().backward()  # first seed, second copy, third agent
    for name, parameter in net.named_parameters():
        touched = parameter.grad.flatten(1).abs().sum(1).nonzero().flatten().tolist()
        assert touched == [5], name


# Targets and constants


def test_gradients_pass_through_a_frozen_network_but_not_into_it(streams):
    net, x = MLP(streams, 5, (8,), 4), torch.randn(2, 7, 5, requires_grad=True)
    before = net(x).sum()
    with frozen(net):
        through = net(x).sum()
    through.backward()
    assert (x.grad != 0).all() and all(p.grad is None for p in net.parameters())
    before.backward()  # what was computed outside still learns
    assert all(p.requires_grad and p.grad is not None for p in net.parameters())


def test_a_frozen_network_thaws_after_an_error(streams):
    net = MLP(streams, 5, (8,), 4)
    with pytest.raises(KeyError), frozen(net):
        raise KeyError
    assert all(p.requires_grad for p in net.parameters())


def test_a_target_is_an_equal_copy_that_no_gradient_reaches(streams):
    net = MLP(streams, 5, (8,), 4)
    target = target_copy(net)
    for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
        assert torch.equal(slow, fast) and slow.data_ptr() != fast.data_ptr()
        assert fast.requires_grad and not slow.requires_grad


def test_polyak_follows_its_closed_form():
    net, target = nn.Linear(5, 4).double(), target_copy(nn.Linear(5, 4).double())
    fast, slow = ([p.detach().clone() for p in each.parameters()] for each in (net, target))
    for _ in range(7):
        polyak(target, net, 0.3)
    for start, goal, now in zip(slow, fast, target.parameters()):
        assert_close(now, goal + 0.7**7 * (start - goal), rtol=1e-12, atol=1e-12)
    assert all(map(torch.equal, fast, net.parameters()))


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_polyak_at_its_ends_stays_or_copies_exactly(rate, kind):
    net, target = nn.Linear(5, 4), target_copy(nn.Linear(5, 4))
    before = [p.clone() for p in target.parameters()]
    polyak(target, net, kind(rate))
    expected = net.parameters() if rate else before
    assert all(map(torch.equal, target.parameters(), expected))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_a_network_given_its_first_input_is_the_same_function(streams, scramble, shared, copies, layer_norm):
    net = scramble(agent_net(streams, (8, 6), shared, copies=copies, layer_norm=layer_norm))
    x = torch.randn(len(SEEDS), 7, 3, 5)
    known, rest = x[..., :2], (x[..., 2:4], x[..., 4:])
    whole = net(x)
    with torch.no_grad():
        given = net.given(known)
        assert_close(given(*rest), whole, rtol=1e-6, atol=1e-6)
        assert_close(given(*(2 * each for each in rest)), net(torch.cat([known, 2 * x[..., 2:]], -1)), **TIGHT)
    assert torch.equal(net.given(known)(*rest), whole)  # with gradients, it is the very same computation


def test_an_mlp_given_its_first_inputs_takes_their_product_once(streams, scramble, monkeypatch):
    net = scramble(MLP(streams, 5, (8,), 4))
    x, products = torch.randn(len(SEEDS), 6, 5), []
    whole, baddbmm = net(x), torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda *args: products.append(args[1].shape[-1]) or baddbmm(*args))
    with torch.no_grad():
        given = net.given(x[..., :3])
        assert_close(given(x[..., 3:]), whole, rtol=1e-6, atol=1e-6)
        given(x[..., 3:])
    assert products == [3, 2, 8, 2, 8]
