"""`offmarl verify` on a small store: sound as it was written, and no changed byte escapes it."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.benchmarks.fingerprint import reference
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.experiments.cli import main
from offmarl.experiments.commands import verify
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.run import train

FILES = ["run.json", "curves.parquet", "checkpoint.pt", "SHA256SUMS"]


@pytest.fixture(scope="module")
def job(small):
    return small(steps=10)


@pytest.fixture(scope="module")
def sound(job, tmp_path_factory):
    """A store with a run of two seeds and a report."""
    results = tmp_path_factory.mktemp("sound")
    list(train(job, results))
    assert main(["report", "--suite", "smac", "--profile", "smoke", "--results", str(results)]) == 0
    return results


@pytest.fixture
def results(sound, tmp_path, capsys):
    capsys.readouterr()
    return shutil.copytree(sound, tmp_path / "results")


def flip(file, position, bit=0):
    """Change one bit of a file; a position from 0 to 1 names the byte."""
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    file.write_bytes(content)


def said(results, capsys):
    """Exit code and lines of `offmarl verify`."""
    code = main(["verify", "--results", str(results)])
    return code, capsys.readouterr().out.splitlines()


def edit(job, results, **changes):
    """Change a run's record as one would by hand, with a sum that fits; its folder."""
    place = results / "runs" / job.run_ids()[0]
    record = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps(record | changes))
    (place / "SHA256SUMS").unlink()
    return place


def test_a_store_is_sound_as_it_was_written(results, job, capsys):
    code, lines = said(results, capsys)
    assert (code, lines) == (0, ["2 runs, 5 checks: all sound"])
    record = Store(results).read(job.run_ids()[1])
    assert record["engine"]["rollout"] == reference(job.entry.task)["rollout"] and record["seeds"] == [0, 1]


@pytest.mark.parametrize("name", FILES)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_changed_bit_of_a_run_escapes(name, position, bit, sound, job):
    store, run_id = Store(sound), job.run_ids()[0]
    file = store.runs / run_id / name
    before = file.read_bytes()
    flip(file, position, bit)
    try:
        assert any(finding.wrong for finding in verify.check_run(store.runs / run_id, store.peek(run_id)))
        assert (store.peek(run_id) is None) == (name == "run.json") or name == "SHA256SUMS"
    finally:
        file.write_bytes(before)
    assert list(verify.check_run(store.runs / run_id, store.peek(run_id))) == []


def test_what_is_wrong_is_said_with_file_key_and_reason(results, job, capsys):
    first, second = (results / "runs" / run_id for run_id in job.run_ids())
    flip(first / "checkpoint.pt", 0.5)
    (second / "curves.parquet").unlink()
    code, lines = said(results, capsys)
    assert code == 1
    for line, place, file in zip(lines, (first, second), ("checkpoint.pt", "curves.parquet")):
        assert (
            line
            == f"! runs/{place.name}: {place.name}: {file}: does not match its checksum in SHA256SUMS, or is missing"
        )
    assert lines[2] == "2 runs, 5 checks: 2 do not match"


@pytest.mark.parametrize("position", [0.02, 0.3, 0.31, 0.5, 0.77, 0.99])
def test_a_changed_byte_of_a_table_is_found(results, position, capsys):
    flip(results / "reports" / "smac" / "table.csv", position)
    code, lines = said(results, capsys)
    assert code == 1 and lines[0].startswith("! reports/smac/table.csv: ")


def test_a_number_of_a_table_is_compared_with_the_episodes(results, job, capsys):
    place = edit(job, results, evaluations=[{"step": 10, "returns": [1.5], "won": [False], "lengths": [3]}])
    code, lines = said(results, capsys)
    assert code == 1
    assert f"  runs/{place.name}: {place.name}: no checksums, it was written by an older version" in lines
    assert any(line.startswith("! reports/smac/table.csv: smac/3m good bc own mean: is ") for line in lines)


def test_settings_that_do_not_fit_the_name_are_found(results, job, capsys):
    settings_ = job.settings["config"] | {"batch_size": 9}
    edit(job, results, config=settings_)
    code, lines = said(results, capsys)
    assert code == 1
    assert [line.split(": ")[1] for line in lines if "run.json" in line] == [
        "name of its folder",
        "run_id",
        "config_hash",
    ]


def test_data_and_simulator_that_are_not_the_runs_are_found(results, job, capsys, monkeypatch, tmp_path):
    recipe = catalogue()["smac/3m", "good"]
    place = recipe.place()
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path / "cache"))
    code, lines = said(results, capsys)
    assert (code, lines[0]) == (
        0,
        f"  data smac/3m:good (embedded): {job.run_ids()[0]}: unavailable here, so not compared",
    )
    recipe.place().parent.mkdir(parents=True)
    for suffix in (".npz", ".json"):
        shutil.copy(place.with_suffix(suffix), recipe.place().with_suffix(suffix))
    assert said(results, capsys)[0] == 0
    flip(recipe.place(), 0.6)
    edit(job, results, engine=Store(results).peek(job.run_ids()[1])["engine"] | {"rollout": "ab" * 32})
    code, lines = said(results, capsys)
    assert code == 1
    assert any(line.startswith(f"! {recipe.place()}: smac/3m:good: does not match its SHA-256") for line in lines)
    assert any("simulator of smac/3m (embedded): rollout: its reference rollout is" in line for line in lines)


def test_a_missing_directory_is_refused(tmp_path, capsys):
    assert main(["verify", "--results", str(tmp_path / "nowhere")]) == 2
    assert "there is no such directory" in capsys.readouterr().err
