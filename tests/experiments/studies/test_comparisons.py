"""The papers' experiments on the suites' tasks, from the command line and by their parts."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from offmarl.algorithms import registry
from offmarl.datasets.catalogue import catalogue
from offmarl.experiments.cli import main
from offmarl.experiments.store.store import Cell, Store
from offmarl.experiments.studies.comparisons import LOSSES, comparisons
from offmarl.experiments.training.run import CPU
from offmarl.reports.studies import verdict

TRAINED = [name for name in comparisons() if name != "fig12"]


def run(names, results, *words):
    command = ["experiment", ",".join(names), "--profile", "smoke", "--jobs", "1", "--results", str(results)]
    return main([*command, *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A results directory in which every comparison has been run at smoke."""
    results = tmp_path_factory.mktemp("results")
    assert run(comparisons(), results) == 0
    return results


@pytest.mark.parametrize("name", comparisons())
def test_a_comparison_ends_in_a_text_a_table_and_figures(name, finished):
    folder, study = finished / "reports" / "experiments", comparisons()[name]
    text = (folder / f"{name}-smoke.md").read_text()
    assert study.claim in text and "**Verdict: " in text
    assert all(f"{left} {sign} {right} |" in text for left, sign, right in study.rules)
    assert all(arm in text for arm in study.arms)
    assert not json.loads((finished / f"measurements/experiment/{name}-smoke.json").read_text())["missing"]
    image = imread(folder / f"{name}-smoke.png")
    assert image.shape[1] > 600 and image[..., :3].std() > 0.05
    assert (folder / f"{name}-smoke.pdf").read_bytes().startswith(b"%PDF")


def test_experiments_share_their_arms_and_leave_the_suites_store_alone(finished):
    assert not (finished / "runs").exists()
    expected = {
        run_id
        for study in comparisons().values()
        for jobs in study.jobs("smoke", "embedded").values()
        for job in jobs
        for run_id in job.run_ids()
    }
    assert {place.name for place in (finished / "experiments" / "runs").iterdir()} == expected
    arms = sum(len(study.arms) for study in comparisons().values())
    assert len(expected) < 2 * arms  # two seeds each


def test_a_second_start_trains_nothing_and_shows_the_same(finished, capsys):
    before = {path: path.read_bytes() for path in (finished / "reports" / "experiments").glob("*.csv")}
    runs = {path: path.stat().st_mtime_ns for path in (finished / "experiments" / "runs").rglob("run.json")}
    assert run(["fig6", "om2p-fig4"], finished) == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    assert all(path.read_bytes() == content for path, content in before.items())
    out = capsys.readouterr().out.splitlines()
    assert out[-2].startswith("fig6 ") and out[-1].startswith("om2p-fig4 ")  # the verdicts, together at the end


def test_runs_of_other_code_are_named_until_again_trains_them_anew(finished, capsys):
    store, job = (
        Store(finished / "experiments"),
        next(iter(comparisons()["fig6"].jobs("smoke", "embedded").values()))[0],
    )
    run_id = job.run_ids()[0]
    record, folder = store.read(run_id), store.runs / run_id
    stored = {key: value for key, value in record.items() if key not in ("schema", "cell")}
    files = pd.read_parquet(folder / "curves.parquet"), (folder / "checkpoint.pt").read_bytes()
    store.write(Cell(**record["cell"]), stored | {"code_sums": {"method": "0", "task": "0"}}, *files)
    assert run(["fig6"], finished) == 0
    out, err = capsys.readouterr()
    assert "1 finished runs are stale: the code of their method" in err and "--again retrains them" in err
    assert "cannot tell" in out and "Missing: 1 runs with current code" in out
    assert run(["fig6"], finished, "--again") == 0
    out, err = capsys.readouterr()
    assert "moved to" in err and store.read(run_id)["code_sums"] == record["code_sums"]
    assert "Missing" not in out and (store.root / "stale" / f"{run_id}.1").is_dir()


def test_the_online_half_learns_from_play_and_is_evaluated(finished):
    jobs = comparisons()["fig5"].jobs("smoke", "embedded")
    shares = {arm: own[0].protocol.online.share for arm, own in jobs.items() if own}
    assert shares["MAC-Flow"] == 0.0 and shares["MAC-Flow, half data"] == 0.5
    record = Store(finished / "experiments").read(jobs["MAC-Flow"][0].run_ids()[0])
    assert record["protocol"]["online"]["from"] == 10
    assert [evaluation["step"] for evaluation in record["evaluations"]] == [10, 20]
    half = Store(finished / "experiments").read(jobs["MAC-Flow, half data"][0].run_ids()[0])
    first, last = zip(*((each["returns"] for each in run["evaluations"]) for run in (record, half)))
    assert first[0] == first[1] and last[0] != last[1]  # one offline half, two ways to go on


