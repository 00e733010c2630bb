"""Aggregates, tests and corrections against closed forms and independent computations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rliable import metrics
from scipy.stats import t, ttest_ind

from offmarl.reports.tables import stats

RNG = np.random.default_rng(3)
SCORES = {"a": RNG.normal(1.0, 0.3, (6, 5)), "b": RNG.normal(0.7, 0.2, (6, 5)), "c": RNG.normal(1.1, 0.5, (4, 5))}


def test_the_four_aggregates_are_rliables_and_those_of_a_count_by_hand():
    found = stats.aggregates(SCORES)
    for name, matrix in SCORES.items():
        flat = np.sort(matrix.ravel())
        cut = len(flat) // 4
        four = [
            flat[cut:-cut].mean(),
            np.median(matrix.mean(axis=0)),
            matrix.mean(),
            np.maximum(1 - matrix, 0).mean(),
        ]
        assert [found[name][metric][0] for metric in stats.METRICS] == pytest.approx(four, abs=1e-12)
        assert list(stats._all_four(matrix)) == pytest.approx(four, abs=1e-12)
        assert found[name]["iqm"][0] == pytest.approx(metrics.aggregate_iqm(matrix), abs=1e-12)


def test_the_intervals_are_those_of_a_stratified_bootstrap():
    low, high = stats.aggregates(SCORES)["a"]["iqm"][1:]
    rng, draws = np.random.default_rng(9), []
    for _ in range(20_000):
        drawn = np.take_along_axis(SCORES["a"], rng.integers(6, size=(6, 5)), axis=0)
        draws.append(np.sort(drawn, axis=None)[7:23].mean())
    error = 4 * np.std(draws) * (0.025 * 0.975 / stats.RESAMPLES) ** 0.5 / 0.058  # of a percentile; normal density
    assert [low, high] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=error)


def test_intervals_do_not_depend_on_chance_or_company_and_leave_numpys_state_alone():
    np.random.seed(5)
    both = stats.aggregates(SCORES), stats.improvement(SCORES, "b")
    after = np.random.random()
    np.random.seed(5)
    assert np.random.random() == after
    assert stats.aggregates({"c": SCORES["c"]})["c"] == both[0]["c"]
    assert stats.improvement({"b": SCORES["b"], "a": SCORES["a"]}, "b")["a"] == both[1]["a"]


def test_fewer_than_three_seeds_have_neither_intervals_nor_tests():
    few = SCORES | {"b": SCORES["b"][:2]}
    assert np.isnan([stats.aggregates(few)["b"][metric][1:] for metric in stats.METRICS]).all()
    assert np.isnan(stats.improvement(few, "b")["a"][1:]).all() and stats.improvement(few, "b")["a"][0] > 0.5
    share, low, high = stats.profiles(few, np.array([0.0, 0.5, 9.0]))["b"]
    assert share[-1] == 0 and np.isnan(low).all() and np.isnan(high).all()
    tests = stats.against(few, "a")
    assert np.isnan(tests["b"]).all() and tests["c"][1] == tests["c"][0]  # one test that counts needs no correction


def test_improvement_is_the_share_of_all_pairs():
    scores = {"x": np.array([[1.0, 5.0], [3.0, 5.0], [4.0, 6.0]]), "y": np.array([[1.0, 7.0], [2.0, 5.0], [0.0, 5.0]])}
    wins = [(1.5 + 3 + 3) / 9, (1 + 1 + 2) / 9]  # against 1, 2 and 0, and against 7, 5 and 5, a tie counting half
    found = stats.improvement(scores, "y")
    assert list(found) == ["x"] and found["x"][0] == pytest.approx(np.mean(wins))
    assert found["x"][0] == pytest.approx(metrics.probability_of_improvement(scores["x"], scores["y"]))
    assert stats.improvement(scores, "x")["y"][0] == pytest.approx(1 - np.mean(wins))


def test_a_profile_is_the_share_of_runs_above():
    share, low, high = stats.profiles({"x": np.array([[0.0, 1.0], [2.0, 3.0], [2.0, 3.0]])}, np.array([-1, 0, 1.5, 2]))[
        "x"
    ]
    assert list(share) == pytest.approx([1, 5 / 6, 4 / 6, 2 / 6])
    assert (low <= share).all() and (share <= high).all()


def test_ranks_share_ties_and_are_averaged():
    scores = {"x": np.array([[1.0, 3.0]]), "y": np.array([[2.0, 3.0]]), "z": np.array([[0.0, 4.0]])}
    assert stats.average_ranks(scores) == {"x": (2 + 2.5) / 2, "y": (1 + 2.5) / 2, "z": (3 + 1) / 2}


def test_holm_against_an_example_worked_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and none below the one before
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.6]) == [1.0, 1.0] and stats.holm([]) == []
    assert stats.holm([0.02, np.nan, 0.01]) == pytest.approx([0.02, np.nan, 0.02], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_stays_between_raw_and_bonferroni(values):
    found = stats.holm(values)
    assert all(p <= q <= min(1, len(values) * p) + 1e-12 for p, q in zip(values, found))
    assert [q for _, q in sorted(zip(values, found))] == sorted(found)


def test_on_one_dataset_the_test_is_welchs():
    one = {name: matrix[:, :1] for name, matrix in SCORES.items()}
    for name in ("b", "c"):
        expected = ttest_ind(one[name][:, 0], one["a"][:, 0], equal_var=False)
        assert stats.against(one, "a")[name][0] == pytest.approx(float(expected.pvalue))


def test_on_several_datasets_level_differences_between_them_do_not_hide_a_difference():
    shift = np.array([0.0, 10.0, 100.0, 1000.0, 5.0])
    plain, shifted = (stats.against({k: m + by for k, m in SCORES.items()}, "a")["b"][0] for by in (0, shift))
    assert plain == pytest.approx(shifted) and plain < 0.01
    same = {"a": np.ones((3, 2)), "b": np.ones((3, 2)), "c": np.zeros((3, 2))}
    assert stats.against(same, "a") == {"b": (1.0, 1.0), "c": (0.0, 0.0)}


def test_means_over_different_datasets_are_compared_with_the_errors_of_each():
    ours, theirs = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 6.0]]), np.array([[1.0], [2.0], [2.5]])
    terms = [*(ours[:, k].var(ddof=1) / 3 / 4 for k in (0, 1)), theirs[:, 0].var(ddof=1) / 3]
    freedom = sum(terms) ** 2 / sum(term**2 / 2 for term in terms)
    wanted = 2 * t.sf(abs(ours.mean() - theirs.mean()) / sum(terms) ** 0.5, freedom)
    assert stats.welch(ours, theirs) == pytest.approx(wanted)


def test_an_average_of_cells_with_other_seeds_has_an_interval_around_its_own_mean():
    one, other = {0: [1.0], 1: [2.0], 2: [3.0], 3: [100.0]}, {0: [10.0], 1: [11.0], 2: [12.0]}
    found = stats.estimate([one, other])
    terms = [np.var([1.0, 2.0, 3.0, 100.0], ddof=1) / 4 / 4, np.var([10.0, 11.0, 12.0], ddof=1) / 3 / 4]
    freedom = sum(terms) ** 2 / (terms[0] ** 2 / 3 + terms[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * sum(terms) ** 0.5
    assert (found["mean"], found["n_seeds"]) == (18.75, 3)
    assert found["ci_high"] - 18.75 == pytest.approx(half) and 18.75 - found["ci_low"] == pytest.approx(half)


def test_a_half_width_is_that_of_students_interval_for_numbers_and_arrays():
    seeds = np.array([[1.0, 2.0, 4.0, 9.0], [5.0, 5.5, 7.0, np.nan], [1.0, 2.0, np.nan, np.nan]])
    half = stats.half_width(np.nanstd(seeds, axis=1, ddof=1), np.sum(~np.isnan(seeds), axis=1))
    for own, found in zip(seeds[:2], half):
        own = own[~np.isnan(own)]
        low, high = t.interval(0.95, len(own) - 1, own.mean(), own.std(ddof=1) / len(own) ** 0.5)
        assert found == pytest.approx((high - low) / 2)
    assert np.isnan(half[2]) and np.isnan(stats.half_width(1.0, 2)) and np.isnan(stats.half_width(np.nan, 1))
