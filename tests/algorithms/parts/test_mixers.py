import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.parts.mixers import Monotonic, StateWeights, mix
from offmarl.algorithms.parts.streams import SeedStreams

SEEDS = (3, 5)


def streams(seeds=SEEDS):
    return SeedStreams(seeds, "initialisation")


def test_the_mean_mixer_averages_agents_and_none_leaves_them():
    values = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    assert_close(mix(values, "mean"), torch.tensor([[3.0], [1.0]]))
    assert mix(values, "none") is values
    assert_close(mix(torch.tensor([[4.0]]), "mean"), torch.tensor([[4.0]]))  # one agent: its own value


def test_the_monotonic_mixer_never_falls_when_an_agents_value_rises():
    mixer, state = Monotonic(streams(), 3, 7), torch.randn(2, 64, 7)
    values = (3 * torch.randn(2, 2, 64, 3)).requires_grad_()
    (slope,) = torch.autograd.grad(mixer(values, state).sum(), values)
    assert (slope >= 0).all() and (slope > 0).float().mean() > 0.9
    assert slope.std() > 0.01  # and the slope depends on the state: it is no average


def test_the_monotonic_mixer_is_the_formula_of_qmix():
    mixer, state, values = Monotonic(streams([3]), 3, 7), torch.randn(1, 5, 7), torch.randn(1, 2, 5, 3)
    for k in range(2):
        for b in range(5):
            s = state[:, b : b + 1]
            first = mixer.first(s).abs().view(3, mixer.width)
            hidden = torch.nn.functional.elu(values[0, k, b] @ first + mixer.first_bias(s)[0, 0])
            expected = hidden @ mixer.last(s).abs()[0, 0] + mixer.last_bias(s)[0, 0, 0]
            assert_close(mixer(values, state)[0, k, b, 0], expected)


@pytest.mark.parametrize("bias", [True, False])
def test_state_weights_are_never_negative_and_follow_the_state(bias):
    net = StateWeights(streams(), 4, 7, bias=bias)
    weights, offset = net(torch.randn(2, 50, 7))
    assert weights.shape == (2, 50, 4) and offset.shape == (2, 50)
    assert (weights >= 0).all() and weights.std(1).min() > 0.01
    assert (offset != 0).any() == bias


@pytest.mark.parametrize("make", [Monotonic, StateWeights])
def test_a_seeds_mixer_is_the_same_in_any_company(make):
    both, alone = make(streams(), 3, 7), make(streams([5]), 3, 7)
    for one, other in zip(both.parameters(), alone.parameters()):
        assert torch.equal(one.unflatten(0, (2, -1))[1], other)


def test_a_team_has_one_value_and_one_offset():
    state = torch.randn(2, 5, 7)
    assert Monotonic(streams(), 3, 7)(torch.randn(2, 2, 5, 3), state).shape == (2, 2, 5, 1)
    assert StateWeights(streams(), 3, 7).bias(state).shape == (2, 5, 1)
