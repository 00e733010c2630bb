"""How many jobs train at once."""

import math
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from offmarl.experiments.errors import UserError

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Job

JOBS_PER_GPU = 6  # small networks share a GPU well; --jobs overrides it
GAME_BYTES = 1e9  # of a game of StarCraft II
CLUSTER_SECONDS = 5.0
HTTP2, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5), b"\x04"  # what gRPC begins with
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def core_count() -> int:
    """Cores that this process may use, by its affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(min(_quota(), cores))))


def _quota() -> float:
    """The cores that control groups allow; infinite where there is no limit."""
    allowed = [math.inf]
    for folder in _cgroups("cpu"):
        for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            with suppress(OSError, ValueError):  # no such file; "max" is no number
                time, period = (
                    int(word) for file in files for word in (folder / file).read_text(encoding="utf-8").split()
                )
                allowed += [time / period] if time > 0 < period else []
    return min(allowed)


def memory() -> float:
    """Bytes that this machine, or its container, has."""
    import psutil

    allowed = [float(psutil.virtual_memory().total)]
    for folder in _cgroups("memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                allowed.append(int((folder / file).read_text(encoding="utf-8")))
    return min(allowed)


def _cgroups(controller: str) -> Iterator[Path]:
    """The control group of this process and those around it; version 1 has a tree for each controller."""
    trees = {CGROUPS: "/", CGROUPS / controller: "/"}
    with suppress(OSError, ValueError):
        for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, names, own = line.split(":", 2)
            if not names or controller in names.split(","):
                trees[CGROUPS / controller if names else CGROUPS] = own
    for tree, own in trees.items():
        place = tree / own.lstrip("/")
        yield from (place, *(folder for folder in place.parents if folder.is_relative_to(tree)))


def ray_address() -> str:
    """The Ray cluster that RAY_ADDRESS names; empty where Ray is to start here."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return "" if address == "local" else address


def check_cluster(workers: int) -> None:
    """Ask the cluster before Ray does, which would wait for minutes; one worker needs none.

    Raises UserError where nothing answers, or something other than Ray.
    """
    if workers < 2 or not (address := ray_address()):
        return
    try:
        scheme, _, place = (_newest_cluster() if address == "auto" else address).rpartition("://")
        host, _, port = place.rpartition(":")
        if scheme not in ("", "ray") or not port.isdecimal():
            raise ConnectionError("this is no HOST:PORT")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CLUSTER_SECONDS) as there:
            there.sendall(HTTP2)
            if there.recv(4)[3:] != SETTINGS and os.environ.get("RAY_USE_TLS") != "1":
                raise ConnectionError("what answers is not Ray")
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        advice = "start the cluster, write its HOST:PORT, or unset RAY_ADDRESS to train on this machine"
        raise UserError(f"RAY_ADDRESS={address}: no cluster there ({why}); {advice}") from None


def _newest_cluster() -> str:
    """The address that Ray means by auto. ConnectionError where no cluster was started here."""
    from ray._private.services import canonicalize_bootstrap_address

    return canonicalize_bootstrap_address("auto") or ""


def bounded_by_games(workers: int, jobs: Sequence["Job"]) -> int:
    """At most as many jobs as memory has games of StarCraft for, one a seed. Raises UserError for less than one job."""

    games = max((len(job.seeds) for job in jobs if job.entry.task.simulator.presence), default=0)
    if not games:
        return workers
    total, most = memory(), int(memory() // (games * GAME_BYTES))
    has = f"about a gigabyte each, and this machine has {total / 1e9:.0f} GB"
    if not most:
        raise UserError(f"--seeds: {games} seeds play {games} games of StarCraft at once, {has}; give fewer at a time")
    if workers > most:
        said = f"a job plays up to {games} games of StarCraft at once, {has}"
        print(f"offmarl: {most} jobs at once instead of {workers}: {said}", file=sys.stderr)
    return min(workers, most)


def side_by_side(device: str, threads: int) -> int:
    """Jobs to train at once: by the cores, and on CUDA at most JOBS_PER_GPU for each GPU."""
    most = max(1, core_count() // max(1, threads))
    if not device.startswith("cuda"):
        return most
    import torch

    return min(most, JOBS_PER_GPU * torch.cuda.device_count())
