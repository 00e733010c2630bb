"""Derived datasets: whole episodes in the amounts that are asked for, drawn by the seed, nested as they grow."""

import numpy as np
import pytest
from dial import Dial
from scipy.stats import ks_2samp

from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.derived import Recipe, derive

ONE, TWO = Dial(conventions=3, episodes=60, length=6).dataset(), Dial(episodes=40, length=9, seed=1).dataset()


def of(*parents, **recipe):
    names = tuple(f"games/dial:{k}" for k in range(len(parents)))
    return derive(Recipe(names, **recipe), parents)


def episodes(data):
    starts = data.rows[np.searchsorted(data.episode, np.arange(len(data.behaviour)))]
    return {data.obs[row : row + 3].tobytes() for row in starts}


def paying(returns):
    """Episodes of one step that pay these returns."""
    row = {"obs": np.zeros((2, 1, 1), np.float32), "state": np.zeros((2, 1), np.float32), "done": np.True_}
    row |= {"legal": np.ones((2, 1, 1), bool), "actions": np.zeros((1, 1), np.int64), "timeout": np.False_}
    found = [row | {"rewards": np.full((1, 1), value, np.float32)} for value in returns]
    return from_episodes(found, [0] * len(found))


def test_all_of_one_parent_is_the_parent_bit_for_bit():
    whole = of(ONE).data.arrays()
    assert all(np.array_equal(values, whole[name]) for name, values in ONE.arrays().items())


def test_a_smaller_share_lies_within_a_larger_one_and_another_seed_is_another_draw():
    few, some = (of(ONE, fraction=share) for share in (0.1, 0.5))
    assert (few.taken, some.taken) == ([6], [30])
    assert episodes(few.data) < episodes(some.data) < episodes(ONE)
    assert episodes(of(ONE, fraction=0.1, seed=1).data) != episodes(few.data)
    assert episodes(of(ONE, episodes=6).data) == episodes(few.data)


@pytest.mark.parametrize(
    ("recipe", "taken"),
    [
        ({}, [60, 40]),
        ({"weights": (0.5, 0.5)}, [40, 40]),
        ({"weights": (0.75, 0.25)}, [60, 20]),
        ({"weights": (0.5, 0.5), "episodes": 11}, [6, 5]),
        ({"weights": (0.5, 0.5), "fraction": 0.5}, [20, 20]),
        ({"weights": (0.5, 0.5), "transitions": 180}, [15, 10]),
    ],
)
def test_weights_are_shares_of_what_is_taken(recipe, taken):
    made = of(ONE, TWO, **recipe)
    assert made.taken == taken
    assert len(made.data.behaviour) == sum(taken)
    assert set(made.data.behaviour[: taken[0]]).isdisjoint(made.data.behaviour[taken[0] :])
    assert len(made.data) == taken[0] * 6 + taken[1] * 9


def test_only_one_behaviour_is_left():
    data = of(ONE, behaviours=(2,)).data
    assert set(data.behaviour) == {2} and len(data.behaviour) == 20


def test_returns_become_like_those_of_another_dataset():
    rng = np.random.default_rng(0)
    parent, like = paying(rng.uniform(0, 10, 4000)), paying(rng.normal(5, 1, 500).clip(0.1, 9.9))
    recipe = Recipe(("a:b",), like="a:c")
    made = derive(recipe, [parent], like).data.returns()
    assert ks_2samp(parent.returns(), like.returns()).statistic > 0.2
    assert ks_2samp(made, like.returns()).statistic < 0.08 and len(made) > 500
    few = derive(Recipe(("a:b",), like="a:c", episodes=100), [parent], like).data.returns()
    assert len(few) == 100 and ks_2samp(few, like.returns()).statistic < 0.15


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"episodes": 61}, "61 episodes of games/dial:0 are asked for, and 60 may be taken"),
        ({"transitions": 361}, "361 transitions of games/dial:0 are asked for, and 360 may be taken"),
        ({"transitions": 5}, "5 transitions of games/dial:0 are asked for: less than its first episode has"),
        ({"behaviours": (3,)}, "games/dial:0 has no behaviour 3; it has 0, 1, 2"),
    ],
)
def test_what_a_parent_does_not_have_is_said(recipe, reason):
    with pytest.raises(ValueError, match=reason):
        of(ONE, **recipe)


def test_returns_that_a_parent_never_has_are_said():
    with pytest.raises(ValueError, match=r"18% of a:c return 9 to 10, and no episode of a:b that may be taken does"):
        derive(Recipe(("a:b",), like="a:c"), [paying(range(9))], paying(range(11)))
