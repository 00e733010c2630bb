"""A method is trained, corrected, and asked for again: the old number is called stale until `--again` replaces it."""

import json

import pytest
import torch

from offmarl.algorithms import registry
from offmarl.benchmarks import source
from offmarl.experiments.cli import main
from offmarl.experiments.grid import code
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.training.run import train

METHOD = """
from offmarl.algorithms.bc import BC

class Mine(BC):
    name = "mine"
    sign = 1

    def losses(self, batch):
        return {key: self.sign * value for key, value in super().losses(batch).items()}
"""


pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture
def offmarl(tmp_path, capsys):
    """Call the command line as a new process would, with a method file of this text; exit code and what it said."""

    def call(command, text=METHOD, *words):
        for cached in (source._tree, source._form, registry):
            cached.cache_clear()
        (tmp_path / "mine.py").write_text(text)
        monkey = ["--method-file", str(tmp_path / "mine.py")] if command == "run" else []
        suite = ["--suite", "continuous", "--profile", "smoke"] if command in ("run", "report") else []
        cell = ["--tasks", "mpe/spread:medium", "--algorithms", "mine", "--jobs", "1"] if command == "run" else []
        small = ["--seeds", "0", "--set", "all.hidden=[8]"] if command == "run" else []
        result = main([command, *suite, *cell, *small, *monkey, "--results", str(tmp_path / "results"), *words])
        out, err = capsys.readouterr()
        return result, out, err

    return call


def test_a_corrected_loss_makes_its_runs_stale_everywhere_and_again_trains_them_anew(offmarl, tmp_path):
    assert offmarl("run")[0] == 0
    (run,) = (tmp_path / "results" / "runs").iterdir()
    before = json.loads((run / "run.json").read_text())
    _, _, err = offmarl("run", METHOD.replace("class", "# A comment.\nclass"))
    assert "stale" not in err

    corrected = METHOD.replace("sign = 1", "sign = -1")
    result, out, err = offmarl("run", corrected)
    assert result == 0 and "1 finished runs are stale: the code of their method" in err and "--again" in err
    assert "Stale: the code of methods or tasks has changed since these runs: mine 1." in out
    assert json.loads((run / "run.json").read_text()) == before
    assert "Stale: " in offmarl("report", corrected)[1]
    assert "stale: 1 runs were trained with other code" in offmarl("status", corrected)[1]
    result, out, _ = offmarl("verify", corrected)
    assert result == 0 and "1 stale" in out and f"runs/{run.name}: stale: the code of its method" in out

    result, out, err = offmarl("run", corrected, "--again")
    after = json.loads((run / "run.json").read_text())
    assert result == 0 and "Stale" not in out and "moved to" in err
    assert after["code_sums"] != before["code_sums"] and after["config_hash"] == before["config_hash"]
    assert json.loads((tmp_path / "results" / "stale" / f"{run.name}.1" / "run.json").read_text()) == before
    assert "stale" not in offmarl("status", corrected)[1] + offmarl("verify", corrected)[1]


def test_again_moves_nothing_that_is_not_stale_and_nothing_in_a_dry_run(offmarl, tmp_path):
    offmarl("run")
    (run,) = (tmp_path / "results" / "runs").iterdir()
    inode = run.stat().st_ino
    assert offmarl("run", METHOD, "--again")[0] == 0 and run.stat().st_ino == inode
    _, _, err = offmarl("run", METHOD.replace("sign = 1", "sign = 2"), "--again", "--dry-run")
    assert "1 finished runs" in err and run.stat().st_ino == inode


def test_a_checkpoint_of_other_code_is_not_continued(small, tmp_path, capsys):
    job = small(steps=20)
    training = train(job, tmp_path)
    for step in training:
        if step == 5:
            break
    training.close()
    (file,) = (tmp_path / "work").glob("*.pt")
    state = torch.load(file, weights_only=True)
    assert next(step for step in train(job, tmp_path) if step) == 6
    torch.save(state | {"code_sums": {"method": "0", "task": "0"}}, file)
    assert next(step for step in train(job, tmp_path) if step) == 1
    assert "the code has changed since its checkpoint" in capsys.readouterr().err


def test_a_record_holds_the_sums_of_its_code(small, tmp_path):
    job = small(steps=10, seeds=(0,))
    list(train(job, tmp_path))
    record = json.loads((tmp_path / "runs" / job.run_ids()[0] / "run.json").read_text())
    assert record["code_sums"] == code.code_sums(job.algorithm, job.task)
    assert grid.stored_hash(record) == record["config_hash"]  # which the sums do not change
