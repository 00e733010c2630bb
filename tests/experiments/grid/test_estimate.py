"""The time that is left, and how it is written."""

import pytest

from offmarl.experiments.grid.estimate import duration, left_in_words, time_left

PACE = {("bc", "smac/3m"): 0.5, ("bc", "smac/8m"): 1.5, ("mac_flow", "smac/3m"): 2.0}


def test_steps_cost_what_their_method_was_measured_to_take_on_their_task():
    left = [("bc", "smac/3m", 100), ("mac_flow", "smac/3m", 10), ("bc", "smac/8m", 50)]
    assert time_left(left, PACE) == (100 * 0.5 + 10 * 2.0 + 50 * 1.5, [])


def test_a_task_without_figures_counts_as_the_mean_of_its_methods_others():
    assert time_left([("bc", "smac/2s3z", 10), ("mac_flow", "smac/8m", 5)], PACE) == (10 * 1.0 + 5 * 2.0, [])


def test_a_method_without_figures_is_told_and_not_guessed_from_the_others():
    assert time_left([("dof", "smac/3m", 10), ("bc", "smac/3m", 4), ("dof", "smac/8m", 1)], PACE) == (2.0, ["dof"])
    assert left_in_words(120.0, 1) == "2 min plus 1 method not timed yet"
    assert left_in_words(0.0, 2) == "unknown (2 methods not timed yet)"


def test_nothing_left_takes_no_time_with_or_without_figures():
    assert time_left([], {}) == time_left([("bc", "smac/3m", 0)], {}) == (0, [])
    assert left_in_words(0, 0) == "none"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
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
