"""A Ray cluster of two nodes, one of which dies during training; and a local Ray that nobody else can reach."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from offmarl.experiments.store.lock import running

CHECKOUT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
SOON_DEAD = {"RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "10000"}  # half a minute otherwise
SURROUNDINGS = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def soon(condition, seconds):
    """What a condition comes to, as soon as it is something; TimeoutError if that is not within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise TimeoutError(condition)


@pytest.fixture
def cluster(tmp_path_factory):
    """Two raylets with a CPU each, as two machines would have them; the address and the processes of both."""
    logs = tmp_path_factory.mktemp("nodes")
    address, nodes = f"{ray.util.get_node_ip_address()}:{free_port()}", []

    def node(*words):
        command = [BIN / "ray", "start", *words, "--num-cpus=1", "--block", "--disable-usage-stats"]
        log = logs / str(len(nodes))
        with log.open("w") as out:
            nodes.append(subprocess.Popen(command, env={**SURROUNDINGS, **SOON_DEAD}, stdout=out, stderr=out))
        soon(lambda: "Ray runtime started" in log.read_text(), 300)

    node("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false")
    node(f"--address={address}")
    yield address, *nodes
    for process in nodes:
        end(process)


def end(node):
    """Take a node's power: every process of it at once."""
    try:
        family = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    node.wait(30)


def trainer(node, results):
    """The process of a node that is in the middle of a job, if there is one."""
    theirs = {child.pid for child in psutil.Process(node.pid).children(recursive=True)}
    return next((facts["pid"] for facts in running(results).values() if facts["pid"] in theirs), None)


def test_a_grid_runs_on_two_nodes_and_ends_complete_though_one_dies(cluster, tmp_path, complete):
    address, first, second = cluster
    words = [
        "--suite",
        "continuous",
        "--profile",
        "smoke",
        "--tasks",
        "mpe/spread:medium,mpe/spread:expert",
        "--set",
        "all.hidden=[16]",
    ]
    command = ["run", *words, "--algorithms", "bc,mac_flow", "--set", "all.batch_size=512", "--jobs", "2"]
    surroundings = {**SURROUNDINGS, "RAY_ADDRESS": address}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [BIN / "offmarl", *command, "--results", tmp_path]
    driver = subprocess.Popen(command, cwd=CHECKOUT, env=surroundings, **pipes)
    try:
        soon(lambda: trainer(first, tmp_path) or trainer(second, tmp_path) or driver.poll() is not None, 300)
        if held := trainer(first, tmp_path):  # until the second trains too, which can come up after a few short jobs
            os.kill(held, signal.SIGSTOP)
        soon(lambda: trainer(second, tmp_path) or driver.poll() is not None, 300)
        assert driver.poll() is None, driver.communicate()
        end(second)
        if held:
            os.kill(held, signal.SIGCONT)
        out, err = driver.communicate(timeout=400)
    finally:
        driver.kill()
    assert driver.returncode == 0, err
    records = complete(tmp_path)
    assert len(records) == 2 * 2 * 2  # methods, datasets, seeds
    assert {record["status"] for record in records.values()} == {"done"}
    assert "Traceback" not in err and "MAC-Flow" in out
    assert list((tmp_path / "work").iterdir()) == []

    alone = {name: value for name, value in SURROUNDINGS.items() if name != "RAY_ADDRESS"}
    again = subprocess.run(command, cwd=CHECKOUT, env=alone, capture_output=True, text=True, timeout=400)
    assert (again.returncode, again.stderr) == (0, "")  # nothing was recorded or trained
    assert out.endswith(again.stdout)  # and the report is the same; Ray may have told of the dead node before it
    assert complete(tmp_path) == records


def test_a_ray_of_our_own_listens_on_the_loopback_device_alone():
    script = (
        "import offmarl.experiments.launch.ray_tune, ray, psutil\n"
        "ray.init('local', num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "ours = {p.pid for p in [psutil.Process(), *psutil.Process().children(recursive=True)]}\n"
        "found = [c.laddr.ip for c in psutil.net_connections('inet') if c.status == 'LISTEN' and c.pid in ours]\n"
        "print(sorted(set(found)), len(found))\n"
    )
    alone = {name: value for name, value in SURROUNDINGS.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", script], env=alone, capture_output=True, text=True, timeout=400)
    places, _, count = done.stdout.strip().splitlines()[-1].rpartition(" ")
    assert int(count) >= 3 and set(eval(places, {})) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, done.stderr