def test_rows_tell_return_relative_return_the_critics_mean_and_losses_since_the_evaluation_before(finished):
    record = json.loads((finished / "measurements" / "experiment" / "fig7-smoke.json").read_text())
    (job, *_), *_ = comparisons()["fig7"].jobs("smoke", "embedded").values()
    run = Store(finished / "experiments").read(job.run_ids()[0])
    row = next(r for r in record["rows"] if (r["arm"], r["seed"], r["step"]) == ("MAC-Flow", 0, 20))
    (low, high), data = run["score"], run["dataset"]["return_mean"]
    assert row["return"] == pytest.approx(np.mean(run["evaluations"][-1]["returns"]))
    assert row["relative"] == pytest.approx((row["return"] - low) / (high - low))
    assert row["data"] == data and np.isfinite(row["mean_q"])
    curves = pd.read_parquet(finished / "experiments" / "runs" / job.run_ids()[0] / "curves.parquet")
    second = curves[curves["step"].between(11, 20)]
    assert len(second) == 10 and all(row[name] == pytest.approx(second[name].mean()) for name in LOSSES)


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_arm_has_jobs_and_no_two_arms_the_same(name, profile):
    """Names of methods, variants, settings and datasets are checked on the way."""
    study = comparisons()[name]
    jobs = study.jobs(profile, "embedded")
    smoke = [arm for arm, own in study.arms.items() if "continuous" in registry()[own.method].actions]  # its one space
    assert all(jobs[arm] for arm in (smoke if profile == "smoke" else study.arms))
    keys = [job.key for own in jobs.values() for job in own]
    assert len(keys) == len(set(keys))
    arms = {word.rpartition(".")[0] for rule in study.rules for word in rule if isinstance(word, str) and "." in word}
    assert all(any(arm.partition(".")[0] in word or word.startswith(arm) for arm in study.arms) for word in arms)


def test_the_paper_profile_is_the_papers():
    jobs = comparisons()["fig6"].jobs("paper", "embedded")["MAC-Flow"]
    assert {job.protocol.steps for job in jobs} == {1_000_000, 500_000}
    assert all(job.config == registry()["mac_flow"].Config() for job in jobs)


def test_online_runs_of_the_paper_profile_have_half_a_million_updates_before_play_and_after():
    jobs = [job for own in comparisons()["fig5"].jobs("paper", "embedded").values() for job in own]
    assert {(job.protocol.online.start, job.protocol.steps) for job in jobs} == {(500_000, 1_000_000)}
    assert {job.task.split("/")[0] for job in jobs} == {"smac", "smacv2", "mamujoco", "mpe"}


def datasets(name, profile, arm):
    return {f"{job.task}:{job.quality}" for job in comparisons()[name].jobs(profile, "embedded")[arm]}


@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_experiments_are_on_the_data_of_the_papers_figures(profile):
    world = {f"mpe/world:{quality}" for quality in ("medium-replay", "medium", "medium-expert", "expert")}
    assert datasets("om2p-fig4", profile, "OM2P") == datasets("om2p-fig3", profile, "1") == world
    assert datasets("om2p-fig2", profile, "OM2P") == {"mpe/world:expert"}
    robots = {
        f"mamujoco/{robot}:{quality}"
        for robot in ("6halfcheetah", "3hopper", "2ant")
        for quality in ("medium-replay", "medium", "medium-expert", "expert")
    }
    assert datasets("fig8", profile, "central Q") == datasets("fig9", profile, "individual flow") == robots


def test_the_finite_difference_is_tried_in_the_full_algorithm_and_the_time_law_in_cloning_alone():
    jobs = comparisons()["om2p-fig2"].jobs("paper", "embedded")
    weights = {arm: job.config.q_weight for arm, (job,) in jobs.items()}
    assert {arm for arm, weight in weights.items() if weight == 0} == {"cloning", "cloning, uniform time"}


def test_tasks_replace_an_experiments_own_data():
    own = comparisons()["om2p-fig3"].on("quick", ["mpe/world:expert", "mpe/spread"])
    jobs = own.jobs("quick", "embedded")["1"]
    assert {job.task for job in jobs} == {"mpe/world", "mpe/spread"} and "Only on mpe/world:expert" in own.note
    assert [job.quality for job in jobs if job.task == "mpe/world"] == ["expert"]
    assert comparisons()["om2p-fig3"].on("smoke", ["smac/3m"]).datasets["smoke"] == {"smac": ["smac/3m"]}


