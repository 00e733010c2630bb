"""Every run.json is read once by a command, however many tables, figures and boards it writes."""

from collections import Counter
from pathlib import Path

import pytest

from offmarl.experiments.cli import main
from offmarl.reports.records import checksums
from offmarl.reports.records.reader import Records, newest
from offmarl.reports.records.schema import CELL


@pytest.fixture
def reads(monkeypatch):
    """How often each run.json has been opened, by folder."""
    count, opened = Counter(), Path.open

    def counted(path, *args, **options):
        if path.name == checksums.RECORD:
            count[path.parent.name] += 1
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", counted)  # Path.read_bytes and Path.read_text call it
    return count


@pytest.mark.parametrize("site", [False, True])
def test_a_report_and_a_site_of_several_boards_read_every_record_once(store, write_run, tmp_path, reads, site):
    write_run(store, "smac/3m", "good", "bc", 0, 5.0, profile="smoke")
    write_run(store, "smac/3m", "good", "bc", 0, 6.0, source="og_marl")
    write_run(store, "mpe/spread", "expert", "bc", 0, 7.0, score=[0.0, 20.0])
    for place in (store / "runs").iterdir():
        (place / checksums.SUMS).write_text(checksums.sums(place, [checksums.RECORD]))
    reads.clear()
    where = ["--site", str(tmp_path / "site")] if site else []
    assert main(["report", "--suite", "all", "--results", str(store), *where]) == 0
    if site:
        assert (tmp_path / "site" / "index.html").read_text().count('class="board"') >= 4
    assert set(reads.values()) == {1} and len(reads) == 27


def test_a_selection_says_what_it_leaves_out(store, write_run):
    write_run(store, "smac/3m", "good", "bc", 0, 1.0, hash="bbbb2222", finished="2026-02-01")
    (write_run(store, "smac/3m", "good", "bc", 7, 99.0) / "run.json").write_text("{")
    records = Records.read(store)
    selection = records.select("quick", "embedded")
    assert len(records.by_run) == 26 and len(selection.records) == 23
    older, damaged = selection.notes
    assert "runs with other settings" in older and damaged.startswith("1 run.json could not be read")


def test_a_training_without_an_environment_goes_before_a_later_failure():
    cell = dict.fromkeys(CELL, "x") | {"seed": 0}
    one = {"cell": cell, "status": "trained", "finished": "2026-01-01", "config_hash": "a", "run_id": "x.a"}
    kept, _ = newest([one, one | {"status": "failed", "finished": "2026-02-01", "config_hash": "b", "run_id": "x.b"}])
    assert kept == [one]


def test_a_later_set_of_runs_that_diverged_is_not_hidden_behind_an_older_one():
    cell = dict.fromkeys(CELL, "x") | {"seed": 0}
    one = {"cell": cell, "status": "done", "finished": "2026-01-01", "config_hash": "a", "run_id": "x.a"}
    lost = one | {"status": "diverged", "finished": "2026-02-01", "config_hash": "b", "run_id": "x.b"}
    assert newest([one, lost])[0] == [lost]
