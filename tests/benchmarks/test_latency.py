import time

import numpy as np
import pytest
import torch

from offmarl.benchmarks.latency import LEAST, MOST, WARM_UP, Decisions, Timing, common, time_decisions

SIGHTS = [(np.full((3, 2), k, np.float32), np.eye(3, 4, k % 4) > 0) for k in range(5)]


class Echo:
    """Acts by what it sees: the action is the observation plus how often it has decided."""

    def __init__(self):
        self.seen = []

    def act(self, obs, legal=None, memory=None):
        self.seen.append((obs.clone(), legal.clone(), None if memory is None else memory.clone()))
        count = torch.zeros(1, 1) if memory is None else memory + 1
        return obs[..., 0] + count[..., None], count


def test_decisions_go_from_the_hosts_observation_to_the_hosts_action_and_remember():
    policy = Echo()
    decide = Decisions(policy, "cpu")
    for k, (obs, legal) in enumerate(SIGHTS):
        action = decide(obs, legal)
        assert isinstance(action, np.ndarray) and action.shape == (1, 1, 3)
        assert (action == 2 * k).all()
        assert torch.equal(policy.seen[k][0][0, 0], torch.from_numpy(obs))
        assert torch.equal(policy.seen[k][1][0, 0], torch.from_numpy(legal))
    assert policy.seen[0][2] is None and policy.seen[4][2].item() == 3


def test_observations_and_memory_stay_where_a_captured_decision_reads_them():
    decide = Decisions(Echo(), "cpu")
    decide(*SIGHTS[0])
    places = [part.data_ptr() for part in (decide.obs, decide.legal, decide.memory)]
    decide(*SIGHTS[1])
    assert [part.data_ptr() for part in (decide.obs, decide.legal, decide.memory)] == places
    assert SIGHTS[0][0].max() == 0  # the caller's arrays are not written to


def test_as_many_decisions_as_there_is_time_for_are_timed_after_a_warm_up():
    calls = []
    timing = time_decisions(lambda obs, legal: calls.append(obs[0, 0]), SIGHTS, seconds=30)
    assert timing.n == MOST and len(calls) == MOST + WARM_UP
    assert calls[:6] == [0, 1, 2, 3, 4, 0]  # the observations, cycled


def test_slow_decisions_are_few_but_never_too_few():
    calls = []

    def slow(obs, legal):
        calls.append(1)
        time.sleep(0.02)

    timing = time_decisions(slow, SIGHTS, seconds=0.01)
    assert timing.n == LEAST and len(calls) == LEAST + 1
    assert 20 <= timing.min_ms <= timing.median_ms <= timing.p95_ms


def test_the_statistics_are_those_of_the_times(monkeypatch):
    clock, spent = [0], iter([*[1e6] * WARM_UP, *(1e6 * k for k in range(1, MOST + 1))])

    def decide(obs, legal):
        clock[0] += next(spent)

    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock[0])
    timing = time_decisions(decide, SIGHTS, seconds=30)
    assert timing.median_ms == pytest.approx((MOST + 1) / 2)
    assert timing.p95_ms == pytest.approx(np.quantile(np.arange(1, MOST + 1), 0.95))
    assert timing.min_ms == 1


def test_times_scale_and_counts_do_not():
    assert Timing(2.0, 3.0, 1.0, 7, 0.9).times(10) == Timing(20.0, 30.0, 10.0, 7, 0.9)


def test_what_measurements_of_one_time_have_in_common_does_not_grow_with_their_number():
    rng = np.random.default_rng(0)
    noisy = [Timing(ms, 2 * ms, ms / 2, 10, 0.9) for ms in 5 * np.exp(0.3 * rng.standard_normal(400))]
    assert common(noisy).median_ms == pytest.approx(common(noisy[:8]).median_ms, rel=0.3)
    assert max(timing.median_ms for timing in noisy) > 1.5 * max(timing.median_ms for timing in noisy[:8])
    assert common([Timing(1, 4, 0.5, 3, 0.8), Timing(9, 9, 9, 4, 0.2), Timing(2, 5, 1.5, 5, 0.9)]) == Timing(
        2, 5, 1.5, 12, 0.8
    )
