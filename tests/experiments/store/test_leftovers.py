"""What killed processes have left is removed; what a living one is writing, and what is not ours, stays."""

import os

import pytest

from offmarl.experiments.store import leftovers
from offmarl.experiments.store.leftovers import clear_leftovers
from offmarl.experiments.store.lock import STALE_SECONDS, Lock

RUN_ID = "smac-3m.good.embedded.bc.paper.quick.s3.0a1b2c3d"
JOB = "smac-3m.good.embedded.bc.paper.quick.0a1b2c3d"
DRAFTS = [
    f"runs/.{RUN_ID}.0123abcd/run.json",
    "work/.clock.ab_de1gh",
    f"work/.{JOB}.lease.0123abcd",  # of a takeover by an older version
    "grids/.smac-quick-embedded.json.0123abcd",
    "measurements/inference/.bc.json.0123abcd",
    "reports/smac/.table.csv.0123abcd",
    f"tensorboard/.{RUN_ID}.0123abcd/events",
]
NOT_OURS = ["runs/.DS_Store", "work/.notes.markdown", "grids/mine.json", "reports/smac/.git/config", "mine/.x.0123abcd"]


@pytest.fixture
def results(tmp_path):
    """Every kind of draft, just written, with the modification time of an old original, as a copy has it."""
    for name in (*DRAFTS, *NOT_OURS):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1, 1))
    return tmp_path


def files(results):
    """The names of all files."""
    return {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}


def test_drafts_are_left_alone_while_their_writers_may_live_and_removed_later(results, monkeypatch):
    clear_leftovers(results)
    assert files(results) == {*DRAFTS, *NOT_OURS}
    now = leftovers.now
    monkeypatch.setattr(leftovers, "now", lambda folder: now(folder) + STALE_SECONDS)
    clear_leftovers(results)
    assert files(results) == {*NOT_OURS}


@pytest.mark.parametrize("replaced", [False, True], ids=["not yet", "already"])
def test_a_run_that_is_being_replaced_is_left_alone_while_its_job_is_locked(tmp_path, replaced):
    old, place = (tmp_path / "runs" / name for name in (f".{RUN_ID}.old", RUN_ID))
    old.mkdir(parents=True)
    (old / "earlier").touch()
    draft = tmp_path / "work" / f"{RUN_ID}+3.draft"
    lock = Lock(tmp_path / "work" / f"{JOB}.lock")
    draft.touch()
    if replaced:
        place.mkdir()
    clear_leftovers(tmp_path)
    assert old.exists() and draft.exists() and place.exists() == replaced
    lock.release()
    clear_leftovers(tmp_path)
    assert not old.exists() and not draft.exists()
    assert (place / "earlier").exists() != replaced


def test_a_file_that_cannot_be_removed_does_not_stop_a_run(results, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(leftovers, "STALE_SECONDS", -1.0)
    (results / "runs" / f".{RUN_ID}.old").mkdir()
    monkeypatch.setattr(leftovers.os, "rename", refuse)
    monkeypatch.setattr(leftovers.shutil, "rmtree", refuse)
    monkeypatch.setattr(leftovers.Path, "unlink", refuse)
    clear_leftovers(results)
    assert files(results) == {*DRAFTS, *NOT_OURS}
    monkeypatch.undo()
    monkeypatch.setattr(leftovers.os, "rename", refuse)
    clear_leftovers(results)
    assert (results / "runs" / f".{RUN_ID}.old").is_dir()  # the only copy
