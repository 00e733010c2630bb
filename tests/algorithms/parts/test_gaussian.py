import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from offmarl.algorithms.parts.gaussian import LOG_STD, MEAN, TanhGaussian, log_normal, tanh_gaussian


@given(mean=st.floats(-2, 2), log_std=st.floats(-3, 0.7), noise=st.floats(-3, 3))
def test_the_density_is_that_of_the_transformed_distribution(mean, log_std, noise):
    policy = TanhGaussian(*torch.tensor([[mean], [log_std]], dtype=torch.float64))
    action, log_density = policy.sample(torch.tensor([noise], dtype=torch.float64))
    base = torch.distributions.Normal(policy.mean, policy.log_std.exp())
    expected = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform(cache_size=1))
    sample = expected.transforms[0](policy.mean + policy.log_std.exp() * noise)
    assert_close(action, sample)
    assert_close(log_density, expected.log_prob(sample).sum(), rtol=1e-6, atol=1e-6)


def test_the_density_integrates_to_one():
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1, None]
    policy = TanhGaussian(*torch.tensor([[0.3], [-0.7]], dtype=torch.float64))
    density = policy.log_density(grid, 1 - 1e-9).exp()
    assert_close(torch.trapezoid(density, grid[:, 0]), torch.tensor(1.0, dtype=torch.float64))


def test_an_action_has_the_density_with_which_it_was_drawn():
    torch.manual_seed(0)
    mean, log_std = 0.5 * torch.randn(2, 50, 3, dtype=torch.float64)
    policy = TanhGaussian(mean, log_std - 1)
    actions, log_density = policy.sample(torch.randn(50, 3, dtype=torch.float64))
    assert_close(policy.log_density(actions, 1 - 1e-12), log_density, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("edge", [0.9, 0.99, 1 - 1e-7])
def test_actions_beyond_the_edge_have_the_density_of_the_edge(edge):
    """For a mean of 0 and a deviation of 1: log N(atanh(e)) - log(1 - e^2)."""
    x = 0.5 * math.log((1 + edge) / (1 - edge))
    expected = torch.tensor(-0.5 * x**2 - 0.5 * math.log(2 * math.pi) - math.log(1 - edge**2), dtype=torch.float64)
    policy = TanhGaussian(*torch.zeros(2, 1, dtype=torch.float64))
    for action in (-1.0, -edge, edge, (1 + edge) / 2, 1.0):
        assert_close(policy.log_density(torch.tensor([action], dtype=torch.float64), edge), expected)
    within = torch.tensor([0.8], dtype=torch.float64)
    assert_close(policy.log_density(within, edge), policy.log_density(within, 0.95 * edge))


def test_data_at_the_edge_and_extreme_networks_have_finite_densities():
    policy = tanh_gaussian(torch.tensor([1e6, -1e6, 1e6, -1e6]))
    assert policy.mean.tolist() == [MEAN, -MEAN] and policy.log_std.tolist() == [LOG_STD[1], LOG_STD[0]]
    for edge in ([1.0, -1.0], [-1.0, 1.0]):
        assert policy.log_density(torch.tensor(edge), 1 - 1e-7).isfinite()
    assert policy.mode().abs().max() <= 1


def test_the_normal_density_is_torchs():
    x, mean, log_std = torch.randn(3, 40, 2)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(x).sum(-1)
    assert_close(log_normal(x, mean, log_std), expected)


def test_expanding_repeats_the_policy_for_every_draw():
    policy = TanhGaussian(torch.randn(2, 5, 3), torch.randn(2, 5, 3))
    many, noise = policy.expand(4), torch.randn(2, 4, 5, 3)
    actions, log_density = many.sample(noise)
    for n in range(4):
        one, density = policy.sample(noise[:, n])
        assert_close(actions[:, n], one)
        assert_close(log_density[:, n], density)


def test_a_joint_density_is_the_product_of_its_coordinates():
    policy = tanh_gaussian(torch.linspace(-1, 0.5, 30, dtype=torch.float64).view(5, 6))
    assert policy.mean.shape == policy.log_std.shape == (5, 3)
    actions, log_density = policy.sample(torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3))
    alone = [
        TanhGaussian(*(p[:, k : k + 1] for p in policy)).log_density(actions[:, k : k + 1], 1 - 1e-12) for k in range(3)
    ]
    assert_close(log_density, sum(alone))
