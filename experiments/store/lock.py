"""Locks of a results store, which several drivers, on one machine or many, may share.

    <results>/work/<job>.lease    JSON: host, pid, driver, token, step, steps; its heartbeat is its time of change

A lease whose holder is gone is taken over: at once where that can be seen, else when its heart has not beaten for STALE
seconds by the file system's own clock.
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

BEAT, STALE = 10.0, 120.0  # seconds
WIDTH = 400  # bytes of a lease: written over in place, it is never torn


class Busy(Exception):
    """Another driver has the job, or has done it."""


class Lost(BaseException):
    """Another driver has taken the job over; nothing may be saved any more."""


class Lease:
    """The right to train the cells of a job, for a worker of a driver (empty: the driver itself).

    Raises:
        Busy: when another has it; says who.
    """

    def __init__(self, path: Path, driver: str = ""):
        self.path = path
        self.facts: dict[str, Any] = {**me(), "driver": driver, "token": uuid.uuid4().hex}
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                self.file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
                break
            except FileExistsError:
                _make_way(path, driver)
        self._ended = threading.Event()
        self.beat()
        self._heart = threading.Thread(target=self._live, daemon=True)
        self._heart.start()

    def beat(self) -> None:
        """Write how far the job is into the file that was made here, even if another has taken its place."""
        os.pwrite(self.file, json.dumps(self.facts).ljust(WIDTH).encode(), 0)

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # a full disk: others will take over
                self.beat()

    def held(self) -> bool:
        """Whether it was not taken over meanwhile, as from a process that had been stopped."""
        try:
            return os.path.samestat(os.fstat(self.file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it up."""
        self._ended.set()
        self._heart.join()
        if self.held():
            self.path.unlink(missing_ok=True)
        os.close(self.file)


def me() -> dict[str, Any]:
    """This process: its host, its number and the space in which that is one."""
    with contextlib.suppress(OSError):
        return {"host": socket.gethostname(), "pid": os.getpid(), "space": os.readlink("/proc/self/ns/pid")}
    return {"host": socket.gethostname(), "pid": os.getpid(), "space": ""}


def read_lease(path: Path) -> dict[str, Any]:
    """Who holds a lease, how far the job is, and `age`, seconds since the last heartbeat; FileNotFoundError if none."""
    with path.open("rb") as file:
        beaten = os.fstat(file.fileno()).st_mtime
        try:
            facts = dict(json.loads(file.read()))
        except (ValueError, TypeError):  # its holder died as it wrote it
            facts = {}
    age = now(path.parent) - beaten
    empty = {"host": "unknown", "pid": 0, "space": "", "driver": "", "token": "", "step": 0, "steps": 0}
    return {**empty, **facts, "age": age}


def now(folder: Path) -> float:
    """The time of the file system. The clocks of machines differ, and jump."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime
    return time.time()  # who cannot write here only looks


def alive(lease: dict[str, Any]) -> bool:
    """Whether the holder of a lease may still be at work."""
    own = me()
    if (lease["host"], lease["space"]) == (own["host"], own["space"]):
        try:
            if psutil.Process(lease["pid"]).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
    return lease["age"] < STALE


def _make_way(path: Path, driver: str) -> None:
    """Remove the lease of a holder that is gone, or was a worker of the same driver.

    Of two that try, the second may have moved the first one's new lease away: it puts that back.

    Raises:
        Busy: when the holder is not gone.
    """
    try:
        found = read_lease(path)
        if alive(found) and not (driver and found["driver"] == driver):
            raise Busy(f"is being run by {found['host']} pid {found['pid']}")
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        os.rename(path, aside)
    except FileNotFoundError:  # another was first, or it has just ended
        return
    if read_lease(aside)["token"] != found["token"]:
        with contextlib.suppress(FileExistsError):  # a third one holds it by now, and the owner will notice
            os.link(aside, path)
    aside.unlink()
