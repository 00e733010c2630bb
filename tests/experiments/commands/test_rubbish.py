"""Records in which anything may stand: every command that reads the store takes them as damaged, and goes on."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.experiments.cli import main
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host

VALUES = st.sampled_from([None, True, -1, 10**20, "", "x", [], {}, [None], ["x"], {"x": "../../x"}]).map(copy.deepcopy)
COMMANDS = {
    "status": ["status", "--json", "--results", "{results}"],
    "verify": ["verify", "--results", "{results}"],
    "export": ["export", "--results", "{results}", "--out", "{beside}/all.csv"],
    "marl-eval": ["export", "--results", "{results}", "--out", "{beside}/all.json", "--format", "marl-eval"],
    "merge": ["merge", "{results}", "--results", "{beside}/merged"],
}


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A store of two runs, and the record of the first."""
    results, job = tmp_path_factory.mktemp("results"), small()
    assert run_serial([job], results, Host()) == []
    return results, results / "runs" / job.run_ids()[0] / "run.json"


def places(value, path=()):
    """Every place of a nested record."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def change(record, draw):
    """Put something else into one place, or take a part away."""
    *path, last = draw(st.sampled_from(list(places(record))))
    node = record
    for key in path:
        node = node[key]
    if isinstance(node, dict) and draw(st.booleans()):
        del node[last]
    else:
        node[last] = draw(VALUES)


@pytest.mark.parametrize("name", COMMANDS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_record_stops_a_command(name, data, trained, tmp_path):
    results, file = trained
    before, sums = file.read_text(), file.with_name("SHA256SUMS")
    record, kept = json.loads(before), sums.read_text()
    for _ in range(data.draw(st.integers(1, 2))):
        change(record, data.draw)
    file.write_text(json.dumps(record))
    sums.unlink()  # of who writes records, or the sums would tell
    try:
        words = [word.format(results=results, beside=tmp_path) for word in COMMANDS[name]]
        assert main(words) in ((0, 1) if name in ("verify", "merge") else (0,))
    finally:
        file.write_text(before)
        sums.write_text(kept)
    assert len(Store(results).run_ids()) == 2
