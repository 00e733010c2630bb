"""What befalls a grid: full disks, results that cannot be written, no memory, native crashes, jumping clocks."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offmarl.algorithms import registry
from offmarl.experiments.cli import main
from offmarl.experiments.commands.status import survey
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host

OFFMARL = Path(sys.executable).with_name("offmarl")
SURROUNDINGS = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
SELECTION = ["--suite", "continuous", "--profile", "smoke", "--set", "all.hidden=[16]"]
RUN = ["run", *SELECTION, "--tasks", "mpe/spread:medium", "--algorithms", "bc", "--jobs", "1"]


def offmarl(*words, before=(), cwd):
    """Run to the end: exit code and what it complained of."""
    command = [*before, OFFMARL, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=cwd, env=SURROUNDINGS)
    return done.returncode, done.stderr.splitlines()


# Disks.


def test_a_full_disk_is_told_in_a_line_and_leaves_nothing_half_written(capfd, tmp_path, complete):
    command = [*RUN, "--results", str(tmp_path)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))  # no file may grow beyond; errors as of a full disk
    try:
        code = main(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capfd.readouterr().err.splitlines()
    assert code == 1
    assert said[-1].startswith("offmarl: ") and "free some space" in said[-1]
    assert not any("Traceback" in line for line in said)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "grids"] == []
    assert main(command) == 0
    assert {record["status"] for record in complete(tmp_path).values()} == {"done"}


NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
try:
    MOUNTS = subprocess.run([*NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True).returncode == 0
except FileNotFoundError:
    MOUNTS = False


@pytest.mark.skipif(not MOUNTS, reason="file systems of one's own cannot be mounted here")
def test_a_small_file_system_runs_full_and_a_larger_one_goes_on(tmp_path, capsys):
    small, results = tmp_path / "small", tmp_path / "small" / "results"
    small.mkdir()
    script = f"""
        mount -t tmpfs -o size=16k none {small}
        {OFFMARL} "$@" --results {results} && exit 9
        cp -r {results} {tmp_path}/full
        mount -o remount,size=64m {small}
        {OFFMARL} "$@" --results {results}
        cp -r {results} {tmp_path}/whole
    """
    done = subprocess.run([*NAMESPACE, script, "sh", *RUN], capture_output=True, text=True, env=SURROUNDINGS)
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("offmarl: ")]
    assert told.startswith(f"offmarl: {results}: No space left on device; free some space")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    for name in ("full", "whole"):
        assert main(["verify", "--results", str(tmp_path / name)]) == 0
    assert len(Store(tmp_path / "full").run_ids()) < len(Store(tmp_path / "whole").run_ids()) == 2
    assert capsys.readouterr().out.count("all sound") == 2


# Root may write what is read-only, unless it gives that up.
POWERLESS = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []


@pytest.fixture
def read_only(tmp_path):
    """Results of a run that nobody may write to any more."""
    results = tmp_path / "results"
    assert main([*RUN, "--results", str(results)]) == 0
    (results / "reports").rename(tmp_path / "reports")
    places = [results, *results.rglob("*")]
    for place in places:
        place.chmod(place.stat().st_mode & 0o555)
    yield results
    for place in places:
        place.chmod(place.stat().st_mode | 0o200)


COMMANDS = {  # what each may still do: its exit code
    "run": ([*RUN], 2),
    "report": (["report", *SELECTION[:4]], 1),
    "verify": (["verify"], 0),
    "status": (["status"], 0),
    "site": (["report", "--suite", "all", "--site", "site"], 0),
}
IN_TURN = """
import contextlib, io, json, sys
from offmarl.experiments.cli import main

told = {}
for name, words in json.load(sys.stdin).items():
    with contextlib.redirect_stderr(io.StringIO()) as err:
        told[name] = main(words), err.getvalue().splitlines()
print(json.dumps(told))
"""


def test_results_that_may_only_be_read_are_read_and_else_refused_in_a_line(read_only, tmp_path):
    before = {path: path.read_bytes() for path in read_only.rglob("*") if path.is_file()}
    words = {name: [*words, "--results", str(read_only)] for name, (words, _) in COMMANDS.items()}
    how = {"input": json.dumps(words), "capture_output": True, "text": True, "cwd": tmp_path, "env": SURROUNDINGS}
    done = subprocess.run([*POWERLESS, sys.executable, "-c", IN_TURN], **how)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {name: code for name, (code, _) in told.items()} == {name: code for name, (_, code) in COMMANDS.items()}
    for code, said in told.values():
        assert not any("Traceback" in line for line in said)
        assert not code or all(words in said[-1] for words in ("offmarl: ", str(read_only), "choose another directory"))
    assert {path: path.read_bytes() for path in read_only.rglob("*") if path.is_file()} == before


# Memory, crashes.


def test_a_method_that_asks_for_too_much_memory_is_recorded_and_the_others_run(small, tmp_path, monkeypatch):
    import torch

    def losses(self, batch):
        return {"policy": torch.zeros(2**50).sum()}  # a petabyte or four

    monkeypatch.setitem(registry(), "greedy", type("Greedy", (registry()["bc"],), {"losses": losses, "name": "greedy"}))
    grid = [small("greedy"), small("bc")]
    (failure,) = run_serial(grid, tmp_path, Host())
    assert "memory" in failure
    store = Store(tmp_path)
    assert [store.status(run_id) for job in grid for run_id in job.run_ids()] == ["failed"] * 2 + ["done"] * 2
    assert "memory" in store.read(grid[0].run_ids()[0])["reason"]


CRASHES = '''
import os, signal
from offmarl.algorithms import bc

class Config(bc.Config):
    """As cloning has them."""

class Crashes(bc.BC):
    """Dies in its first evaluation, with the simulator."""
    name, title, Config = "crashes", "Crashes", Config

    def act(self, *arguments, **how):
        os.kill(os.getpid(), signal.SIGSEGV)
'''


def test_a_simulator_that_takes_its_worker_with_it_is_tried_again_then_recorded(tmp_path, complete):
    file = tmp_path / "crashes.py"
    file.write_text(CRASHES)
    words = [*SELECTION, "--tasks", "mamujoco/3hopper:medium", "--algorithm", file, "--algorithms", "crashes,bc"]
    code, said = offmarl("run", *words, "--jobs", "2", "--results", tmp_path / "results", cwd=tmp_path)
    assert code == 1 and not any("Traceback" in line for line in said)
    assert said[-1] == "failed: 3hopper:medium crashes: the worker process died twice (killed, or out of memory)"
    states = {(r["cell"]["algorithm"], r["status"]) for r in complete(tmp_path / "results").values()}
    assert states == {("crashes", "failed"), ("bc", "done")}
    assert survey(Store(tmp_path / "results"))["running"] == []


# Clocks.


def test_a_clock_that_jumps_changes_nothing(small, tmp_path, monkeypatch):
    job, now = small(), time.time()
    run_serial([job], tmp_path / "calm", Host())
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now + (-1) ** next(jumps) * 1e8)  # three years to and fro
    assert run_serial([job], tmp_path / "jumping", Host()) == []
    calm, jumping = (Store(tmp_path / name) for name in ("calm", "jumping"))
    for run_id in job.run_ids():
        assert calm.read(run_id)["evaluations"] == jumping.read(run_id)["evaluations"]
        assert min(value for part, value in jumping.read(run_id)["time"].items() if part.endswith("_s")) >= 0
