"""The time that is left, and how it is written."""

import pytest

from offmarl.experiments.grid.estimate import duration, time_left


def test_steps_cost_what_their_method_was_measured_to_take():
    assert time_left([("bc", 100), ("mac_flow", 10), ("bc", 50)], {"bc": 0.5, "mac_flow": 2.0}) == 150 * 0.5 + 10 * 2.0


def test_a_method_without_figures_counts_as_the_mean_of_the_others():
    assert time_left([("dof", 10)], {"bc": 1.0, "mac_flow": 4.0}) == 10 * 2.5


def test_nothing_left_takes_no_time_and_without_any_figures_it_is_unknown():
    assert time_left([], {}) == time_left([("bc", 0)], {}) == 0.0
    assert time_left([("bc", 1)], {}) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "unknown"),
        (0, "none"),
        (59, "less than a minute"),
        (60, "1 min"),
        (3599, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (99.4 * 3600, "99 h 24 min"),
        (1234 * 3600, "1,234 h"),
    ],
)
def test_durations_are_written_in_words(seconds, words):
    assert duration(seconds) == words
