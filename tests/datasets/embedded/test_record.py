"""Recording: whole episodes, legal actions, behaviours in turn."""

import numpy as np
import pytest

from offmarl.benchmarks.random_policy import random_legal
from offmarl.datasets.embedded.record import record
from offmarl.datasets.embedded.tactics import ATTACK, NORTH, STOP, Tactic


def first_legal(view, rng):
    """The first legal action of every agent."""
    return view.legal.argmax(-1)


def last_legal(view, rng):
    """The last legal action of every agent."""
    return view.legal.shape[-1] - 1 - view.legal[..., ::-1].argmax(-1)


def legal_of_actions(data):
    """Whether each recorded action was legal: [N,I]."""
    return np.take_along_axis(data.legal[data.rows], data.actions[..., None], 2)[..., 0]


@pytest.mark.parametrize("episodes", [1, 8, 13])
def test_as_many_episodes_are_recorded_as_were_asked_for(countdown, episodes):
    told = []
    data = record(countdown(8), [first_legal], episodes, 0.0, 40, told.append)
    assert len(data.behaviour) == episodes
    assert sum(told) == episodes


def test_episodes_are_recorded_to_their_end_and_not_beyond(countdown):
    data = record(countdown(8), [first_legal], 20, 0.0, 40)
    seeds = data.state[data.rows, 0][np.append(True, np.diff(data.episode) > 0)].astype(int)
    assert seeds.tolist() == list(range(40, 60))
    length = 1 + seeds % 4
    assert np.bincount(data.episode).tolist() == length.tolist()
    assert data.returns() == pytest.approx([s * n + n * (n - 1) / 2 for s, n in zip(seeds, length)])
    assert np.array_equal(data.timeout[data.done | data.timeout], seeds % 3 == 0)
    assert np.array_equal(data.state[data.rows, 1], np.concatenate([np.arange(n) for n in length]))
    assert np.array_equal(data.state[data.rows + 1, 1], data.state[data.rows, 1] + 1)


def test_the_reward_of_the_team_is_every_agents(countdown):
    data = record(countdown(8), [first_legal], 8, 0.0, 40)
    assert data.rewards.shape == (len(data), 3)
    assert (data.rewards == data.rewards[:, :1]).all()


def test_agents_that_are_rewarded_apart_keep_their_own(countdown):
    together, apart = (record(countdown(8, apart=split), [first_legal], 8, 0.0, 40) for split in (False, True))
    assert np.array_equal(apart.rewards, together.rewards + np.array([-1, 0, 1], np.float32))
    assert apart.returns() == pytest.approx(together.returns())


def test_behaviours_take_turns_by_episode(countdown):
    data = record(countdown(8), [first_legal, last_legal, first_legal], 20, 0.0, 0)
    assert data.behaviour.tolist() == [k % 3 for k in range(20)]
    early = data.state[data.rows, 1] % 2 == 0  # agents have a second action then
    moved = data.actions.any(1)
    assert np.array_equal(moved, early & (data.behaviour[data.episode] == 1))


def test_a_behaviour_sees_only_the_lanes_of_its_turn(countdown):
    seen = []

    def spy(view, rng):
        seen.append(view.state[:, 0].astype(int).tolist())
        assert view.obs.shape[0] == view.legal.shape[0] == len(seen[-1])
        return view.legal.argmax(-1)

    record(countdown(6), [spy, first_legal], 6, 0.0, 100)
    assert all(lanes == [100, 102, 104] for lanes in seen)


def test_without_noise_the_behaviour_decides(countdown):
    data = record(countdown(8), [last_legal], 16, 0.0, 1)
    expected = data.legal.shape[-1] - 1 - data.legal[data.rows][..., ::-1].argmax(-1)
    assert np.array_equal(data.actions, expected)


def test_with_full_noise_every_action_is_random_and_legal(battles):
    data = record(battles, [first_legal], 64, 1.0, 5)
    assert legal_of_actions(data).all()
    free = ~data.legal[data.rows][:, :, 0]  # of those alive, which have at least a stop
    share = np.bincount(data.actions[free], minlength=9) / free.sum()
    legal = data.legal[data.rows][free]
    expected = (legal / legal.sum(-1, keepdims=True)).mean(0)
    assert share == pytest.approx(expected, abs=0.02)


def test_noise_comes_in_its_share(countdown):
    data = record(countdown(64), [first_legal], 1280, 0.3, 0)
    two = data.legal[data.rows].sum(-1) == 2  # a random action is the other one half the time
    assert (data.actions[two] > 0).mean() == pytest.approx(0.15, abs=0.03)


def test_a_random_legal_action_is_uniform():
    legal = np.array([[[True, False, True, True], [False, True, False, False]]])
    rng = np.random.default_rng(0)
    drawn = np.concatenate([random_legal(legal, rng) for _ in range(3000)])
    assert (drawn[:, 1] == 1).all()
    assert np.bincount(drawn[:, 0], minlength=4) / 3000 == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.04)


