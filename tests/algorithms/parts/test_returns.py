import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from offmarl.algorithms.parts.planner import ReturnScale
from offmarl.algorithms.parts.returns import returns_to_go

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def episodes(lengths):
    """Random rewards and values [N, 2], and the last transitions."""
    ends = torch.tensor(lengths).cumsum(0) - 1
    last = torch.zeros(sum(lengths), dtype=torch.bool)
    last[ends] = True
    return torch.randn(2, sum(lengths), 2, generator=torch.Generator().manual_seed(sum(lengths))), last


@pytest.mark.parametrize("planned", [False, True])
@settings(deadline=None)
@given(LENGTHS, st.floats(0, 1))
def test_one_transition_at_a_time_gives_the_same(planned, lengths, discount):
    (rewards, values), last = episodes(lengths)
    total = torch.zeros_like(rewards)
    for k in reversed(range(len(last))):
        total[k] = rewards[k]
        if not last[k]:
            after = torch.maximum(total[k + 1], values[k + 1]) if planned else total[k + 1]
            total[k] += discount * after
    assert_close(returns_to_go(rewards, last, discount, values if planned else None), total)


@settings(deadline=None)
@given(LENGTHS)
def test_planning_never_lowers_a_return_and_is_nothing_without_values(lengths):
    (rewards, values), last = episodes(lengths)
    plain = returns_to_go(rewards, last, 0.9)
    assert (returns_to_go(rewards, last, 0.9, values) >= plain - 1e-6).all()
    assert_close(returns_to_go(rewards, last, 0.9, torch.full_like(values, -1e9)), plain)


def test_rewards_are_left_alone():
    (rewards, _), last = episodes([3, 2])
    kept = rewards.clone()
    returns_to_go(rewards, last, 0.9)
    assert torch.equal(rewards, kept)


def test_returns_of_a_narrow_range_fill_the_planners_scale():
    scale = ReturnScale(1, 0.0)
    scale.fit(torch.tensor([0.2, 0.3]))
    assert_close(scale.encode(torch.tensor([0.2, 0.25, 0.3])), torch.tensor([-1.0, 0.0, 1.0]))