@pytest.mark.parametrize(
    ("name", "tasks", "words"),
    [
        ("fig8", "mamujoco/3hoper", "mamujoco/3hopper"),
        ("fig8", "mamujoco/3hopper:god", "quality"),
        ("fig8", "", "task"),
        ("fig14", "smac/3m", "small games"),
        ("fig12", "smac/3m", "shows what the store holds"),
    ],
)
def test_tasks_that_are_none_are_refused_in_a_line(name, tasks, words, tmp_path, capsys):
    assert main(["experiment", name, "--profile", "smoke", "--tasks", tasks, "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


def store_run(results, algorithm, title, seed, status="done", **facts):
    cell = Cell("smac/3m", "good", "embedded", algorithm, "paper", "smoke", seed)
    evaluations = [{"step": step, "returns": [float(step)], "won": None, "lengths": [5]} for step in (10, 20)]
    record = {"run_id": cell.run_id("aaaa1111"), "status": status, "reason": "no", "evaluations": evaluations}
    record |= {"algorithm": {"title": title}, "dataset": {"return_mean": 10.0}}
    Store(results).write(cell, record | facts, pd.DataFrame({"step": [10, 20]}), b"weights")


def test_the_curves_of_the_store_leave_out_a_cell_that_lost_a_seed(tmp_path):
    for seed in (0, 1):
        store_run(tmp_path, "mac_flow", "MAC-Flow", seed)
        store_run(tmp_path, "bc", "BC", seed, "diverged" if seed else "done")
    record = comparisons()["fig12"].run("smoke", "embedded", CPU, tmp_path, 1)
    assert {row["arm"] for row in record["rows"]} == {"MAC-Flow"}
    assert record["missing"] == [] and verdict(record)[0] == "holds"  # the rule is about MAC-Flow alone
    store_run(tmp_path, "bc", "BC", 2)
    store_run(tmp_path, "flow_bc", "Flow BC", 0)
    store_run(tmp_path, "mac_flow", "MAC-Flow", 2, "failed")
    record = comparisons()["fig12"].run("smoke", "embedded", CPU, tmp_path, 1)
    assert {row["arm"] for row in record["rows"]} == {"Flow BC"}
    assert record["missing"] == ["a seed of MAC-Flow on 3m good (failed)"] and verdict(record)[0] == "cannot tell"


def test_the_curves_of_the_store_leave_out_runs_of_other_code(tmp_path):
    store_run(tmp_path, "mac_flow", "MAC-Flow", 0, code_sums={"method": "0", "task": "0"})
    store_run(tmp_path, "bc", "BC", 0)
    record = comparisons()["fig12"].run("smoke", "embedded", CPU, tmp_path, 1)
    assert {row["arm"] for row in record["rows"]} == {"BC"}
    assert record["missing"] == ["a seed of MAC-Flow on 3m good (stale)"]


def test_curves_of_an_empty_store_are_refused(tmp_path, capsys):
    assert run(["fig12"], tmp_path) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_data_that_are_not_here_are_refused(tmp_path, capsys):
    words = ["experiment", "om2p-fig2", "--source", "omiga", "--profile", "smoke", "--results", str(tmp_path)]
    assert main(words) == 2
    assert "omiga" in capsys.readouterr().err


def test_a_dataset_that_is_not_here_is_missing_from_the_verdict(tmp_path, capsys, monkeypatch):
    entry = catalogue("embedded")["mpe/spread", "expert"]
    monkeypatch.setattr(type(entry), "unavailable", lambda self: "gone" * (self.quality == "expert"))
    assert run(["om2p-fig2"], tmp_path, "--tasks", "mpe/spread:random,mpe/spread:expert") == 0
    text = capsys.readouterr().out
    assert "mpe/spread:expert on embedded data: gone" in text and "**Verdict: cannot tell" in text


def test_a_training_that_failed_ends_in_another_code(finished, tmp_path, capsys, monkeypatch):
    shutil.copytree(finished, results := tmp_path / "results")  # others read the verdict that it replaces
    train = "offmarl.experiments.studies.comparisons.train_pending"
    monkeypatch.setattr(train, lambda *_: (["3m:good bc: it broke"], 0))
    assert run(["fig6"], results) == 1
    said = capsys.readouterr()
    assert "failed: 3m:good bc: it broke" in said.err and "cannot tell" in said.out


def test_the_list_names_every_experiment(capsys):
    assert main(["experiment", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and study.title in out for name, study in comparisons().items())
