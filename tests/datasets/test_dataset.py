"""The canonical form: real transitions only, none of which joins two episodes."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offmarl.algorithms.parts.batch import Window
from offmarl.datasets import sampler
from offmarl.datasets.dataset import Dataset, from_episodes, join
from offmarl.datasets.sampler import Sampler

AGENTS = 2
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def episode(number, length, timeout=False, legal=True):
    """Every value says where it comes from: 100 x episode + step."""
    mark = 100.0 * number + np.arange(length + 1)
    found = {
        "obs": np.tile(mark[:, None, None], (1, AGENTS, 3)).astype(np.float32),
        "state": np.tile(mark[:, None], (1, 4)).astype(np.float32),
        "actions": np.tile(np.arange(length)[:, None] % 5, (1, AGENTS)),
        "rewards": np.stack([mark[:-1], mark[:-1] / 3], 1).astype(np.float32),
        "done": not timeout,
        "timeout": timeout,
    }
    if legal:
        found["legal"] = np.tile((np.arange(5) <= mark[:, None] % 5)[:, None], (1, AGENTS, 1))
    return found


def make(lengths, timeouts=(), legal=True):
    whole = [episode(k, n, k in timeouts, legal) for k, n in enumerate(lengths)]
    return whole, from_episodes(whole, [k % 3 for k in range(len(whole))])


# Joining episodes.


@given(LENGTHS)
def test_no_transition_joins_two_episodes(lengths):
    _, data = make(lengths)
    here, after = data.obs[data.rows, 0, 0], data.obs[data.rows + 1, 0, 0]
    assert np.array_equal(after, here + 1)
    assert np.array_equal(here // 100, data.episode)
    assert np.array_equal(after // 100, data.episode)
    assert np.array_equal(data.state[data.rows, 0], here)


@given(LENGTHS)
def test_the_next_row_is_the_following_one_of_the_same_episode(lengths):
    _, data = make(lengths)
    inside = ~(data.done | data.timeout)
    assert np.array_equal(data.rows[1:][inside[:-1]], data.rows[:-1][inside[:-1]] + 1)
    assert np.array_equal(data.rows[1:][~inside[:-1]], data.rows[:-1][~inside[:-1]] + 2)  # the last row is skipped


@given(LENGTHS)
def test_every_transition_is_kept_and_none_is_invented(lengths):
    whole, data = make(lengths)
    assert len(data) == sum(lengths)
    assert len(data.obs) == sum(lengths) + len(lengths)
    for name in ("actions", "rewards"):
        assert np.array_equal(getattr(data, name), np.concatenate([e[name] for e in whole]))
    assert np.bincount(data.episode).tolist() == lengths


@given(LENGTHS, st.sets(st.integers(0, 5)))
def test_an_episode_ends_exactly_once_by_the_flag_it_was_given(lengths, timeouts):
    _, data = make(lengths, timeouts)
    last = np.cumsum(lengths) - 1
    by_clock = np.array([k in timeouts for k in range(len(lengths))])
    assert np.flatnonzero(data.timeout).tolist() == last[by_clock].tolist()
    assert np.flatnonzero(data.done).tolist() == last[~by_clock].tolist()


@given(LENGTHS)
def test_returns_equal_a_plain_sum(lengths):
    whole, data = make(lengths)
    plain = [sum(float(np.mean(row)) for row in e["rewards"]) for e in whole]
    assert data.returns() == pytest.approx(plain, rel=1e-6)


def test_statistics_are_those_of_the_episodes():
    whole, data = make([1, 2, 6])
    returns = np.array([e["rewards"].mean(1).sum() for e in whole])
    assert data.statistics() == {
        "episodes": 3,
        "transitions": 9,
        "return_mean": pytest.approx(returns.mean(), abs=1e-4),
        "return_std": pytest.approx(returns.std(), abs=1e-4),
        "length_mean": 3.0,
    }


def test_arrays_have_the_documented_types_and_make_the_dataset_again():
    _, data = make([3, 1, 2], {1})
    kinds = {f.name: getattr(data, f.name).dtype for f in dataclasses.fields(data)}
    assert kinds["obs"] == kinds["state"] == kinds["rewards"] == np.float32
    assert kinds["legal"] == kinds["done"] == kinds["timeout"] == np.bool_
    assert (kinds["actions"], kinds["rows"]) == (np.int64, np.int64)
    assert (kinds["episode"], kinds["behaviour"]) == (np.int32, np.int16)
    again = Dataset(**data.arrays())
    assert all(np.array_equal(getattr(again, name), value) for name, value in data.arrays().items())
    assert data.behaviour.tolist() == [0, 1, 2]


def test_continuous_data_need_no_masks():
    _, data = make([3, 2], legal=False)
    assert data.legal is None
    assert "legal" not in data.arrays()
    batch = Sampler(data, [0]).sample(4)
    assert batch.legal is None and batch.next_legal is None


@given(LENGTHS, LENGTHS, st.sets(st.integers(0, 5)), st.floats(0.2, 1), st.booleans())
def test_joined_datasets_are_the_first_episodes_of_each_end_to_end(one, other, timeouts, share, legal):
    (first, data), (second, more) = make(one, timeouts, legal), make(other, legal=legal)
    kept = round(share * len(first))
    if not kept:
        return
    expected = from_episodes([*first[:kept], *second], [0] * (kept + len(second)))
    joined = join([(data, share), (more, 1.0)])
    for name, value in expected.arrays().items():
        if name != "behaviour":
            assert np.array_equal(getattr(joined, name), value)
            assert getattr(joined, name).dtype == value.dtype
    new = joined.behaviour[kept:] - more.behaviour
    assert (new == new[0]).all()
    assert joined.behaviour[:kept].tolist() == data.behaviour[:kept].tolist()
    assert not set(joined.behaviour[:kept]) & set(joined.behaviour[kept:])  # nobody recorded both


# Inconsistent arrays.

CHANGES = {
    "an episode without an end": lambda d: {"done": np.zeros_like(d.done)},
    "an end inside an episode": lambda d: {"done": d.done | (np.arange(len(d)) == 1)},
    "a timeout inside an episode": lambda d: {"timeout": np.arange(len(d)) == 0},
    "an end that is missing in the middle": lambda d: {"done": d.done & (np.arange(len(d)) == len(d) - 1)},
    "a row of obs too few": lambda d: {"obs": d.obs[:-1]},
    "a row of obs too many": lambda d: {"obs": np.concatenate([d.obs, d.obs[:1]])},
    "one behaviour too few": lambda d: {"behaviour": d.behaviour[:-1]},
    "states of fewer rows": lambda d: {"state": d.state[:-1]},
    "masks of fewer rows": lambda d: {"legal": d.legal[:-1]},
    "an action too few": lambda d: {"actions": d.actions[:-1]},
    "a reward too few": lambda d: {"rewards": d.rewards[:-1]},
    "a row too few": lambda d: {"rows": d.rows[:-1]},
    "a flag too few": lambda d: {"timeout": d.timeout[:-1]},
    "a row that joins two episodes": lambda d: {"rows": np.where(np.arange(len(d)) == 3, 3, d.rows)},
    "rows beyond the end": lambda d: {"rows": d.rows + 1},
}


@pytest.mark.parametrize("change", CHANGES)
def test_arrays_that_do_not_fit_together_are_refused(change):
    _, data = make([3, 2])
    with pytest.raises(ValueError):
        dataclasses.replace(data, **CHANGES[change](data))


def test_the_refusal_says_which_transition_is_wrong():
    _, data = make([3, 2])
    with pytest.raises(ValueError, match="transition 1"):
        dataclasses.replace(data, done=data.done | (np.arange(5) == 1))


# Batches.


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.sets(st.integers(0, 5)), st.integers(0, 1000))
def test_batches_hold_real_transitions_only(lengths, timeouts, seed):
    _, data = make(lengths, timeouts)
    batch = Sampler(data, [seed, seed + 1]).sample(32)
    here, after = batch.obs[..., 0, 0].numpy(), batch.next_obs[..., 0, 0].numpy()
    assert np.array_equal(after, here + 1)
    assert np.array_equal(here // 100, after // 100)
    step = (here % 100).astype(int)
    number = (here // 100).astype(int)
    assert (step < np.array(lengths)[number]).all()
    assert np.array_equal(batch.actions.numpy(), np.repeat(step[..., None] % 5, AGENTS, -1))
    following = np.minimum(step + 1, np.array(lengths)[number] - 1)  # the last has none but its own
    assert np.array_equal(batch.next_actions.numpy(), np.repeat(following[..., None] % 5, AGENTS, -1))
    np.testing.assert_allclose(batch.rewards[..., 0], here)
    assert np.array_equal(batch.done.numpy(), step == np.array(lengths)[number] - 1)
    assert np.array_equal(batch.state[..., 0], here) and np.array_equal(batch.next_state[..., 0], after)
    for mask, mark in ((batch.legal, here), (batch.next_legal, after)):
        assert np.array_equal(mask.numpy(), np.repeat((np.arange(5) <= mark[..., None] % 5)[:, :, None], AGENTS, 2))


def test_every_transition_is_drawn_about_equally_often():
    _, data = make([1, 6, 3, 5])
    drawn = Sampler(data, [0]).sample(15_000).obs[0, :, 0, 0].numpy()
    count = np.array([(drawn == data.obs[row, 0, 0]).sum() for row in data.rows])
    assert count.sum() == 15_000
    assert count.min() > 1000 - 5 * 31 and count.max() < 1000 + 5 * 31  # five standard deviations


@pytest.mark.parametrize("group", [[5], [3, 5], [5, 9, 3], [3, 0, 5, 8]])
def test_a_seeds_batches_do_not_depend_on_the_seeds_beside_it(group):
    _, data = make([4, 6, 2])
    alone, together = (Sampler(data, seeds, window=Window(2, 3)) for seeds in ([5], group))
    for _ in range(3):
        one, many = alone.sample(16), together.sample(16)
        for part, parts in zip(one, many):
            assert torch.equal(part[0], parts[group.index(5)])


def test_seeds_draw_different_batches_and_time_goes_on():
    _, data = make([6] * 6)
    sampler = Sampler(data, [0, 1])
    first, second = sampler.sample(32), sampler.sample(32)
    assert not torch.equal(first.obs[0], first.obs[1])
    assert not torch.equal(first.obs, second.obs)


def test_a_sampler_continues_from_the_state_of_its_streams():
    _, data = make([6, 4])
    sampler = Sampler(data, [0, 1], window=Window(2, 3))
    sampler.sample(8)
    state, expected = sampler.streams.state_dict(), sampler.sample(8)
    other = Sampler(data, [0, 1], window=Window(2, 3))
    other.streams.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(other.sample(8), expected))


@pytest.mark.parametrize(("bootstrap", "ends"), [(False, [4.0, 105.0]), (True, [4.0])])
def test_timeouts_end_an_episode_unless_they_bootstrap(bootstrap, ends):
    _, data = make([5, 6], timeouts={1})
    batch = Sampler(data, [0], timeout_bootstrap=bootstrap).sample(512)
    assert sorted(set(batch.obs[0, :, 0, 0][batch.done[0] == 1].tolist())) == ends
    assert (batch.next_obs[0, :, 0, 0] == batch.obs[0, :, 0, 0] + 1).all()
    assert {4.0, 105.0} <= set(batch.obs[0, :, 0, 0].tolist())


def test_a_team_that_stands_still_at_a_cut_is_followed_where_others_are():
    _, data = make([5, 6, 7], timeouts={0, 1, 2})
    for still in ([0], [1], [0, 1]):
        obs = data.obs.copy()
        cut = data.rows[np.flatnonzero(data.timeout)[still]]
        obs[cut + 1] = obs[cut]
        assert dataclasses.replace(data, obs=obs).successors.all()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_time_out_without_a_successor_is_left_out_of_bootstrapped_batches(recorded):
    """A layout that did not record what follows the cut has its last row twice."""
    _, data = make([5, 6], timeouts={1})
    cut = data.rows[-1]
    if not recorded:
        data.obs[cut + 1] = data.obs[cut]
    assert data.successors.tolist() == [True] * 10 + [recorded]
    for bootstrap in (False, True):
        batch = Sampler(data, [0, 1], timeout_bootstrap=bootstrap).sample(512)
        seen = set(batch.number.flatten().tolist())
        assert seen == set(range(10 if bootstrap and not recorded else 11))
        assert np.array_equal(batch.obs, data.obs[data.rows[batch.number]])


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.sets(st.integers(0, 5)), st.integers(0, 6), st.integers(1, 6))
def test_windows_show_the_episode_and_nothing_else(lengths, timeouts, history, horizon):
    _, data = make(lengths, timeouts)
    batch = Sampler(data, [0, 1], window=Window(history, horizon)).sample(16)
    assert batch.window.shape == (2, 16, history + horizon, *data.obs.shape[1:])
    marks, here = batch.window[..., 0, 0].numpy(), batch.obs[..., 0, 0].numpy()  # 100 times the episode, and the step
    assert np.array_equal(marks[..., history], here)
    episode = here // 100
    steps = here[..., None] + np.arange(-history, horizon)
    first, last = 100 * episode, 100 * episode + np.array(lengths)[episode.astype(int)]
    assert np.array_equal(marks, np.clip(steps, first[..., None], last[..., None]))


def test_a_batch_says_which_transitions_it_holds():
    _, data = make([5, 6, 2])
    batch = Sampler(data, [0, 1]).sample(16)
    assert np.array_equal(batch.obs, data.obs[data.rows[batch.number]])
    assert batch.window is None


@pytest.mark.parametrize("mapped", [False, True])
def test_arrays_reach_another_device_slice_by_slice(mapped, tmp_path, monkeypatch):
    values = np.arange(1000, dtype=np.float32).reshape(50, 4, 5)
    np.save(tmp_path / "x.npy", values)
    received = torch.zeros(values.shape)
    monkeypatch.setattr(sampler, "SENT_BYTES", 3 * values[0].nbytes)
    monkeypatch.setattr(torch, "empty", lambda *shape, **how: received)
    stored = np.load(tmp_path / "x.npy", mmap_mode="c") if mapped else values
    assert sampler.to_device(stored, "meta") is received
    assert np.array_equal(received.numpy(), values)


def test_a_mapped_array_is_not_held_while_it_is_sent(tmp_path):
    """300 MB of a file on their way to a device that keeps nothing: the process grows by a few slices."""
    code = """
import resource, sys, numpy as np, torch
from offmarl.datasets import sampler
sampler.SENT_BYTES = 2**24
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
values = np.load(sys.argv[1], mmap_mode="c")
assert sampler.to_device(values, "meta").shape == values.shape
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""
    file = tmp_path / "large.npy"
    values = np.lib.format.open_memmap(file, "w+", np.float32, (75_000, 1000))
    values[::100] = 1.0
    values.flush()
    grown = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 100


def test_a_dataset_without_transitions_and_odd_episode_numbers_are_refused():
    _, data = make([2, 3])
    with pytest.raises(ValueError, match="rows: there is no transition"):
        nothing = {name: values[:0] for name, values in data.arrays().items()}
        Dataset(**{"legal": None, **nothing})
    for wrong, k in (data.episode + 1, 0), (-data.episode, 2), (data.episode * 2, 2):
        with pytest.raises(ValueError, match=f"episode, transition {k}: .*count them from 0"):
            dataclasses.replace(data, episode=wrong)
