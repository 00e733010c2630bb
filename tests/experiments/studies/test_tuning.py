"""`offmarl tune`: nobody gets more trials, and nobody's settings are chosen on a table's datasets."""

import dataclasses

import pandas as pd
import pytest
import yaml

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.benchmarks.yaml_files import FileError
from offmarl.datasets.catalogue import SOURCES, TUNING, catalogue
from offmarl.experiments.cli import main
from offmarl.experiments.grid import tuned
from offmarl.experiments.grid.jobs import Request, jobs
from offmarl.experiments.grid.suite import load_suite, suite_names
from offmarl.experiments.launch import serial
from offmarl.experiments.store.store import Store
from offmarl.experiments.studies import tuning

EVERY = tuning.searches("all", "quick")


def test_every_family_has_two_tuning_datasets_in_no_table():
    own = catalogue(TUNING)
    families = [task.family for task in (tasks()[name] for name, _ in own)]
    assert {family: families.count(family) for family in families} == dict.fromkeys(
        ("smac", "smacv2", "mpe", "mamujoco", "lbf", "rware"), 2
    )
    assert TUNING not in SOURCES
    for (task, quality), entry in own.items():
        twin = catalogue("embedded")[task, quality]
        assert entry.key() != twin.key() and abs(entry.seed() - twin.seed()) >= twin.episodes
        if entry.behaviours == "trained":
            assert entry.weights().read_bytes() != twin.weights().read_bytes()
            assert entry.training.seed >= twin.training.runs
        else:
            assert not [one for one in entry.behaviours if one in twin.behaviours and "random" not in one]


def test_no_table_can_be_asked_for_on_tuning_data(tmp_path, capsys):
    for command in ("run", "report"):
        assert main([command, "--suite", "smac", "--source", TUNING, "--results", str(tmp_path)]) == 2
        assert "unknown source 'tuning'" in capsys.readouterr().err


def test_everyone_has_the_same_trials_on_tuning_data_alone():
    tables = {job.protocol.data for name in suite_names() for job in jobs(Request(name))}
    for search in EVERY:
        assert len(search.trials) == tuned.TRIALS
        assert {job.source for job in search.jobs} == {TUNING}
        assert not {job.protocol.data for job in search.jobs} & tables
        assert len({job.hash for job in search.jobs}) == len(search.jobs), "no two trials are the same"
    for place in {(search.suite, search.family) for search in EVERY}:
        rivals = [search for search in EVERY if (search.suite, search.family) == place]
        facts = {
            tuple((job.task, job.quality, job.seeds, job.protocol.eval_episodes, job.protocol.data) for job in own.jobs)
            for own in rivals
        }
        assert len(facts) == 1


def test_every_method_of_a_suite_is_searched_in_every_family_that_it_plays():
    expected = {
        (load_suite(name).base or name, tasks()[task].family, method)
        for name in suite_names()
        for task, method in ((t, m) for t in load_suite(name).qualities for m in load_suite(name).algorithms)
        if tasks()[task].space in registry()[method].actions and tuning.tuning_datasets(tasks()[task].family)
    }
    assert {(search.suite, search.family, search.method) for search in EVERY} == expected


def test_the_papers_settings_are_among_the_trials_as_every_suite_has_them():
    for search in EVERY:
        assert search.paper in [settings for settings, _ in search.trials], search
        suite, method = load_suite(search.suite), registry()[search.method]
        own = [pair for pair in suite.datasets if tasks()[pair[0]].family == search.family]
        assert all(tuned.paper_settings(suite, method, *pair) == search.paper for pair in own)


def test_a_trial_has_the_length_of_the_tables_runs():
    own = [name for name in suite_names() if (load_suite(name).base or name) == "smac"]
    steps = {(job.algorithm, job.task): job.protocol.steps for name in own for job in jobs(Request(name))}
    for job in (job for search in EVERY if search.suite == "smac" for job in search.jobs):
        assert job.protocol.steps == job.protocol.eval_every == steps[job.algorithm, job.task]
        assert job.protocol.plays == ("own",)


def test_a_familys_trials_may_be_longer_for_everyone_alike():
    profile = load_suite("continuous").profile("quick")
    own = [search for search in EVERY if (search.suite, search.family) == ("continuous", "mamujoco")]
    for search in own:
        planner = search.method in profile.own_steps
        (settings, jobs_of_trial), *_ = search.trials
        assert {job.protocol.steps for job in jobs_of_trial} == {1500 if planner else 3000}
        assert {job.config.decay_steps for job in jobs_of_trial} == {1500 if planner else 3000}
    assert {search.method in profile.own_steps for search in own} == {True, False}


# What is chosen.


@pytest.fixture
def search():
    return next(own for own in EVERY if (own.family, own.method) == ("mpe", "bc"))


