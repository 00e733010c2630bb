"""Verdicts follow from rules and numbers alone."""

import json
import math

import numpy as np
import pytest

from offmarl.reports.figures.studies import draw
from offmarl.reports.studies import foot, numbers, verdict, write

ROWS = [
    {"arm": "A", "setting": zeta, "step": step, "seed": seed, "far": zeta * step + seed, "near": 1.0}
    for zeta in (0.0, 0.5, 1.0)
    for step in (0, 10)
    for seed in (0, 1)
]
# Four evaluations on each of two datasets; the second half is online. B was run on the first dataset only.
EVALUATIONS = [
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


def test_evaluations_before_and_after_online_training_begins():
    stored = {"rows": EVALUATIONS, "budget": {"steps": 40}, "online": True}
    assert numbers(stored, "A 0.5.x.before") == [2 * 21, 4 * 21]
    assert numbers(stored, "A 0.5.x.gain") == [2 * 20, 4 * 20]
    assert numbers(stored, "A 0.5.x.mean") == [2 * 26, 4 * 26]
    assert numbers(stored, "B.x.first") == [22, 44]
    assert all(map(math.isnan, numbers(stored, "C.x")))


def test_a_run_goes_online_at_half_of_its_own_steps():
    """A run of 8 steps with x = step, one of 100 with x = -step: gains of 4 and -50, whatever the longer budget is."""
    rows = [
        {"arm": "A", "setting": dataset, "step": step, "seed": 0, "x": sign * step}
        for dataset, steps, sign in (("short", (2, 4, 6, 8), 1.0), ("long", (25, 50, 75, 100), -1.0))
        for step in steps
    ]
    stored = {"rows": rows, "budget": {"steps": 100}, "online": True}
    assert numbers(stored, "A.x.gain", {"short"}) == [4.0] and numbers(stored, "A.x.gain", {"long"}) == [-50.0]
    assert numbers(stored, "A.x.before") == [(4.0 - 50.0) / 2] and numbers(stored, "A.x.gain") == [(4.0 - 50.0) / 2]


def test_the_foot_names_the_steps_of_the_shortest_and_the_longest_run():
    rows = [{"arm": "A", "setting": name, "step": step, "seed": 0} for name, step in (("a", 1000), ("b", 1200))]
    facts = {"profile": "quick", "source": "embedded", "picture": "learning", "budget": {"seeds": [0], "steps": 1200}}
    assert foot({"rows": rows, **facts}).startswith("quick profile, 1 seed, 1,000 to 1,200 gradient steps")


def test_arms_are_compared_where_both_were_run():
    stored = {"rows": EVALUATIONS, "budget": {"steps": 40}, "rules": [["B.x", ">", "1.5 A 0.5.x"]]}
    (_, seeds, values) = verdict(stored)[1][0]
    assert verdict(stored)[0] == "holds" and seeds == [True, True]  # 82 against 61.5; over both datasets it were 123
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


def test_a_seed_that_an_arm_lacks_makes_a_verdict_impossible_and_arms_of_no_rule_do_not():
    rows = [{"arm": "A", "setting": "one", "step": 1, "seed": seed, "x": 2.0} for seed in (0, 1)]
    rows += [{"arm": "B", "setting": "one", "step": 1, "seed": seed, "x": 1.0} for seed in (0, 1, 2)]
    stored = {"rows": rows, "budget": {"steps": 1}}
    assert verdict(stored | {"rules": [["A.x", ">", "B.x"]]})[0] == "cannot tell"
    assert verdict(stored | {"rules": [["A.x", ">", 1.5]]})[0] == "holds"
    assert verdict(stored | {"rules": [["C.x", ">", "A.x"]]})[0] == "cannot tell"


def test_arms_that_share_no_setting_are_not_compared():
    rows = [{"arm": arm, "setting": arm, "step": 1, "seed": 0, "x": x} for arm, x in (("A", 2.0), ("B", 1.0))]
    assert verdict({"rows": rows, "rules": [["A.x", ">", "B.x"]], "budget": {"steps": 1}})[0] == "cannot tell"


def test_a_share_of_a_negative_number_lies_below_it():
    rows = [{"arm": "A", "setting": "one", "step": 1, "seed": 0, "x": -1.0}]
    assert numbers({"rows": rows}, "0.8 A.x") == [-1.2] and numbers({"rows": rows}, "1.5 A.x") == [-0.5]


def test_a_missing_run_makes_a_verdict_impossible():
    assert verdict(record(["A.near", "<", 2], missing=["a run: failed: x"]))[0] == "cannot tell"


def test_an_experiment_is_written_as_text_table_and_figures_and_cells_are_escaped(tmp_path):
    rows = [{**row, "arm": "A|<b>", "return": 1.0, "data": 1.0, "gaps": [1.0]} for row in ROWS]
    facts = {"title": "t", "claim": "c", "profile": "quick", "source": "embedded", "picture": "learning"}
    stored = record(["A|<b>.near", "<", 2], quantities=["return"], missing=["a run: failed"], **facts)
    stored |= {"rows": rows, "budget": {"seeds": [0, 1], "steps": 10}}
    place = tmp_path / "measurements" / "experiment" / "x.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(stored))
    folder = tmp_path / "reports" / "experiments"
    folder.mkdir(parents=True)
    (folder / "x.html").write_text("by an earlier version")
    out = write(tmp_path, "x")
    assert {path.name for path in out["paths"]} == {"x.md", "x.csv", "x.png", "x.pdf"}
    assert {path.name for path in folder.iterdir()} == {"x.md", "x.csv", "x.png", "x.pdf"}
    text = (folder / "x.md").read_text()
    assert text == out["text"] and "| A&#124;<b>" in text and "**Verdict: cannot tell.**" in text
    assert "Missing: a run: failed." in text and "gaps" not in (folder / "x.csv").read_text()


def test_paths_of_episodes_are_drawn_and_of_older_records_with_one_step():
    """Three agents of data, joint flow and policies, in two records that say the same."""
    starts, moves = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3, 2))
    marks, who = [[0.0, 0.0]] * 3, ("data", "joint", "policies")
    older = {"starts": starts.tolist(), **{name: [moves.tolist(), (9 * moves).tolist()] for name in who}}
    newer = {name: [starts.tolist(), (starts + moves).tolist()] for name in who}
    facts = {"picture": "covering", "profile": "quick", "budget": {"seeds": [0], "samples": 2}}
    for part in (older, newer):
        shown = [part | {"setting": 3, "arm": "A", "marks": marks}]
        lines = [line for axis in draw(record(**facts) | {"shown": shown}).axes[:3] for line in axis.lines]
        assert np.allclose(
            [line.get_xydata() for line in lines], np.tile(np.stack([starts, starts + moves], 1), (3, 1, 1))
        )