def test_a_recording_repeats_itself_and_another_seed_is_another(battles, marines):
    flanks = [Tactic(marines, lane=22.0), Tactic(marines, lane=10.0)]
    one, two, other = (record(battles, flanks, 70, 0.2, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(getattr(two, name), value) for name, value in one.arrays().items())
    assert one.obs.shape != other.obs.shape or not np.array_equal(one.obs, other.obs)


# Tactics on three marines.


@pytest.fixture(scope="module")
def flanks(battles, marines):
    """128 battles of two flanks, north and south in turn."""
    return record(battles, [Tactic(marines, lane=22.0), Tactic(marines, lane=10.0)], 128, 0.0, 0)


def test_recorded_battles_have_only_legal_actions(flanks):
    assert legal_of_actions(flanks).all()


def test_no_recorded_battle_is_longer_than_the_limit(battles, marines):
    pacifist = record(battles, [Tactic(marines, reach=0.0, panic=40.0)], 64, 0.0, 0)
    assert pacifist.timeout.any()
    assert np.bincount(pacifist.episode).max() == marines.limit


def test_returns_of_battles_lie_between_none_and_twenty(flanks):
    returns = flanks.returns()
    assert returns.min() >= 0
    assert returns.max() == pytest.approx(20, abs=1e-3)


def test_what_follows_an_action_is_what_the_battle_made_of_it(flanks):
    shown = flanks.state[flanks.rows + 1][:, 21:].reshape(-1, 3, 9)  # last actions are part of the state
    assert np.array_equal(shown.argmax(-1), flanks.actions)


def test_flanks_separate_the_teams(flanks):
    step = np.arange(len(flanks)) - np.searchsorted(flanks.episode, flanks.episode)
    team = flanks.state[flanks.rows[step == 8]]
    north = flanks.behaviour[flanks.episode[step == 8]] == 0
    y = team[:, [3, 7, 11]].mean(1) * 32 + 16
    assert north.sum() > 40 and (~north).sum() > 40
    assert y[north].mean() - y[~north].mean() > 6


def test_a_flanking_team_moves_as_one_at_first(flanks):
    first = flanks.actions[np.append(True, np.diff(flanks.episode) > 0)]
    assert (first == first[:, :1]).all()
    assert set(first[:, 0]) == {NORTH, NORTH + 1}


def tactic_view(marines, allies, foes, reload=(0, 0, 0), shut=()):
    """One episode's view: places in map cells, everything legal but `shut`; None is a dead unit."""
    from offmarl.benchmarks.env import View

    state = np.zeros((1, 48), np.float32)
    legal = np.ones((1, 3, 9), bool)
    legal[:, :, 0] = False
    for k, place in enumerate(allies):
        if place is None:
            legal[0, k] = np.arange(9) == 0
        else:
            state[0, 4 * k : 4 * k + 4] = [1, reload[k], (place[0] - 16) / 32, (place[1] - 16) / 32]
    for k, place in enumerate(foes):
        if place is not None:
            state[0, 12 + 3 * k : 15 + 3 * k] = [1, (place[0] - 16) / 32, (place[1] - 16) / 32]
    for action in shut:
        legal[:, :, action] = False
    return View(np.zeros((1, 3, 30), np.float32), state, legal)


ALLIES, FOES = [(10, 16), (10, 17), None], [(13, 16), (14.5, 17), None]  # the first of them is nearest to both


@pytest.mark.parametrize(
    ("tactic", "expected"),
    [
        ({}, [ATTACK, ATTACK, 0]),
        ({"reach": 3.1}, [ATTACK, 4, 0]),  # the second goes east to come nearer
        ({"lane": 22.0}, [NORTH, NORTH, 0]),
        ({"lane": 10.0}, [NORTH + 1, NORTH + 1, 0]),
        ({"lane": 16.5}, [ATTACK, ATTACK, 0]),  # they are there
        ({"give_way": 5.0}, [5, ATTACK, 0]),  # the first reloads and goes west
        ({"panic": 3.1}, [5, ATTACK, 0]),
    ],
)
def test_a_tactic_decides_as_described(marines, tactic, expected):
    view = tactic_view(marines, ALLIES, FOES, reload=(0.9, 0, 0))
    assert Tactic(marines, **tactic)(view, None).tolist() == [expected]


def test_a_tactic_whose_ways_are_shut_stops(marines):
    view = tactic_view(marines, ALLIES, FOES, shut=(2, 3, 4, 5))
    assert Tactic(marines, lane=22.0)(view, None).tolist() == [[STOP, STOP, 0]]


def test_a_tactic_without_enemies_in_sight_goes_east(marines):
    view = tactic_view(marines, ALLIES, [None, None, (30, 16)], shut=(6, 7, 8))
    assert Tactic(marines)(view, None).tolist() == [[4, 4, 0]]