def fill(store, search, score, status=lambda trial, seed: "done"):
    """Runs of every trial, whose last return is by its number and its seed."""
    for number, (_, own) in enumerate(search.trials):
        for job in own:
            low, high = tuning.scale(job.entry.task)
            for cell, run_id in zip(job.cells(), job.run_ids()):
                returns = [low + (high - low) * (score(number) + 0.1 * cell.seed)] * 3
                evaluations = [{"step": step, "returns": r} for step, r in ((1, [99.0]), (2, returns))]
                facts = {"run_id": run_id, "status": status(number, cell.seed), "evaluations": evaluations}
                store.write(cell, facts | {"finished": "2026-01-02T03:04:05"}, pd.DataFrame({"step": [1]}))


def test_the_best_mean_of_the_last_returns_is_chosen(search, tmp_path):
    store = Store(tmp_path)
    fill(store, search, lambda number: 0.5 + 0.02 * (number == 5))
    choice = tuning.choose(search, store)
    assert choice.settings == search.trials[5][0] and choice.paper == search.paper
    assert choice.trials[5].scores == pytest.approx([0.57, 0.57]) and choice.trials[0].score == pytest.approx(0.55)
    assert (str(choice.date), choice.profile, choice.seeds) == ("2026-01-02", "quick", [0, 1])
    assert choice.data == {f"{t}:{q}": catalogue(TUNING)[t, q].key() for t, q in tuning.tuning_datasets("mpe")}


def test_the_papers_settings_win_a_tie(search, tmp_path):
    fill(Store(tmp_path), search, lambda number: 0.5)
    assert tuning.choose(search, Store(tmp_path)).settings == search.paper


def test_a_trial_that_lost_a_seed_is_never_chosen_and_a_failed_one_is_waited_for(search, tmp_path):
    def lost(status):
        return lambda number, seed: status if (number, seed) == (5, 1) else "done"

    fill(Store(tmp_path), search, lambda number: number, lost("diverged"))
    choice = tuning.choose(search, Store(tmp_path))
    assert choice.settings == search.trials[7][0] and choice.trials[5].scores == []
    fill(Store(tmp_path), search, lambda number: number, lost("failed"))
    assert tuning.choose(search, Store(tmp_path)) is None


def test_a_file_is_refused_that_gives_somebody_more_or_looks_at_a_table(search, tmp_path):
    fill(Store(tmp_path), search, lambda number: number)
    file = tmp_path / "tuned.yaml"
    tuning.write(file, [(search, tuning.choose(search, Store(tmp_path)))])
    good = yaml.safe_load(file.read_text())
    assert tuned.choices(file)["continuous"]["mpe"]["bc"].settings == search.trials[7][0]

    def refused(words, change):
        stored = yaml.safe_load(yaml.safe_dump(good))
        change(stored["continuous"]["mpe"]["bc"])
        file.write_text(yaml.safe_dump(stored))
        with pytest.raises(FileError, match=words):
            tuned.choices(file)

    refused("9 trials", lambda own: own["trials"].append({"settings": {"act_by": "x"}, "scores": [0.1, 0.1]}))
    refused("7 trials", lambda own: own["trials"].pop(0))
    refused("tuning datasets alone", lambda own: own["data"].update({"mpe/spread:expert": "0" * 8}))
    refused("best trial", lambda own: own.update(settings=own["trials"][2]["settings"]))


# The variant `tuned`.


@pytest.fixture
def chosen(search, tmp_path, monkeypatch):
    """BC has trial 5 in the particle worlds of `continuous`; nobody else is tuned."""
    fill(Store(tmp_path), search, lambda number: number == 5)
    own = {"continuous": {"mpe": {"bc": tuning.choose(search, Store(tmp_path))}}}
    monkeypatch.setattr(tuned, "packaged", lambda *_: own)
    return search.trials[5][0]


def test_the_variant_has_what_was_chosen_in_the_family_and_the_papers_values_elsewhere(chosen):
    def config(task, method="bc", suite="continuous"):
        asked = Request(suite, tasks=[task], algorithms=[method], variant="tuned")
        return vars(jobs(asked)[0].config)

    assert config("mpe/spread").items() >= chosen.items()
    assert config("mamujoco/3hopper")["max_grad_norm"] == 0.0
    assert config("mpe/spread", "mac_flow")["alpha"] == 1.0  # as the authors ran it there
    assert config("smac/3m", "mac_flow", "smac")["alpha"] == 3.0


@pytest.mark.parametrize("profile", ["quick", "standard"])
def test_the_variant_trains_as_the_chosen_trial_did(profile, chosen):
    (search,) = tuning.searches("continuous", profile, ["bc"], ["mpe"])
    trial = next(own[0] for settings, own in search.trials if settings == chosen)
    (job, *_) = jobs(Request("continuous", profile, tasks=["mpe/spread"], algorithms=["bc"]))
    assert (job.config, job.protocol.steps) == (trial.config, trial.protocol.steps)


