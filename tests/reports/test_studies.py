"""Verdicts follow from rules and numbers alone."""

import math

import pytest

from offmarl.reports.studies import numbers, verdict

ROWS = [
    {"arm": "A", "setting": zeta, "step": step, "seed": seed, "far": zeta * step + seed, "near": 1.0}
    for zeta in (0.0, 0.5, 1.0)
    for step in (0, 10)
    for seed in (0, 1)
]
# Four looks at each of two datasets; the second half is online. B was seen on the first dataset alone.
LOOKS = [
    {"arm": arm, "setting": dataset, "step": step, "seed": seed, "x": scale * (step + 1) * (1 + seed)}
    for arm, dataset, scale in (("A 0.5", "one", 1.0), ("A 0.5", "two", 3.0), ("B", "one", 2.0))
    for step in (10, 20, 30, 40)
    for seed in (0, 1)
]


def record(*rules, **facts):
    return {"rows": ROWS, "rules": list(rules), "budget": {}, **facts}


def test_words_are_numbers_of_every_seed():
    assert numbers(record(), 0.5) == [0.5, 0.5]
    assert numbers(record(), "A.near") == [1.0, 1.0]
    assert numbers(record(), "0.9 A.near") == [0.9, 0.9]
    assert numbers(record(), "A.far.trend") == pytest.approx([1.0, 1.0])
    assert numbers(record(), "A.far.rise") == [10.0, 10.0]
    assert numbers(record(), "A.far") == [5.0, 6.0]  # the mean over settings
    assert numbers(record(), "A.far.worst") == [0.0, 1.0]
    assert numbers(record(), "A.far.least") == [0.0, 1.0]
    assert numbers(record(), "A.far.most") == [5.0, 6.0]


def test_looks_before_and_after_online_play_begins():
    told = {"rows": LOOKS, "budget": {"steps": 40}, "online": True}
    assert numbers(told, "A 0.5.x.before") == [2 * 21, 4 * 21]
    assert numbers(told, "A 0.5.x.gain") == [2 * 20, 4 * 20]
    assert numbers(told, "A 0.5.x.mean") == [2 * 26, 4 * 26]
    assert numbers(told, "B.x.first") == [22, 44]
    assert all(map(math.isnan, numbers(told, "C.x")))


def test_arms_are_compared_where_both_were_seen():
    told = {"rows": LOOKS, "budget": {"steps": 40}, "rules": [["B.x", ">", "1.5 A 0.5.x"]]}
    (_, seeds, values) = verdict(told)[1][0]
    assert verdict(told)[0] == "holds" and seeds == [True, True]  # 82 against 61.5; over both datasets it were 123
    assert values == "82, 164 against 61.5, 123"


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


def test_with_a_run_missing_nothing_can_be_told():
    assert verdict(record(["A.near", "<", 2], missing=["a run: failed: x"]))[0] == "cannot tell"


def test_what_comes_from_the_store_is_escaped(tmp_path):
    import json

    from offmarl.reports.studies import write

    rows = [{**row, "arm": "A|<b>", "return": 1.0, "data": 1.0} for row in ROWS]
    facts = {"title": "<i>t", "claim": "c", "profile": "quick", "source": "embedded", "picture": "learning"}
    told = record(["A|<b>.near", "<", 2], quantities=["return"], missing=["<script>"], **facts)
    told |= {"rows": rows, "budget": {"seeds": [0, 1], "steps": 10}}
    place = tmp_path / "measurements" / "experiment" / "x.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(told))
    write(tmp_path, "x")
    page, text = ((tmp_path / "reports" / "experiments" / f"x.{kind}").read_text() for kind in ("html", "md"))
    assert "<script>" not in page and "A|<b>" not in page and "<i>" not in page
    assert "| A&#124;<b>" in text
