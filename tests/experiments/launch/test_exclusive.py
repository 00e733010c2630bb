"""Locks: one holder, takeovers from holders that have died, and races that one process wins."""

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from offmarl.experiments.grid.jobs import pending
from offmarl.experiments.launch.exclusive import lock_path, train_alone
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store import lock as module
from offmarl.experiments.store.lock import Busy, Lock, read_lock
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work" / "job.lock"


def rewrite(path, **facts):
    """Make a lock another machine's."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "space": "", **facts}))


def wait_for(condition):
    """Return as soon as a condition holds."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError


def test_a_lock_has_one_holder_who_removes_it(path):
    lock = Lock(path)
    with pytest.raises(Busy, match=f"being run by .* pid {os.getpid()}"):
        Lock(path)
    assert lock.held() and read_lock(path)["age"] < 5
    lock.release()
    assert list(path.parent.iterdir()) == []
    Lock(path).release()


@pytest.mark.parametrize("facts", [{}, {"host": "unknown"}])
def test_an_old_heartbeat_is_judged_by_the_clock_of_the_file_system(path, facts, monkeypatch):
    rewrite(path, **facts)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # a clock that has jumped
    with pytest.raises(Busy, match="pid 7"):
        Lock(path)
    beaten = path.stat().st_mtime - module.STALE_SECONDS - 1
    os.utime(path, (beaten, beaten))
    lock = Lock(path)
    assert lock.held() and [file.name for file in path.parent.iterdir()] == ["job.lock"]
    lock.release()


NOBODY = 2**22 + 7  # more than a process id can be


@pytest.mark.parametrize(
    ("facts", "taken"),
    [
        ({}, True),
        ({"machine": "another boot"}, False),  # a cloned machine, which has this one's name
        ({"host": "renamed"}, True),
        ({"space": "pid:[7]"}, False),  # a container here
        ({"machine": ""}, False),  # by an older version, which kept the name only
        ({"pid": 1}, False),
    ],
    ids=str,
)
def test_a_machine_is_known_by_its_boot_and_not_by_its_name(path, facts, taken):
    rewrite(path, **(module.this_process() | {"pid": NOBODY} | facts))
    if not taken:
        with pytest.raises(Busy):
            Lock(path)
        return
    lock = Lock(path)
    assert lock.held()
    lock.release()


def test_without_the_number_of_the_boot_the_name_decides(path, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "BOOT", tmp_path / "nothing")
    assert module.this_process()["machine"] == module.this_process()["host"]


@pytest.mark.parametrize("error", [module.psutil.NoSuchProcess, module.psutil.AccessDenied])
def test_a_process_that_the_system_hides_from_other_users_is_not_taken_for_dead(path, monkeypatch, error):
    def hidden(pid):
        raise error(pid)

    monkeypatch.setattr(module.psutil, "Process", hidden)
    rewrite(path, **(module.this_process() | {"pid": os.getppid()}))
    with pytest.raises(Busy):
        Lock(path)
    rewrite(path, **(module.this_process() | {"pid": NOBODY}))
    Lock(path).release()


def test_the_lock_of_a_killed_process_is_taken_over_at_once(path):
    code = "import sys, time; from pathlib import Path; from offmarl.experiments.launch.exclusive import Lock\n"
    code += "lock = Lock(Path(sys.argv[1])); print('mine', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"mine\n"
    with pytest.raises(Busy, match=f"pid {holder.pid}"):
        Lock(path)
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for: a zombie
    lock = Lock(path)
    holder.wait()
    assert lock.held()
    lock.release()


def test_of_many_processes_that_take_over_at_once_one_wins(path):
    for _ in range(30):
        rewrite(path)
        os.utime(path, (1, 1))
        start, won, refused = threading.Barrier(8), [], []

        def take(start=start, won=won, refused=refused):
            start.wait()
            try:
                won.append(Lock(path))
            except Busy:
                refused.append(1)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(refused)) == (1, 7)
        assert won[0].held()
        won[0].release()
        assert list(path.parent.iterdir()) == []


