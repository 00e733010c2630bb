"""A record in which anything has been changed is shown as it is or counted as not run; no report breaks on it."""

import copy
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
