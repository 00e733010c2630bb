"""Processes beside a command: they end with it however it ends, and the death of one is told in a line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offmarl.experiments.processes import Killed, processes

OFFMARL = Path(sys.executable).with_name("offmarl")
RECORD = [OFFMARL, "data", "record", "--tasks", "mpe/spread:medium,mpe/tag:medium", "--jobs", "2"]
BUSY = 'if __name__ == "__main__":\n from offmarl.experiments.processes import processes\n import os, time\n'
BUSY += " with processes(2) as pool:\n  print(pool.submit(os.getpid).result(), flush=True)\n"
BUSY += "  pool.submit(time.sleep, 600).result()\n"


def lives(pid):
    """Whether a process has not ended, nor waits for its end to be noted."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def until(condition):
    """Wait for what a condition gives."""
    for _ in range(3000):
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError


def workers(pid):
    """The processes of a pool of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_they_end_when_the_command_is_killed_even_in_the_middle_of_their_work(number):
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as program:
        worker = int(program.stdout.readline())
        others = workers(program.pid)
        program.send_signal(number)
    assert str(worker) in others
    until(lambda: not any(map(lives, others)))


def test_one_that_is_killed_while_it_records_is_told_in_a_line(tmp_path):
    place = {**os.environ, "OFFMARL_CACHE": str(tmp_path)}
    with subprocess.Popen(RECORD, cwd=tmp_path, env=place, stderr=subprocess.PIPE, text=True) as program:
        _, last = until(lambda: len(found := workers(program.pid)) == 2 and found)
        os.kill(int(last), signal.SIGKILL)
        said = program.stderr.read().splitlines()
    assert program.returncode == 2 and not any("Traceback" in line for line in said)
    assert said[-1] == "offmarl: a process was killed (out of memory?); --jobs 1 needs less"


def test_one_alone_has_no_jobs_to_reduce():
    with pytest.raises(Killed, match=r"^a process was killed \(out of memory\?\)$"), processes(1) as pool:
        pool.submit(os._exit, 9).result()