def test_who_comes_too_late_to_remove_a_lock_leaves_the_next_holders_alone(path, monkeypatch):
    rewrite(path)
    os.utime(path, (1, 1))

    def wait(*_):
        """Another process is first: it removes the lock and takes a new one."""
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        locks.append(Lock(path))

    locks = []
    monkeypatch.setattr(fcntl, "flock", wait)
    assert module.remove(path) is None
    assert locks[0].held()
    locks[0].release()


def test_where_files_cannot_be_locked_the_one_who_lost_its_lock_notices(path, monkeypatch):
    def refuse(*_):
        raise OSError("not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    rewrite(path)
    os.utime(path, (1, 1))
    first = Lock(path)
    os.utime(path, (1, 1))
    monkeypatch.setattr(module, "alive", lambda facts: False)
    second = Lock(path)
    assert second.held() and not first.held()
    first.release()
    assert second.held()
    second.release()


@pytest.mark.parametrize("step", ["pwrite", "link"])
def test_a_lock_appears_with_its_content_or_not_at_all(path, monkeypatch, step):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.os, step, interrupt)
        Lock(path)
    assert list(path.parent.iterdir()) == []
    Lock(path).release()


def test_a_file_system_without_hard_links_has_locks_too(path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(module.os, "link", refuse)
    lock = Lock(path)
    with pytest.raises(Busy, match=f"pid {os.getpid()}"):
        Lock(path)
    assert lock.held() and read_lock(path)["pid"] == os.getpid()
    lock.release()
    assert list(path.parent.iterdir()) == []


def test_a_lock_whose_holder_was_killed_before_it_wrote_is_taken_over_when_it_is_old(path):
    path.parent.mkdir()
    path.touch()
    with pytest.raises(Busy, match="unknown"):
        Lock(path)
    os.utime(path, (1, 1))
    Lock(path).release()
    assert list(path.parent.iterdir()) == []


def test_the_lock_of_an_older_version_is_respected_and_taken_over(path):
    old = path.with_suffix(".lease")
    rewrite(old, token="theirs")
    with pytest.raises(Busy, match="pid 7"):
        Lock(path)
    os.utime(old, (1, 1))
    lock = Lock(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    lock.release()


def test_heartbeats_are_written_by_themselves_and_not_into_the_lock_of_another(path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    lock = Lock(path)
    os.utime(path, (1, 1))
    lock.facts["step"] = 12
    wait_for(lambda: (facts := read_lock(path))["step"] == 12 and facts["age"] < 5)
    aside = path.rename(path.with_suffix(".aside"))
    rewrite(path)
    lock.facts["step"] = 13
    wait_for(lambda: read_lock(aside)["step"] == 13)
    assert read_lock(path)["host"] == "elsewhere" and not lock.held()
    lock.release()
    assert read_lock(path)["host"] == "elsewhere"


def test_a_job_of_another_driver_is_left_to_it_with_a_line(small, tmp_path, capsys):
    job = small()
    other = dataclasses.replace(job, seeds=(5,))
    rewrite(lock_path(tmp_path, other), host="node7", pid=42)  # of other seeds of the same cell
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
    with pytest.raises(Busy, match="finished by another process"):
        list(train_alone(more, tmp_path, Host()))
    assert list((tmp_path / "work").iterdir()) == []


def test_a_driver_whose_job_was_taken_over_stops_and_writes_nothing(small, tmp_path):
    job = small()
    training = train_alone(job, tmp_path, Host())
    for step in training:
        if step == 5:
            break
    path = lock_path(tmp_path, job)
    path.unlink()
    rewrite(path)
    with pytest.raises(Busy, match="taken over"):
        list(training)
    assert [file.name for file in (tmp_path / "work").iterdir()] == [path.name]
    assert not (tmp_path / "runs").exists()
