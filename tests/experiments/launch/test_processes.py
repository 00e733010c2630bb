"""The installed program, as a person starts it: wrong input, killed drivers and workers, Ray."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.store.lock import running
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


def wait_for(condition, driver):
    """What a condition gives, as soon as it is true; fails when the driver ends before or after five minutes."""
    for _ in range(30_000):
        if found := condition():
            return found
        assert driver.poll() is None, "the driver has ended"
        time.sleep(0.01)
    raise TimeoutError


def suspend(driver, condition):
    """Suspend a driver in a state in which a condition holds; it can leave that state between look and suspension."""
    while True:
        wait_for(condition, driver)
        driver.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, driver.pid, os.WSTOPPED | os.WNOWAIT)
        if found := condition():
            return found
        driver.send_signal(signal.SIGCONT)


def test_a_killed_grid_loses_at_most_what_was_running_and_two_drivers_finish_it_together(tmp_path, complete):
    methods = ["bc", "flow_bc", "macql", "mac_flow"]
    command = [*SPREAD, "--profile", "smoke", "--algorithms", ",".join(methods), "--jobs", "1", "--results", tmp_path]
    runs = tmp_path / "runs"
    logs = [tmp_path / f"log{k}" for k in range(3)]

    def begin(k):
        with logs[k].open("w") as log:
            return start(*command, cwd=tmp_path, stdout=log, stderr=log)

    killed = begin(0)
    suspend(killed, lambda: any(path.name[0] != "." for path in runs.glob("*")) and running(tmp_path))
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, logs[0].read_text()
    before = complete(tmp_path)
    cells = 2 * len(methods)
    assert 1 <= len(before) < cells
    assert {record["status"] for record in before.values()} == {"done"}
    assert len(list((tmp_path / "work").glob("*.lock"))) == 1  # of the dead, to be taken over at once

    first = begin(1)
    suspend(first, lambda: any(facts["pid"] == first.pid for facts in running(tmp_path).values()))
    second = begin(2)
    wait_for(lambda: f"is being run by {socket.gethostname()} pid {first.pid}" in logs[2].read_text(), second)
    first.send_signal(signal.SIGCONT)
    drivers = [first, second]
    assert [driver.wait(400) for driver in drivers] == [0, 0], [log.read_text() for log in logs]
    told = [log.read_text() for log in logs[1:]]
    after = complete(tmp_path)
    assert len(after) == cells
    assert {record["status"] for record in after.values()} == {"done"}
    assert {run_id: after[run_id] for run_id in before} == before  # what was done was not done again
    trained = [line.split("] ")[1].split(" done;")[0] for err in told for line in err.splitlines() if " done;" in line]
    assert sorted(trained) == sorted(
        {f"spread:medium {after[run_id]['cell']['algorithm']}" for run_id in after.keys() - before}
    )
    assert list((tmp_path / "work").iterdir()) == []
    selection = {"algorithms": methods, "tasks": ["mpe/spread:medium"], "overrides": {"all": {"hidden": [16]}}}
    jobs = grid.jobs(grid.Request("continuous", "smoke", **selection))
    assert {run_id for job in jobs for run_id in job.run_ids()} == set(after)
    assert grid.pending(jobs, Store(tmp_path)) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ray_tries_again_when_a_worker_is_killed_and_stops_by_hand_with_everything_saved(tmp_path, number, code):
    endless = ["--profile", "paper", "--seeds", "0,1", "--set", "all.batch_size=64"]  # a million updates
    command = [*SPREAD, *endless, "--algorithms", "mac_flow,macql", "--jobs", "2", "--results", tmp_path]
    driver = start(*command, cwd=tmp_path)

    def training():
        found = running(tmp_path)
        return len(found) == 2 and all(facts["step"] for facts in found.values()) and found

    job, facts = next(iter(wait_for(training, driver).items()))
    os.kill(facts["pid"], signal.SIGKILL)
    wait_for(lambda: (found := training()) and found[job]["pid"] != facts["pid"], driver)
    driver.send_signal(number)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == code and "Traceback" not in err and "received" not in err  # Ray's own word of a signal
    assert err.splitlines()[-1] == "offmarl: stopped; run the same command again to continue"
    assert sorted(path.suffix for path in (tmp_path / "work").iterdir()) == [".pt", ".pt"]


def test_ray_trains_by_an_interpreter_in_a_folder_with_spaces_and_umlauts(tmp_path):
    """A clone may lie anywhere; Ray starts its workers through a shell."""
    environment = tmp_path / "Ein Ördner; mit Zeichen" / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "lib").symlink_to(Path(sys.prefix) / "lib")
    (environment / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    python = environment / "bin" / "python"
    python.symlink_to(os.path.realpath(sys.executable))
    call = "from offmarl.experiments.cli import main; raise SystemExit(main())"
    small = ["--profile", "smoke", "--algorithms", "bc,flow_bc", "--steps", "20", "--jobs", "2"]
    command = [python, "-c", call, *SPREAD, *small, "--results", environment.parent / "results"]
    surroundings = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"LANG": "C", "LC_ALL": "C"}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(list((environment.parent / "results" / "runs").iterdir())) == 4


STRANGER = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]  # a user id that no list of users has
try:
    MAPS = subprocess.run([*STRANGER, "true"], capture_output=True).returncode == 0
except FileNotFoundError:
    MAPS = False


@pytest.mark.skipif(not MAPS, reason="user ids cannot be mapped here")
def test_a_container_runs_as_an_unknown_user_without_a_home(tmp_path):
    script = "import os, pwd, sys; print(os.getuid() in [user.pw_uid for user in pwd.getpwall()])"
    assert subprocess.check_output([*STRANGER, sys.executable, "-c", script], text=True).strip() == "False"
    surroundings = {"PATH": os.environ["PATH"], "OFFMARL_CACHE": os.environ["OFFMARL_CACHE"], "OMP_NUM_THREADS": "1"}
    how = {"cwd": tmp_path, "env": surroundings, "capture_output": True, "text": True, "timeout": 240}
    words = ["--profile", "smoke", "--algorithms", "bc,flow_bc", "--steps", "20", "--jobs", "1"]
    done = subprocess.run([*STRANGER, OFFMARL, *SPREAD, *words], **how)
    assert done.returncode == 0 and "spread" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr and len(list((tmp_path / "results" / "runs").iterdir())) == 4
    del surroundings["OFFMARL_CACHE"]
    done = subprocess.run([*STRANGER, OFFMARL, *SPREAD, *words, "--seeds", "7"], **how)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "OFFMARL_CACHE" in done.stderr
