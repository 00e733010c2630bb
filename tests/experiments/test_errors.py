"""Unknown names are refused with the nearest known one."""

import pytest

from offmarl.experiments.errors import UserError, check_name


def test_a_known_name_passes():
    assert check_name("task", "smac/3m", ["smac/8m", "smac/3m"]) == "smac/3m"


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown task 'smac/3n': did you mean 'smac/3m'\? known: smac/8m, smac/3m"):
        check_name("task", "smac/3n", ["smac/8m", "smac/3m"])


def test_a_name_far_from_all_is_refused_with_all():
    with pytest.raises(UserError, match="unknown task 'qqqq': known: smac/3m") as refusal:
        check_name("task", "qqqq", ["smac/3m"])
    assert "did you mean" not in str(refusal.value)
