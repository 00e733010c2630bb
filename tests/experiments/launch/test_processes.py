"""The installed program, as a person starts it: refusals, Ray, and a machine that dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.store.lock import read_lease
from offmarl.experiments.store.store import Store

CHECKOUT = Path(__file__).parents[3]
OFFMARL = Path(sys.executable).with_name("offmarl")
SPREAD = ["run", "--suite", "continuous", "--tasks", "mpe/spread:medium", "--set", "all.hidden=[16]"]


def start(*arguments, cwd, **how):
    """Begin `offmarl ...` with one thread a process."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    surroundings.pop("RAY_ADDRESS", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.Popen([OFFMARL, *map(str, arguments)], cwd=cwd, env=surroundings, **pipes)


def offmarl(*arguments, cwd):
    """Run to the end: exit code, what it printed, what it complained of."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def test_the_program_refuses_wrong_input_with_exit_code_2_and_one_line(tmp_path):
    code, out, err = offmarl("run", "--suite", "smac", "--set", "mac_flow.alpa=1.0", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and "Traceback" not in err
    assert "'alpha'" in err


def test_a_killed_grid_loses_at_most_what_was_running_and_two_drivers_finish_it_together(tmp_path, complete):
    methods = ["bc", "flow_bc", "macql", "mac_flow"]
    command = [*SPREAD, "--profile", "smoke", "--algorithms", ",".join(methods), "--jobs", "1", "--results", tmp_path]
    with open(tmp_path / "log", "w") as log:
        driver = start(*command, cwd=tmp_path, stdout=log, stderr=log)
        runs = tmp_path / "runs"
        while driver.poll() is None and not (runs.is_dir() and any(p.name[0] != "." for p in runs.iterdir())):
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    before = complete(tmp_path)
    cells = 2 * len(methods)
    assert 1 <= len(before) < cells
    assert {record["status"] for record in before.values()} == {"done"}

    assert len(list((tmp_path / "work").glob("*.lease"))) == 1  # of the dead, to be taken at once
    drivers = [start(*command, cwd=tmp_path) for _ in range(2)]
    told = [driver.communicate(timeout=400)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], told
    after = complete(tmp_path)
    assert len(after) == cells
    assert {record["status"] for record in after.values()} == {"done"}
    assert {run_id: after[run_id] for run_id in before} == before  # what was done was not done again
    trained = [line.split("] ")[1].split(" done;")[0] for err in told for line in err.splitlines() if " done;" in line]
    assert sorted(trained) == sorted(
        {f"spread:medium {after[run_id]['cell']['algorithm']}" for run_id in after.keys() - before}
    )
    assert any(f"is being run by {socket.gethostname()} pid {driver.pid}" in err for driver in drivers for err in told)
    assert list((tmp_path / "work").iterdir()) == []
    selection = {"algorithms": methods, "tasks": ["mpe/spread:medium"], "overrides": {"all": {"hidden": [16]}}}
    jobs = grid.jobs(grid.Request("continuous", "smoke", **selection))
    assert {run_id for job in jobs for run_id in job.run_ids()} == set(after)
    assert grid.pending(jobs, Store(tmp_path)) == []


def leases(results, wanted):
    """Job to process of what is being trained, as soon as it is what is wanted."""
    for _ in range(3000):
        time.sleep(0.1)
        found = {path: read_lease(path) for path in (results / "work").glob("*.lease")}
        if wanted(found):
            return {path: lease["pid"] for path, lease in found.items()}
    raise TimeoutError(found)


def test_ray_tries_again_when_a_worker_is_killed_and_stops_by_hand_with_everything_saved(tmp_path):
    command = [*SPREAD, "--algorithms", "mac_flow,macql", "--jobs", "2", "--set", "all.batch_size=1024"]
    driver = start(*command, "--results", tmp_path, cwd=tmp_path)
    first = leases(tmp_path, lambda found: len(found) == 2 and all(each["step"] for each in found.values()))
    killed, pid = next(iter(first.items()))
    os.kill(pid, signal.SIGKILL)
    leases(tmp_path, lambda found: killed in found and found[killed]["pid"] != pid and found[killed]["step"])
    began = time.monotonic()
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert driver.returncode == 130 and "Traceback" not in err
    assert err.splitlines()[-1] == "offmarl: stopped; the same command continues where it was"
    assert sorted(path.suffix for path in (tmp_path / "work").iterdir()) == [".pt", ".pt"]
