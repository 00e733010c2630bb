"""Leases: one holder, takeovers of the dead, and races that leave one winner."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from offmarl.experiments.grid.jobs import pending
from offmarl.experiments.launch import exclusive as module
from offmarl.experiments.launch.exclusive import lease_path, train_alone
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store.lock import Busy, Lease, read_lease
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work" / "job.lease"


def rewrite(path, **facts):
    """Make a lease somebody else's."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "space": "", "token": "theirs", **facts}))


def test_a_lease_has_one_holder_and_goes_with_it(path):
    lease = Lease(path)
    with pytest.raises(Busy, match=f"being run by .* pid {os.getpid()}"):
        Lease(path)
    assert lease.held() and read_lease(path)["age"] < 5
    lease.release()
    assert list(path.parent.iterdir()) == []
    Lease(path).release()


@pytest.mark.parametrize("facts", [{}, {"host": "unknown"}])
def test_a_heart_that_has_stopped_is_judged_by_the_clock_of_the_file_system(path, facts, monkeypatch):
    rewrite(path, **facts)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # a clock that has jumped
    with pytest.raises(Busy, match="pid 7"):
        Lease(path)
    beaten = path.stat().st_mtime - module.STALE - 1
    os.utime(path, (beaten, beaten))
    lease = Lease(path)
    assert lease.held() and [file.name for file in path.parent.iterdir()] == ["job.lease"]
    lease.release()


def test_the_lease_of_a_killed_process_is_taken_at_once(path):
    code = "import sys, time; from pathlib import Path; from offmarl.experiments.launch.exclusive import Lease\n"
    code += "lease = Lease(Path(sys.argv[1])); print('mine', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"mine\n"
    with pytest.raises(Busy, match=f"pid {holder.pid}"):
        Lease(path)
    holder.send_signal(signal.SIGKILL)
    time.sleep(0.1)  # dead, and not yet waited for: a zombie
    lease = Lease(path)
    holder.wait()
    assert lease.held()
    lease.release()


def test_of_many_that_take_over_at_once_one_wins(path):
    for _ in range(30):
        rewrite(path)
        os.utime(path, (1, 1))
        start, won, refused = threading.Barrier(8), [], []

        def take(start=start, won=won, refused=refused):
            start.wait()
            try:
                won.append(Lease(path))
            except Busy:
                refused.append(1)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) + len(refused) == 8
        assert sum(lease.held() for lease in won) == 1  # one that lost a race notices before it saves anything
        for lease in won:
            lease.release()
        assert list(path.parent.iterdir()) == []


def test_the_heart_beats_by_itself_and_not_into_anothers_lease(path, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.02)
    lease = Lease(path)
    os.utime(path, (1, 1))
    lease.facts["step"] = 12
    time.sleep(0.3)
    assert read_lease(path)["age"] < 5 and read_lease(path)["step"] == 12
    path.rename(path.with_suffix(".aside"))
    rewrite(path)
    time.sleep(0.1)
    assert read_lease(path)["token"] == "theirs" and not lease.held()
    lease.release()
    assert read_lease(path)["token"] == "theirs"


def test_a_job_of_another_driver_is_left_to_it_with_a_line(small, tmp_path, capsys):
    job = small()
    other = dataclasses.replace(job, seeds=(5,))
    rewrite(lease_path(tmp_path, other), host="node7", pid=42)  # of other seeds of the same cell
    assert run_serial([job], tmp_path, Host()) == []
    assert capsys.readouterr().err == "3m:good bc is being run by node7 pid 42\n"
    assert pending([job], Store(tmp_path)) == [job]


def test_what_another_driver_has_done_meanwhile_is_not_done_again(small, tmp_path):
    more = small(seeds=(0, 1))
    job = dataclasses.replace(more, seeds=(0,))
    list(train_alone(job, tmp_path, Host()))
    before = Store(tmp_path).read(job.run_ids()[0])
    list(train_alone(more, tmp_path, Host()))
    assert Store(tmp_path).read(job.run_ids()[0]) == before
    assert [Store(tmp_path).status(run_id) for run_id in more.run_ids()] == ["done", "done"]
    with pytest.raises(Busy, match="done by another driver"):
        list(train_alone(more, tmp_path, Host()))
    assert list((tmp_path / "work").iterdir()) == []


def test_a_driver_whose_job_was_taken_over_stops_and_writes_nothing(small, tmp_path):
    job = small()
    training = train_alone(job, tmp_path, Host())
    for progress in training:
        if progress.step == 5:
            break
    path = lease_path(tmp_path, job)
    path.unlink()
    rewrite(path)
    with pytest.raises(Busy, match="taken over"):
        list(training)
    assert [file.name for file in (tmp_path / "work").iterdir()] == [path.name]
    assert not (tmp_path / "runs").exists()
