"""Locks of a results store, which several drivers, on one machine or many, may share.

    <results>/work/<job>.lock    JSON: host, machine, pid, driver, seeds, step, steps; its modification time is its
                                 heartbeat

A lock whose holder has died is removed and taken over: at once where the process can be seen, else when the heartbeat
is older than STALE_SECONDS by the clock of the file system. A lock whose runs are all done belongs to nobody.
"""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from offmarl.experiments.store.store import WITH_RESULT, Store

HEARTBEAT_SECONDS, STALE_SECONDS = 10.0, 120.0
WIDTH = 400  # bytes of a lock at least: it is written over in place and never half-written
UNKNOWN = {"host": "unknown", "machine": "", "pid": 0, "space": "", "driver": "", "seeds": (), "step": 0, "steps": 0}
KINDS = {name: type(value) if name != "seeds" else (list, tuple) for name, value in UNKNOWN.items()}
BOOT = Path("/proc/sys/kernel/random/boot_id")
NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR
SUFFIXES = (".lock", ".lease")  # of a new lock, and of one by an older version


class Busy(Exception):
    """Another driver trains the job, or has finished it."""


class TakenOver(BaseException):
    """Another driver has taken the job over: nothing may be saved any more."""


class Lock:
    """The exclusive right to train a job, for a worker of a driver (empty: itself). Raises Busy, naming the holder."""

    def __init__(self, path: Path, driver: str = ""):
        self.path = path
        self.facts: dict[str, Any] = {**UNKNOWN, **this_process(), "driver": driver}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        self.file = os.open(draft, NEW, 0o644)
        try:
            self.write_heartbeat()
            while not self._taken(draft, driver):
                pass
        except BaseException:
            os.close(self.file)
            raise
        finally:
            draft.unlink(missing_ok=True)
        self._released = threading.Event()
        self._heartbeat = threading.Thread(target=self._keep_alive, daemon=True)
        self._heartbeat.start()

    def _taken(self, draft: Path, driver: str) -> bool:
        """Let the draft appear in its place, complete; False when another process was faster."""
        for suffix in SUFFIXES:
            if holder := remove(self.path.with_suffix(suffix), driver):
                raise Busy(f"is being run by {holder['host']} pid {holder['pid']}")
        with contextlib.suppress(FileExistsError):
            try:
                os.link(draft, self.path)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                os.close(os.open(self.path, NEW, 0o644))
                os.replace(draft, self.path)
            return True
        return False

    def write_heartbeat(self) -> None:
        """Write the job's progress into the file that was created here, even if another has taken its place."""
        os.pwrite(self.file, json.dumps(self.facts).ljust(WIDTH).encode(), 0)

    def _keep_alive(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a full disk: another driver will take over
                self.write_heartbeat()

    def held(self) -> bool:
        """Whether nobody has taken it over, as happens to a process that was suspended."""
        return _is_file_at(self.file, self.path)

    def release(self) -> None:
        """Give it up."""
        self._released.set()
        self._heartbeat.join()
        if self.held():
            self.path.unlink(missing_ok=True)
        os.close(self.file)


def remove(path: Path, driver: str = "") -> dict[str, Any] | None:
    """Remove a lock that belongs to nobody, or to a worker of `driver`; the facts of one that stays, else None.

    Processes that remove the same lock do so one after the other, so that none removes the next holder's new one.
    """
    try:
        file = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        with contextlib.suppress(OSError):  # no flock here: a holder whose new lock was removed notices and stops
            fcntl.flock(file, fcntl.LOCK_EX)
        if not _is_file_at(file, path):  # another process was first
            return None
        facts = read_lock(path)
        if not (driver and facts["driver"] == driver) and not belongs_to_nobody(path, facts):
            return facts
        path.unlink()
    except FileNotFoundError:  # just released
        pass
    finally:
        os.close(file)
    return None


def belongs_to_nobody(path: Path, facts: dict[str, Any]) -> bool:
    """Whether the holder of a lock has died, or has stored every run of its job and was killed before releasing it."""
    return not alive(facts) or finished(path.parents[1], path.stem, facts["seeds"])


def finished(results: Path, job: str, seeds: Iterable[int | str]) -> bool:
    """Whether every seed of a job has a run with a result; without seeds it is not known, so False."""
    store, runs = Store(results), run_ids(job, seeds)
    return bool(runs) and all((store.peek(run_id) or {}).get("status") in WITH_RESULT for run_id in runs)


def run_ids(job: str, seeds: Iterable[int | str]) -> list[str]:
    """The runs of a job, which is named like them but for the seed."""
    name, _, settings = job.rpartition(".")
    return [f"{name}.s{seed}.{settings}" for seed in seeds]


def lock_files(results: Path) -> list[Path]:
    """The locks of a results directory, those that belong to nobody too."""
    return sorted(path for path in (results / "work").glob("[!.]*") if path.suffix in SUFFIXES)


def running(results: Path) -> dict[str, dict[str, Any]]:
    """The facts of the locks of jobs that are being trained, by job."""
    found = {}
    for path in lock_files(results):
        with contextlib.suppress(OSError):  # just released, or not ours to read
            facts = read_lock(path)
            if not belongs_to_nobody(path, facts):
                found[path.stem] = facts
    return found


def this_process() -> dict[str, Any]:
    """Host, machine, process id and the namespace of that id.

    Cloned machines share a host name, so a machine is known by its boot; without one, by its name.
    """
    namespace, host = "", socket.gethostname()
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    try:
        machine = BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        machine = ""
    return {"host": host, "machine": machine or host, "pid": os.getpid(), "space": namespace}


def read_lock(path: Path) -> dict[str, Any]:
    """Holder, progress and `age` (seconds since the last heartbeat) of a lock; FileNotFoundError if there is none."""
    with path.open("rb") as file:
        heartbeat = os.fstat(file.fileno()).st_mtime
        try:
            facts = dict(json.loads(file.read()))
        except (ValueError, TypeError):  # its holder was killed as it made it, without hard links
            facts = {}
        facts = {key: value for key, value in facts.items() if isinstance(value, KINDS.get(key, object))}
    return {**UNKNOWN, **facts, "age": now(path.parent) - heartbeat}


def now(folder: Path) -> float:
    """The time by the clock of a folder's file system: machines' clocks differ, and jump."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder, prefix=".clock.") as file:
        return os.fstat(file.fileno()).st_mtime
    return time.time()  # the folder is read-only


def alive(facts: dict[str, Any]) -> bool:
    """Whether the holder of a lock may still be training."""
    here = this_process()
    if (facts["machine"], facts["space"]) == (here["machine"], here["space"]) and not _runs(facts["pid"]):
        return False
    return facts["age"] < STALE_SECONDS


def _runs(pid: int) -> bool:
    """Whether a process of this machine runs; another user's may be hidden."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        try:
            os.kill(pid, 0)
        except OSError as error:
            return isinstance(error, PermissionError)
        return True


def _is_file_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