def test_the_variant_alone_changes_the_papers_settings_as_the_suite_has_them(chosen):
    (job, *_) = jobs(Request("om2p", algorithms=["ma_fql"], variant="tuned"))
    assert job.variant == "om2p+tuned" and (job.config.batch_size, job.config.alpha) == (256, 10.0)
    asked = Request("om2p", algorithms=["ma_fql"], variant="tuned", overrides={"ma_fql": {"alpha": 0.5}})
    assert jobs(asked)[0].config.alpha == 0.5


def test_a_table_names_who_has_not_been_tuned(chosen):
    open_ = tuned.untuned("continuous", load_suite("continuous"))
    assert open_["bc"] == ["mamujoco"] and open_["omar"] == ["mamujoco", "mpe"]


# The command.


@pytest.fixture
def few_episodes(monkeypatch):
    for pair in tuning.tuning_datasets("mpe"):
        monkeypatch.setitem(
            catalogue(TUNING), pair, dataclasses.replace(catalogue(TUNING)[pair], episodes=20, lanes=10)
        )


def test_tune_trains_chooses_writes_and_continues(few_episodes, tmp_path, capsys):
    words = ["tune", "--suite", "continuous", "--families", "mpe", "--algorithms", "bc", "--profile", "smoke"]
    words += ["--jobs", "1", "--results", str(tmp_path)]
    assert main(words) == 2 and "--file" in capsys.readouterr().err
    words += ["--file", str(tmp_path / "mine.yaml")]
    assert main(words) == 0
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "tuning" / "runs").glob("*/run.json")}
    assert len(runs) == tuned.TRIALS * 2 * 2 and not (tmp_path / "runs").exists()
    first = (tmp_path / "mine.yaml").read_bytes()
    lost = sorted(runs)[0]
    lost.unlink()
    capsys.readouterr()
    assert main(words) == 0  # the file has it all, whatever the store has
    assert "has all of these searches" in capsys.readouterr().out and not lost.exists()
    (tmp_path / "mine.yaml").unlink()
    assert main(words) == 0
    assert "1 of 1 searches are complete" in capsys.readouterr().out
    assert (tmp_path / "mine.yaml").read_bytes() == first
    assert {path for path, written in runs.items() if path.stat().st_mtime_ns != written} == {lost}
    assert main(["tune", "--show", "--file", str(tmp_path / "mine.yaml")]) == 0
    assert "| continuous | mpe | BC |" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{}, {"steps": 7}, {"code": {"method": "other"}}, {"seeds": [5, 6]}])
def test_a_search_is_settled_by_a_file_of_the_same_trials_and_code_alone(search, tmp_path, changed):
    fill(Store(tmp_path), search, lambda number: number)
    choice = tuning.choose(search, Store(tmp_path))
    known = {search.suite: {search.family: {search.method: choice.model_copy(update=changed)}}}
    assert tuning.is_settled(search, known) == (not changed)
    assert not tuning.is_settled(search, {})


def test_a_search_for_nothing_is_refused(capsys):
    assert main(["tune", "--suite", "om2p", "--algorithms", "mabcq", "--dry-run"]) == 2
    assert "nothing to tune" in capsys.readouterr().err
    assert main(["tune", "--families", "smca"]) == 2
    assert "did you mean 'smac'" in capsys.readouterr().err


@pytest.mark.parametrize("values", [("sample",), ("sample", "sample"), ("argmax", "argmax2")], ids=str)
def test_another_number_of_trials_than_everyones_is_refused_before_anything_trains(values, monkeypatch, capsys):
    monkeypatch.setattr(registry()["bc"], "tunes", {"act_by": values})
    assert main(["tune", "--suite", "smac", "--algorithms", "bc", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "bc" in said and len(said.splitlines()) == 1
    assert "argmax2" in said or f"`tunes` has {len(values)} combinations of settings; a fair search has 8" in said


def test_what_is_complete_is_written_also_when_the_rest_is_interrupted(search, tmp_path, monkeypatch):

    fill(Store(tmp_path / "tuning"), search, lambda number: number)

    def interrupted(*_, again):
        raise KeyboardInterrupt

    monkeypatch.setattr(serial, "train_pending", interrupted)
    words = ["--families", "mpe", "--algorithms", "bc,icq", "--results", str(tmp_path), "--jobs", "1"]
    assert main(["tune", "--suite", "continuous", *words, "--file", str(tmp_path / "mine.yaml")]) == 130
    assert tuned.choices(tmp_path / "mine.yaml")["continuous"]["mpe"].keys() == {"bc"}


def test_a_file_in_a_folder_that_cannot_be_is_refused_before_anything_trains(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    words = ["--suite", "continuous", "--algorithms", "bc", "--results", str(tmp_path), "--jobs", "1"]
    assert main(["tune", *words, "--file", str(tmp_path / "taken" / "mine.yaml")]) == 2
    assert "--file" in capsys.readouterr().err


def test_a_file_of_choices_that_is_no_text_is_refused_in_a_line(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xb7\x00\xff")
    assert main(["tune", "--show", "--file", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file}" in line and "is not YAML" in line
