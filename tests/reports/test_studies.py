"""Verdicts follow from rules and numbers alone."""

import pytest

from offmarl.reports.studies import numbers, verdict

ROWS = [
    {"arm": "A", "setting": zeta, "step": step, "seed": seed, "far": zeta * step + seed, "near": 1.0}
    for zeta in (0.0, 0.5, 1.0)
    for step in (0, 10)
    for seed in (0, 1)
]


def record(*rules):
    return {"rows": ROWS, "rules": list(rules)}


def test_words_are_numbers_of_every_seed():
    assert numbers(record(), 0.5) == [0.5, 0.5]
    assert numbers(record(), "A.near") == [1.0, 1.0]
    assert numbers(record(), "A.far.trend") == pytest.approx([1.0, 1.0])
    assert numbers(record(), "A.far.least") == [0.0, 1.0]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([["A.near", "<", 2]], "holds"),
        ([["A.near", "<", 2], ["A.near", ">=", 1.0], ["A.far.trend", ">", 0.9]], "holds"),
        ([["A.near", ">", 2]], "does not hold"),
        ([["A.near", "<", 2], ["A.near", ">", 2]], "does not hold"),
        ([["A.far.least", "<", 0.5]], "cannot tell"),  # in one seed of two
        ([["A.far.least", "<", "A.near"]], "cannot tell"),
        ([["A.far.least", "<", 0.5], ["A.near", ">", 2]], "does not hold"),
    ],
)
def test_all_rules_in_all_seeds_hold_and_one_in_none_does_not(rules, expected):
    assert verdict(record(*rules))[0] == expected
