"""How many jobs train at once: quotas of containers, and games that fill memory."""

import socket
import time
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


def test_a_cluster_that_is_gone_is_refused_at_once(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for there in (address, f"ray://{address}", "auto", "local", "", f" {address} "):
            monkeypatch.setenv("RAY_ADDRESS", there)
            workers.check_cluster()
    began = time.monotonic()
    for gone in (address, f"ray://{address}", "[::1]:1", "127.0.0.1:99999", "no-such-host.invalid:6379"):
        monkeypatch.setenv("RAY_ADDRESS", gone)
        with pytest.raises(UserError, match="nothing answers there") as error:
            workers.check_cluster()
        assert f"RAY_ADDRESS={gone}" in str(error.value)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(("address", "asked"), [("local", ""), ("", ""), (" ", ""), ("auto", "auto"), ("h:1", "h:1")])
def test_a_local_ray_is_no_cluster(monkeypatch, address, asked):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert workers.ray_address() == asked
