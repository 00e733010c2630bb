import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.algorithms.parts.unet import AgentAttention, Conv, UNet, mish


def net(seeds=(0, 1), agents=1, size=5, **over):
    return UNet(
        SeedStreams(seeds, "test"), size, **{"width": 8, "multipliers": (1, 2), "groups": 2, **over}, agents=agents
    )


def inputs(seeds=2, rows=6, length=8, size=5):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(seeds, rows, length, size, generator=g)
    time = torch.randint(200, (seeds, rows), generator=g)
    return x, time, torch.rand(seeds, rows, generator=g), torch.ones(seeds, rows)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_at_the_papers_size_it_has_the_papers_parameters():
    """SMAC 3m, 30 numbers an observation and three of an id: measured on the official code, without its dead parts."""
    full = UNet(SeedStreams([0], "test"), 33, agents=3)
    attention = sum(map(count, full.attention))
    assert count(full) - attention == pytest.approx(59.75e6, rel=1e-3)
    assert [count(place) / 1e6 for place in full.attention] == pytest.approx([1.97, 1.97, 0.59], abs=0.01)
    assert [place.features["value"].weight.shape[1] for place in full.attention] == [1024, 1024, 512]


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 4)])
def test_windows_keep_their_shape(multipliers):
    x, *rest = inputs()
    assert net(multipliers=multipliers)(x, *rest).shape == x.shape


def test_every_seed_has_a_network_of_its_own():
    x, *rest = inputs()
    together = net((3, 5), agents=3)(x, *rest)
    for k, seed in enumerate((3, 5)):
        alone = net((seed,), agents=3)(x[k : k + 1], *(part[k : k + 1] for part in rest))
        assert_close(together[k], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", [1, 2])
def test_step_and_return_are_heard(what):
    one = list(inputs())
    other = list(one)
    other[what] = one[what] + 3
    unet = net()
    assert ((unet(*one) - unet(*other)).abs().amax((2, 3)) > 1e-4).all()


def test_a_return_that_is_not_kept_makes_no_difference():
    x, time, returns, keep = inputs()
    unet = net()
    assert torch.equal(unet(x, time, returns, 0 * keep), unet(x, time, returns + 3, 0 * keep))
    assert not torch.equal(unet(x, time, returns, keep), unet(x, time, returns, 0 * keep))


def moved(unet, x, rest, row):
    """Which rows change when one does."""
    altered = x.clone()
    altered[:, row] += 1
    return ((unet(altered, *rest) - unet(x, *rest)).abs().amax((0, 2, 3)) > 0).nonzero().flatten().tolist()


def test_rows_meet_in_attention_alone_and_there_only_their_team():
    x, *rest = inputs()
    assert moved(net(), x, rest, 1) == [1]
    team = net(agents=3)
    assert moved(team, x, rest, 1) == [1]  # the gates are shut at first
    optimiser = torch.optim.SGD(team.parameters(), lr=1.0)
    team(x, *rest).square().sum().backward()
    optimiser.step()
    assert moved(team, x, rest, 1) == [0, 1, 2]
    assert moved(team, x, rest, 5) == [3, 4, 5]


def test_attention_is_a_mean_of_values_by_likeness_over_channels_and_time():
    """Against the formula, head by head, for one sample of three agents."""
    attention = AgentAttention(SeedStreams([0], "test"), 3, 32, 6)
    torch.nn.init.constant_(attention.gate, 0.5)
    x, condition = torch.randn(3, 32, 4), torch.randn(1, 3, 6)

    def part(name):  # [agents, heads, numbers]
        features, more = attention.features[name], attention.conditions[name]
        bias = 0 if features.bias is None else features.bias[:, None]
        out = torch.einsum("oc,ict->iot", features.weight[..., 0], x) + bias
        return (out + (condition[0] @ more.weight[0] + more.bias[0, 0])[..., None]).reshape(3, 4, -1)

    query, key, value = part("query"), part("key"), part("value")
    mixed = torch.zeros(3, 4, value.shape[-1])
    for head in range(4):
        score = query[:, head] @ key[:, head].T / query.shape[-1] ** 0.5
        mixed[:, head] = score.softmax(-1) @ value[:, head]
    assert_close(attention(x, condition), x + 0.5 * mixed.reshape(3, 32, 4))


def test_mish_without_gradients_is_mish():
    x = torch.cat([torch.linspace(-100, 100, 2001), torch.tensor([-1e30, 1e30])])
    with torch.no_grad():
        assert_close(mish(x), torch.nn.functional.mish(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("channels", [3, 16, 33])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2), (1, 1)])
def test_a_convolution_of_every_seed_is_torchs_own(channels, kernel, stride):
    streams = SeedStreams([0, 1], "test")
    conv, x = Conv(streams, channels, 8, kernel, stride), torch.randn(6, 2 * channels, 8)
    found = conv(x).unflatten(1, (2, 8))
    for s in range(2):
        own = (part.unflatten(0, (2, -1))[s] for part in (conv.weight, conv.bias))
        one = torch.nn.functional.conv1d(x.unflatten(1, (2, -1))[:, s], *own, stride=stride, padding=(kernel - 1) // 2)
        assert_close(found[:, s], one, rtol=1e-4, atol=1e-5)


def test_weights_and_biases_begin_as_torchs_convolutions_do():
    """Uniform within 1 / sqrt(inputs of an output), on both sides of zero."""
    conv = Conv(SeedStreams([0, 1], "test"), 32, 64, 5)
    bound = 1 / math.sqrt(32 * 5)
    for part in (conv.weight, conv.bias):
        assert -bound <= part.min() < -0.9 * bound and 0.9 * bound < part.max() <= bound
        assert part.mean().abs() < 0.15 * bound


def test_the_condition_joins_between_two_blocks_and_the_residual_after_them():
    block = net().down[0].first
    x, condition = torch.randn(6, 2 * 5, 8), torch.randn(2, 6, 16)
    added = block.condition(condition).transpose(0, 1).reshape(6, 16, 1)
    first, residual = block.first(x), block.residual(x)
    assert_close(block(x, condition), block.second(first + added) + residual)


@pytest.mark.parametrize("agents", [1, 2])
def test_the_networks_way_written_out(agents):
    """Down, the middle, and up with what was there on the way down; agents attend after the middle and at the skip."""
    unet, (x, time, returns, keep) = net(agents=agents), inputs()
    assert len(unet.attention) == (2 if agents > 1 else 0)
    with torch.no_grad():
        for place in unet.attention:
            place.gate += 1.0
    condition = unet.condition(time, returns, keep)
    flat = torch.stack([x[s, :, :, n] for s in range(2) for n in range(5)], 1)
    wide = unet.down[0](flat, condition)
    deep = unet.down[1](unet.shrink[0](wide), condition)
    middle, skip = unet.middle(deep, condition), deep
    if agents > 1:
        middle, skip = unet.attention[0](middle, condition), unet.attention[1](skip, condition)
    both = torch.cat([part[:, s * 16 : (s + 1) * 16] for s in range(2) for part in (middle, skip)], 1)
    out = unet.head[1](unet.head[0](unet.grow[0](unet.up[0](both, condition))))
    assert_close(unet(x, time, returns, keep), torch.stack([out[:, :5], out[:, 5:]]).transpose(2, 3))


def test_keys_alone_have_no_bias():
    features = net(agents=3).attention[0].features
    assert {name for name, feature in features.items() if feature.bias is None} == {"key"}
