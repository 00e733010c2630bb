"""How many jobs train at once: quotas of containers, and games that fill memory."""

import re
import socket
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from offmarl.benchmarks.tasks import tasks
from offmarl.experiments.errors import UserError
from offmarl.experiments.launch import workers


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Write files of control groups; this process is in `own`."""
    monkeypatch.setattr(workers, "CGROUPS", tmp_path)
    monkeypatch.setattr(workers, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: set(range(192)), raising=False)

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu_dot_max": "100000 100000\n"}, 1),  # a container's own view
        ("0::/\n", {"cpu_dot_max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu_dot_max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu_dot_max": "max 100000\n"}, 192),
        ("0::/jobs/7\n", {"jobs__7__cpu_dot_max": "max 100000", "jobs__cpu_dot_max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/d\n", {"cpu__cpu.cfs_quota_us": "200000", "cpu__cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/d\n", {"cpu__d__cpu.cfs_quota_us": "-1", "cpu__d__cpu.cfs_period_us": "100000"}, 192),
        ("nonsense\n", {}, 192),
        ("0::/\n", {"cpu_dot_max": ""}, 192),
    ],
    ids=str,
)
def test_cores_are_those_that_the_container_allows(cgroups, own, files, cores):
    cgroups(own, **files)
    assert workers.core_count() == cores


def jobs(*seeds, engine="smac"):
    task = replace(tasks()["smac/3m"], engine=engine)
    return [SimpleNamespace(seeds=range(count), entry=SimpleNamespace(task=task)) for count in seeds]


@pytest.mark.parametrize(("asked", "seeds", "gigabytes", "at_once"), [(16, 6, 64, 10), (2, 6, 64, 2), (8, 2, 3, 1)])
def test_games_of_starcraft_fit_into_memory(monkeypatch, capsys, asked, seeds, gigabytes, at_once):
    monkeypatch.setattr(workers, "memory", lambda: gigabytes * 1e9)
    assert workers.bounded_by_games(asked, jobs(1, seeds)) == at_once
    said = capsys.readouterr().err
    assert (f"{at_once} jobs at once instead of {asked}" in said) == (at_once < asked)
    assert workers.bounded_by_games(asked, jobs(99, engine="smax")) == asked


def test_more_games_than_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(workers, "memory", lambda: 4e9)
    with pytest.raises(UserError, match="8 games of StarCraft at once.*4 GB"):
        workers.bounded_by_games(1, jobs(8))


def test_memory_is_what_the_container_allows(cgroups):
    cgroups("0::/\n", **{"memory_dot_max": "3000000000\n"})
    assert workers.memory() == 3e9


def answering(first):
    """A server on this machine that begins with these bytes; its address. It ends with the test's process."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            there, _ = server.accept()
            there.sendall(first)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_cluster_that_answers_as_grpc_does_is_one(monkeypatch):
    address = answering(bytes(3) + b"\x04" + bytes(5))
    for there in (address, f"ray://{address}", "local", "", f" {address} "):
        monkeypatch.setenv("RAY_ADDRESS", there)
        workers.check_cluster(2)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    workers.check_cluster(1)  # one worker needs none


GONE = ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:99999", "no-such-host.invalid:6379"]


@pytest.mark.parametrize("address", [*GONE, "somewhere", "http://127.0.0.1:8265"])
def test_a_cluster_that_is_gone_is_refused_at_once(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=rf"RAY_ADDRESS={re.escape(address)}: no cluster there \(.+\); start"):
        workers.check_cluster(2)


def test_auto_after_a_cluster_died_and_a_port_of_something_else_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)  # others' clusters on this machine
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match="RAY_ADDRESS=auto: no cluster there \\(Could not find any"):
        workers.check_cluster(2)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(UserError, match="RAY_ADDRESS=auto: no cluster there \\(Connection refused"):
        workers.check_cluster(2)
    for first in (b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-OpenSSH\r\n"):
        monkeypatch.setenv("RAY_ADDRESS", answering(first))
        with pytest.raises(UserError, match="what answers is not Ray"):
            workers.check_cluster(2)
    monkeypatch.setattr(workers, "CLUSTER_SECONDS", 0.2)
    monkeypatch.setenv("RAY_ADDRESS", answering(b""))
    with pytest.raises(UserError, match="timed out"):
        workers.check_cluster(2)


@pytest.mark.parametrize(("address", "asked"), [("local", ""), ("", ""), (" ", ""), ("auto", "auto"), ("h:1", "h:1")])
def test_a_local_ray_is_no_cluster(monkeypatch, address, asked):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert workers.ray_address() == asked
