"""`offmarl select`: the pool of the store, what it lacks, and the board by budget."""

import json

import pandas as pd
import pytest

from offmarl.datasets.catalogue import TUNING, catalogue
from offmarl.experiments.cli import main
from offmarl.experiments.grid.jobs import Request, jobs
from offmarl.experiments.store.store import Store
from offmarl.experiments.studies import selection, tuning

NAMES = ["mpe/spread:expert", "mpe/tag:expert"]
ASKED = Request("om2p", "smoke", algorithms=["bc", "matd3bc"], tasks=NAMES)
WORDS = ["select", "--suite", "om2p", "--profile", "smoke", "--algorithms", "bc,matd3bc", "--tasks", ",".join(NAMES)]


def store_run(store, job, seed, returns, **others):
    """A finished run that is known in full."""
    cell, run_id = next(pair for pair in zip(job.cells(), job.run_ids()) if pair[0].seed == seed)
    evaluations = [{"step": 150, "play": "own", "returns": returns}]
    facts = {"run_id": run_id, "status": "done", "evaluations": evaluations, "finished": "2026-01-02", **job.settings}
    facts |= {"dataset": {"return_mean": 10.0, "return_std": 2.0}, "algorithm": {"title": job.algorithm.upper()}}
    store.write(cell, facts | others, checkpoint=str(returns).encode())


def fill(results):
    """BC is the same whatever its settings; MATD3BC is poor but for one setting, the best of all."""
    store = Store(results / "pool")
    for k, job in enumerate(selection.pool_jobs(ASKED)):
        for seed in job.seeds:
            good = "alpha" in job.variant and k // 2 % 8 == 3
            poor = [1.0 - k / 1e6, 1.0 + k / 1e6]
            store_run(store, job, seed, [5.0, 5.0] if job.algorithm == "bc" else [9.0, 9.0] if good else poor)


def test_the_pool_is_every_trial_on_every_dataset_and_that_of_tune_on_its_data():
    own = selection.pool_jobs(ASKED)
    assert len({job.key for job in own}) == len(own) == 2 * 2 * 8
    assert {f"{job.task}:{job.quality}" for job in own} == set(NAMES)
    trials = selection.pool_jobs(Request("om2p", "smoke", TUNING, ["bc"]))
    searched = tuning.searches("om2p", "smoke", ["bc"])
    assert {job.hash for job in trials} == {job.hash for search in searched for job in search.jobs}
    assert {job.source for job in trials} == {TUNING}


