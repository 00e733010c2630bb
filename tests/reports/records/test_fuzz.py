"""A record in which anything has been changed is shown as it is or counted as not run; no report breaks on it."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.reports.records import schema
from offmarl.reports.records.reader import Records

VALUES = st.sampled_from([None, True, -1, 10**20, "", "x", "failed", [], {}, [None], ["x"]]).map(copy.deepcopy)


def places(value, path=()):
    """Every place of a nested record."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_record_can_be_reported(data, tmp_path, write_run, fill, build):
    if not (tmp_path / "runs").exists():
        fill(tmp_path)
    place = write_run(tmp_path, "smac/3m", "good", "bc", 0, 15)
    record = json.loads((place / "run.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([path for path in places(record) if path]))
        node = record
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = data.draw(VALUES)
    (place / "run.json").write_text(json.dumps(record))
    runs = Records.read(tmp_path).select().records
    table = build(tmp_path)
    assert len(runs) >= 23 and table.frame()["mean"].notna().sum() >= 12


LOOK = {"returns": [1.0], "lengths": [9]}


@pytest.mark.parametrize(
    "change",
    [
        {"score": [1.0]},
        {"score": [1.0, 1.0]},
        {"score": [2.0, 1.0]},
        {"score": [0.0, 1.0, 2.0]},
        {"evaluations": [LOOK]},
        {"evaluations": [LOOK | {"step": None}]},
        {"held_out": [{"step": 1, "play": "own"}]},
        {"held_out": [{"step": 1, "agreement": 0.5}]},
        {"engine": {"engine": 3}},
    ],
    ids=str,
)
def test_parts_that_every_report_needs_are_there_or_the_record_is_damaged(change, tmp_path, write_run):
    place = write_run(tmp_path, "smac/3m", "good", "bc", 0, 15)
    record = json.loads((place / "run.json").read_text())
    assert schema.is_valid_record(record) and not schema.is_valid_record(record | change)


def test_an_evaluation_without_a_play_is_of_the_first_and_a_value_may_be_lacking():
    record = schema.with_plays({"evaluations": [LOOK | {"step": 1, "play": None}]})
    assert list(schema.by_play(record)) == ["own"]
    assert not schema.strayed({"data_value": 1.0})
