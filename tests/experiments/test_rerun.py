"""The same run once more: `--deterministic` in two processes, and `offmarl rerun`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from offmarl.experiments.cli import main
from offmarl.experiments.host import Host
from offmarl.experiments.store import Store

OFFMARL = Path(sys.executable).with_name("offmarl")
RUN = ["run", "--suite", "continuous", "--profile", "smoke", "--tasks", "mpe/spread:random", "--jobs", "1"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A flow policy, which draws when it trains and when it acts, trained in another process."""
    results = tmp_path_factory.mktemp("first")
    command = [OFFMARL, *RUN, "--algorithms", "flow_bc", "--set", "all.hidden=[16]", "--deterministic"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--results", results], check=True, capture_output=True, env=surroundings, cwd=results)
    yield results
    Host().set_up()


@pytest.fixture(scope="module")
def run_id(results):
    return Store(results).run_ids()[1]


def again(results, capsys, *arguments):
    code = main(["rerun", *arguments, "--results", str(results)])
    return code, capsys.readouterr().out.splitlines()


def test_the_same_seed_gives_the_same_bits_in_another_process(results, run_id, capsys):
    record = Store(results).read(run_id)
    assert record["machine"]["deterministic"] and record["seeds"] == [0, 1]
    code, lines = again(results, capsys, run_id)
    assert code == 0
    assert lines[0].startswith(f"{run_id}, with seeds 0, 1 on ")
    assert lines[1:] == [f"{what}: the same bit for bit" for what in ("returns", "curves", "weights")]
    assert torch.are_deterministic_algorithms_enabled()
    assert sorted(path.name for path in results.iterdir()) == ["grids", "reports", "runs", "work"]


def test_a_seed_alone_is_the_same_to_tolerance(results, run_id, capsys):
    code, lines = again(results, capsys, run_id, "--alone")
    assert code == 0 and lines[0].startswith(f"{run_id}, with seeds 1 on ")
    assert all("the same" in line for line in lines[1:])


def test_other_weights_are_not_the_same(results, run_id, capsys):
    file = results / "runs" / run_id / "checkpoint.pt"
    before = file.read_bytes()
    weights = torch.load(file, weights_only=True)
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] += 0.5
    torch.save(weights, file)
    code, lines = again(results, capsys, run_id)
    file.write_bytes(before)
    assert (code, lines[3]) == (1, "weights: not the same (furthest 0.5 off)")


def test_what_cannot_be_run_again_is_refused_in_a_line(results, run_id, capsys):
    store = Store(results)
    assert main(["rerun", run_id.replace("spread", "spred"), "--results", str(results)]) == 2
    assert run_id in capsys.readouterr().err
    from offmarl.experiments.grid import stored_job

    record = store.peek(run_id)
    job = stored_job(record, [0])
    assert job.run_ids() == [store.run_ids()[0]]
    old = stored_job(record | {"protocol": record["protocol"] | {"data": "00000000"}}, [7])
    store.write(old.cells()[0], record | {"run_id": old.run_ids()[0], "protocol": dict(old.protocol)})
    assert main(["rerun", old.run_ids()[0], "--results", str(results)]) == 2
    assert "another version of its data" in capsys.readouterr().err
