"""A process that is killed before any of its steps on disk: nothing is lost, nothing counted twice, no file left."""

import json
import os
import shutil

import kills
import pytest

from offmarl.experiments.cli import main
from offmarl.experiments.commands.status import survey
from offmarl.experiments.launch.exclusive import lock_path
from offmarl.experiments.store import leftovers
from offmarl.experiments.store.compare import compare
from offmarl.experiments.store.leftovers import clear_leftovers
from offmarl.experiments.store.lock import Lock, run_ids
from offmarl.experiments.store.store import Store


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """Commands are run so long after the kill that a draft cannot be a living writer's."""
    monkeypatch.setattr(leftovers, "STALE_SECONDS", -1.0)


def files(results):
    """The names of all files and folders."""
    return sorted(str(path.relative_to(results)) for path in results.rglob("*"))


def test_a_training_that_is_killed_anywhere_is_completed_by_the_next_run(tmp_path):
    undisturbed = tmp_path / "undisturbed"
    kills.train(undisturbed)
    runs = Store(undisturbed).run_ids()
    assert len(runs) == 2
    for results in kills.before_each_step(kills.train, tmp_path):
        before = {run_id: Store(results).peek(run_id, None) for run_id in Store(results).run_ids()}
        assert None not in before.values()
        assert survey(Store(results))["running"] == []
        assert main(["verify", "--results", str(results)]) == 0
        kills.train(results)
        assert files(results) == files(undisturbed)
        assert all(Store(results).peek(run_id) == record for run_id, record in before.items())
        assert all(row.same for run_id in runs for row in compare(Store(undisturbed), Store(results), run_id))


@pytest.fixture
def finished(tmp_path):
    """Results of the job, which is done; only for reading."""
    kills.train(tmp_path / "finished")
    return tmp_path / "finished"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on this machine", "on another machine"])
@pytest.mark.parametrize("suffix", [".lock", ".lease"])
def test_the_lock_of_a_finished_job_is_nobodys(finished, capsys, suffix, elsewhere):
    """Its driver was killed between storing the last run and releasing the lock; the next one has nothing to train."""
    job = kills.job()
    lock = Lock(lock_path(finished, job))
    lock.facts |= {"seeds": job.seeds, "step": 4, "steps": 4}
    lock.facts |= {"host": "node7", "machine": "another boot"} if elsewhere else {}
    lock.write_heartbeat()
    path = lock.path.rename(lock.path.with_suffix(suffix))
    assert survey(Store(finished))["running"] == []
    assert path.exists()  # status only reads
    kills.train(finished)
    assert list(path.parent.iterdir()) == []
    lock.release()


def test_the_lock_of_a_job_that_still_trains_other_seeds_is_left_alone(finished):
    job = kills.job()
    lock = Lock(lock_path(finished, job))
    lock.facts["seeds"] = (1, 2)
    lock.write_heartbeat()
    clear_leftovers(finished)
    assert lock.held() and list(survey(Store(finished))["running"])
    lock.release()


def test_the_checkpoint_of_a_finished_job_is_removed_and_that_of_a_pending_one_is_not(finished):
    job, work = kills.job(), finished / "work"
    first, second = run_ids(job.lock_name, (0, 2))
    for name in (f"{first}+0,1.pt", f"{first}+0,1.draft", f"{second}+2.pt", f"{first}+0,2.pt", "mine.pt"):
        (work / name).touch()
    clear_leftovers(finished)
    assert sorted(path.name for path in work.iterdir()) == sorted([f"{second}+2.pt", f"{first}+0,2.pt", "mine.pt"])


@pytest.mark.parametrize("status", ["failed", "done"])
def test_a_run_that_is_killed_as_it_replaces_another_leaves_one_of_the_two(tmp_path, status):
    kills.store_run(tmp_path / "earlier", status)
    for results in kills.before_each_step(kills.store_run, tmp_path, tmp_path / "earlier"):
        clear_leftovers(results)
        assert files(results) == files(tmp_path / "earlier")
        assert Store(results).status(kills.RUN_ID) in (status, "done")


def test_a_damaged_run_is_set_aside_in_one_step_and_over_no_other(tmp_path):
    kills.store_run(tmp_path / "damaged")
    (tmp_path / "damaged" / "runs" / kills.RUN_ID / "run.json").write_text("{")
    shutil.copytree(tmp_path / "damaged" / "runs", tmp_path / "damaged" / "damaged")
    (tmp_path / "damaged" / "damaged" / kills.RUN_ID).rename(tmp_path / "damaged" / "damaged" / f"{kills.RUN_ID}.2")
    for results in kills.before_each_step(kills.read_run, tmp_path, tmp_path / "damaged"):
        assert Store(results).status(kills.RUN_ID) == "pending"
        assert sorted(path.name for path in (results / "damaged").iterdir()) == [f"{kills.RUN_ID}.{n}" for n in (1, 2)]
        assert Store(results).status(kills.RUN_ID) == "pending"
        kills.store_run(results)
        (results / "runs" / kills.RUN_ID / "run.json").write_text("{")
        assert Store(results).status(kills.RUN_ID) == "pending"
        assert (results / "damaged" / f"{kills.RUN_ID}.3").is_dir()


@pytest.mark.parametrize("action", [kills.store_measurement, kills.note_request])
@pytest.mark.parametrize("earlier", [False, True], ids=["the first", "a second"])
def test_a_file_that_is_killed_as_it_is_written_appears_whole_or_not_at_all(tmp_path, action, earlier):
    before = tmp_path / "before"
    before.mkdir()
    if earlier:
        action(before)
    for results in kills.before_each_step(action, tmp_path, before):
        assert main(["status", "--results", str(results)]) == 0
        clear_leftovers(results)
        found = [path for path in results.rglob("*") if path.is_file()]
        assert all(json.loads(path.read_text()) and path.suffix == ".json" for path in found)
        assert len(found) <= 1 and (found or not earlier)


def test_a_merge_that_is_killed_is_completed_by_the_next(tmp_path, capsys):
    kills.store_run(tmp_path / "before" / "source")
    for results in kills.before_each_step(kills.merge, tmp_path, tmp_path / "before"):
        kills.merge(results)
        clear_leftovers(results / "target")
        assert files(results / "target") == files(results / "source")


def test_a_lock_whose_taker_is_killed_is_taken_by_the_next(tmp_path):
    path = tmp_path / "before" / "work" / "job.lock"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (1, 1))
    for results in kills.before_each_step(kills.take_lock, tmp_path, tmp_path / "before"):
        lock = Lock(results / "work" / "job.lock")
        assert lock.held()
        lock.release()
        clear_leftovers(results)
        assert files(results) == ["work"]


def test_a_site_that_is_killed_as_it_replaces_another_loses_no_file_of_the_users(tmp_path):
    before = tmp_path / "before"
    before.mkdir()
    kills.build_site(before)
    (before / "site" / "CNAME").write_text("mine")
    for results in kills.before_each_step(kills.build_site, tmp_path, before, ["os.rename"]):
        kills.build_site(results)
        assert (results / "site" / "CNAME").read_text() == "mine"
        assert (results / "site" / "index.html").read_bytes() == (before / "site" / "index.html").read_bytes()
        assert not list(results.glob(".site.*.old"))