def test_the_board_is_ordered_by_the_budget_that_is_asked_for(tmp_path, capsys):
    fill(tmp_path)
    assert main([*WORDS, "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    board = [line.split("|")[1].strip() for line in text.split("\n## ")[1].splitlines() if line[:1] == "|"][2:]
    assert board == ["BC", "all together", "MATD3BC"] and "Missing" not in text
    assert text.count("18 policies; 14 more are equal to one of them.") == 2
    assert "0 and 10 episodes: 2 of 2, 0 and 100 episodes: 2 of 2, 10 and 100 episodes: 0 of 2" in text
    assert main([*WORDS, "--results", str(tmp_path), "--budget", "100"]) == 0
    text = capsys.readouterr().out
    board = [line.split("|")[1].strip() for line in text.split("\n## ")[1].splitlines() if line[:1] == "|"][2:]
    assert board[-1] == "BC"
    rows = pd.read_csv(tmp_path / "reports" / "om2p" / "select.csv")
    assert set(rows.query("method == 'BC'")["policies"]) == {2} and set(
        rows.query("method == 'MATD3BC'")["policies"]
    ) == {16}
    own = rows.query("task == 'mpe/tag' and method == 'MATD3BC' and rule == 'ucb'").set_index("budget")
    assert own.loc[0, "mean"] == pytest.approx(2.0) and own.loc[0, "score"] == pytest.approx(0.2)
    assert own.loc[0, "regret"] == pytest.approx(7.0) and own.loc[100, "regret"] == pytest.approx(0.0, abs=1e-9)
    assert {path.name for path in (tmp_path / "reports" / "om2p").iterdir()} == {
        f"select.{kind}" for kind in ("md", "csv", "png", "pdf")
    }


def test_what_was_found_of_a_part_replaces_nothing_of_more(tmp_path, capsys):
    fill(tmp_path)
    for words in ([], ["--algorithms", "bc"], ["--tasks", "mpe/tag"], ["--seeds", "0"]):
        assert main([*WORDS, *words, "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    found = [json.loads(path.read_text()) for path in (tmp_path / "measurements" / "select").iterdir()]
    assert sorted(len(record["pools"]) for record in found) == [1, 2, 2, 2]
    assert len({record["title"] for record in found}) == 4


def test_gaps_are_named_and_runs_of_the_suite_fill_in_once(tmp_path, capsys):
    fill(tmp_path)
    gone = [job for job in selection.pool_jobs(ASKED) if (job.algorithm, job.task) == ("bc", "mpe/tag")]
    for job in gone[1:]:
        for run_id in job.run_ids():
            Store(tmp_path / "pool").set_aside(run_id, "damaged")
    same = next(job for job in jobs(ASKED) if (job.algorithm, job.task) == ("bc", "mpe/tag"))
    store_run(Store(tmp_path), same, 0, [5.0, 5.0])
    records, gaps = selection.pool_records(ASKED, selection.pool_jobs(ASKED), tmp_path)
    assert gaps == ["bc: 2 of 16 runs on tag:expert"]
    assert len(records) == 64 - 14 + 1
    assert main([*WORDS, "--results", str(tmp_path)]) == 0
    assert "Missing from the pool: bc: 2 of 16 runs on tag:expert." in capsys.readouterr().out


def test_runs_that_diverged_are_counted_by_name(tmp_path):
    fill(tmp_path)
    job = next(job for job in selection.pool_jobs(ASKED) if (job.algorithm, job.task) == ("bc", "mpe/tag"))
    Store(tmp_path / "pool").set_aside(job.run_ids()[0], "damaged")
    store_run(Store(tmp_path / "pool"), job, job.cells()[0].seed, [5.0, 5.0], status="diverged")
    records, gaps = selection.pool_records(ASKED, selection.pool_jobs(ASKED), tmp_path)
    assert len(records) == 63
    assert gaps == ["bc: 15 of 16 runs on tag:expert", "bc: 1 run diverged on tag:expert"]


def test_a_dataset_that_is_not_here_is_a_gap_of_the_pool(tmp_path, monkeypatch):
    fill(tmp_path)
    entry = catalogue("embedded")["mpe/tag", "expert"]
    monkeypatch.setattr(type(entry), "unavailable", lambda self: "gone" * (self.task.name == "mpe/tag"))
    records, gaps = selection.pool_records(ASKED, selection.pool_jobs(ASKED), tmp_path)
    assert gaps == ["mpe/tag:expert: gone"] and len(records) == 32


def test_what_cannot_be_chosen_from_is_said_in_a_line(tmp_path, capsys):
    assert main([*WORDS, "--results", str(tmp_path)]) == 3
    assert "no policies yet; --train trains them" in capsys.readouterr().err
    for words, answer in (
        (["--budget", "7"], "--budget 7: choose one of 0, 1, 2, 5, 10, 20, 50, 100"),
        (["--algorithms", "bcc"], "unknown algorithm 'bcc'"),
        (["--algorithms", ""], "none where a method of --algorithms acts"),
        (["--tasks", ""], "has no dataset that --tasks names"),
        (["--tasks", "mpe/spred"], "unknown task 'mpe/spred'"),
        (["--source", "elsewhere"], "unknown source 'elsewhere'"),
        (["--results", str(tmp_path / "none")], "there is no such directory"),
        (["--seeds", "2-0"], "'2-0' is neither a number nor a rising range"),
        (["--reference", "--offline"], "most policies of the reference do not ship"),
    ):
        assert main([*WORDS, "--results", str(tmp_path), *words]) == 2
        assert answer in capsys.readouterr().err


def test_the_dry_run_tells_the_pool_and_trains_nothing(tmp_path, capsys):
    words = [
        *WORDS,
        "--tasks",
        NAMES[0],
        "--seeds",
        "0-2",
        "--jobs",
        "2",
        "--matmul",
        "mkl",
        "--results",
        str(tmp_path),
    ]
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "48 cells: 0 done, 48 pending; 2 jobs at once" in text and "none" not in text
    assert [line.split()[:5] for line in text.splitlines()[1:3]] == [
        [method, "all", "trials", "8", "24"] for method in ("bc", "matd3bc")
    ]
    assert not (tmp_path / "pool").exists()


def test_a_board_is_asked_for_as_one_and_each_part_takes_its_own(tmp_path):
    asked = Request("frontier", "smoke", algorithms=["bc", "matd3bc"], tasks=["smac/3m:poor", "mpe/spread:expert"])
    parts = [(one.suite, one.tasks, one.algorithms) for one in selection.by_suite(asked)]
    assert parts == [
        ("frontier_smac", ["smac/3m:poor"], ["bc"]),
        ("frontier_continuous", ["mpe/spread:expert"], ["bc", "matd3bc"]),
    ]


def test_each_part_takes_its_own_tuning_data(tmp_path):
    (task, quality), *_ = tuning.tuning_datasets("mpe")
    asked = Request("frontier", "smoke", TUNING, ["bc", "matd3bc"], [f"{task}:{quality}"])
    assert [(one.suite, one.tasks) for one in selection.by_suite(asked)] == [
        ("frontier_continuous", [f"{task}:{quality}"])
    ]
    assert {job.task for one in selection.by_suite(asked) for job in selection.pool_jobs(one)} == {task}
    continuous_only = selection.by_suite(Request("frontier", "smoke", TUNING, ["matd3bc"]))
    assert [one.suite for one in continuous_only] == ["frontier_continuous"]


def test_the_shipped_results_are_a_pool_by_themselves(tmp_path, capsys):
    words = ["select", "--suite", "smac", "--tasks", "smac/3m:good", "--algorithms", "bc,mac_flow", "--reference"]
    assert main([*words, "--results", str(tmp_path)]) == 0
    rows = pd.read_csv(tmp_path / "reference" / "reports" / "smac" / "select.csv")
    assert dict(rows.groupby("method")["policies"].max()) == {"BC": 5, "MAC-Flow": 5, "all together": 10}
    assert "bc: 0 of 40 runs on 3m:good" in capsys.readouterr().out
