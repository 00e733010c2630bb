import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from offmarl.algorithms.parts.normalise import SAMPLE, Normaliser


def fitted(values, kind, copies=2):
    normaliser = Normaliser(copies, values.shape[-1], kind)
    normaliser.fit(values)
    return normaliser


@pytest.mark.parametrize("kind", ["cdf", "limits"])
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), rows=st.integers(2, 400), scale=st.floats(0.1, 100))
def test_the_way_there_and_back_ends_where_it_began(kind, seed, rows, scale):
    values = scale * torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    normaliser = fitted(values, kind)
    coded = normaliser.encode(values)
    assert coded.shape == values.shape and coded.abs().max() <= 1
    assert_close(normaliser.decode(coded), values, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", ["cdf", "limits"])
def test_order_is_kept_and_what_lies_outside_is_cut(kind):
    values = torch.randn(1000, 1).exp()
    normaliser = fitted(values, kind)
    coded = normaliser.encode(values.sort(0).values)
    assert (coded.diff(dim=0) >= 0).all() and coded[0] == -1 and coded[-1] == 1
    assert normaliser.encode(torch.tensor([[-100.0], [1e6]])).flatten().tolist() == [-1, 1]


def test_ranks_make_any_distribution_uniform_and_limits_do_not():
    values = torch.randn(20_000, 1).exp()
    shares = {
        k: fitted(values, k).encode(values).histogram(10, range=(-1.0, 1.0)).hist / 20_000 for k in ("cdf", "limits")
    }
    assert (shares["cdf"] - 0.1).abs().max() < 0.01
    assert shares["limits"][0] > 0.5


def test_limits_are_a_straight_line():
    values = torch.tensor([[0.0, 5.0], [10.0, 7.0]])
    coded = fitted(values, "limits").encode(torch.tensor([[2.5, 6.0], [5.0, 5.0]]))
    assert_close(coded, torch.tensor([[-0.5, 0.0], [0.0, -1.0]]))


def test_a_value_that_is_frequent_gets_its_mean_rank():
    values = torch.cat([torch.zeros(6000), torch.ones(2000), 2 * torch.ones(2000)])[:, None]
    coded = fitted(values, "cdf").encode(torch.tensor([[0.0], [1.0], [2.0]]))
    assert_close(coded.flatten(), torch.tensor([-0.4, 0.4, 0.8]), atol=0.01, rtol=0)


def test_a_coordinate_that_never_varies_is_zero_and_comes_back():
    normaliser = fitted(torch.full((50, 2), 3.0), "cdf")
    coded = normaliser.encode(torch.tensor([[3.0, 3.0]]))
    assert_close(coded, torch.zeros(1, 2), atol=2e-3, rtol=0)
    assert normaliser.decode(coded).tolist() == [[3.0, 3.0]]


def test_unfitted_it_only_cuts():
    assert_close(
        Normaliser(1, 1, "cdf").encode(torch.tensor([[-3.0], [0.25], [2.0]])), torch.tensor([[-1.0], [0.25], [1.0]])
    )


def test_every_seed_carries_the_whole_map():
    state = fitted(torch.randn(100, 2), "cdf", copies=3).state_dict()
    assert all(len(table) == 3 and (table == table[:1]).all() for table in state.values())


def test_many_rows_are_mapped_as_few_are():
    values = torch.randn(10_000, 2)
    normaliser = fitted(values, "cdf")
    assert torch.equal(normaliser.encode(values.view(100, 100, 2))[7], normaliser.encode(values.view(100, 100, 2)[7]))


@pytest.mark.parametrize("agents, steps", [(2, 25), (3, 25), (4, 50)])
def test_the_knots_see_every_agent_and_every_time(agents, steps):
    """Rows in the order of episodes, times and agents: evenly spaced ones would alias with agents or times."""
    rows = 4 * SAMPLE // (agents * steps) * agents * steps
    number = torch.arange(rows)
    agent, time = number % agents, number // agents % steps
    values = torch.stack([agent, time, torch.where(time == 0, 0, number % 7919)], 1).float()
    normaliser = fitted(values, "cdf", copies=1)
    for k, count in ((0, agents), (1, steps)):
        assert normaliser.knots[0, k].unique().numel() == count
        each = normaliser.encode(torch.arange(count)[:, None].expand(-1, 3).float())[:, k]
        assert_close(each, (2 * torch.arange(count) + 1) / count - 1, atol=0.02, rtol=0)
    assert normaliser.knots[0, 2].unique().numel() > 400  # a velocity, zero at the start of every episode
    again = fitted(values, "cdf", copies=1)
    assert torch.equal(again.knots, normaliser.knots)


def test_values_that_are_no_knots_come_back():
    """Among them rare values, whose whole mass lies between two knots."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(100_000, 2, generator=draw)
    values[:, 1] = torch.where(torch.rand(100_000, generator=draw) < 0.001, 0.1, values[:, 1].sign())
    normaliser = fitted(values, "cdf")
    assert 0.1 not in normaliser.knots[0, 1].tolist()
    assert_close(normaliser.decode(normaliser.encode(values)), values, rtol=1e-5, atol=1e-5)


def test_as_many_values_as_knots_are_the_knots():
    values = torch.arange(513.0).square()[:, None]
    normaliser = fitted(values[torch.randperm(513)], "cdf", copies=1)
    assert torch.equal(normaliser.knots[0, 0], values[:, 0])
    assert_close(normaliser.decode(torch.linspace(-1, 1, 513)[:, None]), values)


@pytest.mark.parametrize("kind", ["cdf", "limits"])
def test_every_axis_but_the_last_is_rows(kind):
    values = torch.randn(40, 3, 5)
    whole, flat = fitted(values, kind), fitted(values.flatten(0, 1), kind)
    assert torch.equal(whole.knots, flat.knots) and torch.equal(whole.ranks, flat.ranks)
