"""A run keeps some episodes of its last evaluation to be watched: the very ones, whatever happens on the way."""

import shutil
import tarfile

import numpy as np
import pytest

from offmarl.benchmarks.frames.smax import Watched
from offmarl.experiments.cli import main
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.replay import evenly
from offmarl.experiments.training.run import train
from offmarl.reports.records.checksums import SUMS
from offmarl.reports.records.replay import read
from offmarl.reports.records.schema import by_play

KEEPS = Host(replays=3)


@pytest.fixture(scope="module")
def kept(small, tmp_path_factory):
    """MAC-Flow, which draws noise and plays twice, with replays; its store and run ids."""
    job, store = small("mac_flow", flow_steps=2), Store(tmp_path_factory.mktemp("kept"))
    list(train(job, store.root, KEEPS))
    return job, store


def files(store, run_id):
    return {path.name: path.read_bytes() for path in (store.runs / run_id).glob("*.replay")}


def test_worst_median_best_and_first_are_kept_of_both_plays(kept):
    job, store = kept
    for seed, run_id in zip(job.seeds, job.run_ids()):
        names = set()
        for play, looks in by_play(store.peek(run_id)).items():
            look = looks[-1]
            ranked = sorted(look["returns"])
            chosen = {*evenly(look["returns"], 3), 0}
            assert {look["returns"][k] for k in chosen} >= {ranked[0], ranked[15], ranked[-1]}
            for k in chosen:
                names.add(f"{play}-{k}.replay")
                one = read(store.runs / run_id / f"{play}-{k}.replay")
                head = one.header
                assert (head.run, head.seed, head.play, head.episode, head.same) == (run_id, seed, play, k, True)
                assert one.returns[-1] == pytest.approx(look["returns"][k], abs=1e-9) and head.return_ == head.stored
                assert head.steps == look["lengths"][k] and (head.end == "won") == look["won"][k]
        assert files(store, run_id).keys() == names
        assert all(len(content) < 3000 for content in files(store, run_id).values())


def test_replays_change_nothing_else_of_a_run(kept, tmp_path):
    job, store = kept
    list(train(job, tmp_path))
    for run_id in job.run_ids():
        one, other = store.peek(run_id), Store(tmp_path).peek(run_id)
        assert not files(Store(tmp_path), run_id) and Store(tmp_path).status(run_id) == "done"
        for key in ("config", "config_hash", "protocol", "evaluations", "value", "status"):
            assert one[key] == other[key], key
        assert one.keys() == other.keys()


def test_they_are_checked_like_the_rest_of_a_run(kept, tmp_path):
    job, store = kept
    shutil.copytree(store.runs, tmp_path / "runs")
    place = Store(tmp_path).runs / job.run_ids()[0]
    assert (place / SUMS).read_text().count(".replay") == len(files(Store(tmp_path), place.name)) > 3
    damaged = next(place.glob("*.replay"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert main(["verify", "--results", str(tmp_path)]) == 1
    assert Store(tmp_path).status(place.name) == "pending" and not place.exists()


def test_a_run_that_is_interrupted_after_its_last_evaluation_keeps_the_same(kept, tmp_path):
    job, store = kept
    training = train(job, tmp_path, KEEPS)
    while next(training) < job.protocol.steps:
        pass
    training.close()
    assert not list((tmp_path / "runs").glob("*"))
    list(train(job, tmp_path, KEEPS))
    for run_id in job.run_ids():
        assert files(Store(tmp_path), run_id) == files(store, run_id)


def test_pictures_that_fail_cost_no_run(small, tmp_path, monkeypatch, capsys):
    job = small("bc")

    frames = iter(range(500))

    def broken(self, lane):
        if next(frames, None) is None:  # somewhere in the episodes
            raise ValueError("no picture")
        return shown(self, lane)

    shown = Watched.frame
    monkeypatch.setattr(Watched, "frame", broken)
    list(train(job, tmp_path, KEEPS))
    assert [Store(tmp_path).status(run_id) for run_id in job.run_ids()] == ["done"] * 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "keeps no replays" in line]
    assert lines and set(lines) == {f"{job.title}: keeps no replays: ValueError: no picture"}
    assert not files(Store(tmp_path), job.run_ids()[0])


def test_records_are_exported_without_them(kept, tmp_path):
    _, store = kept
    out = tmp_path / "runs.tar.xz"
    assert main(["export", "--format", "records", "--out", str(out), "--results", str(store.root)]) == 0
    with tarfile.open(out) as archive:
        assert {name.split("/")[1] for name in archive.getnames()} == {"run.json", SUMS}
    assert main(["merge", str(out), "--results", str(tmp_path / "records")]) == 0
    assert main(["merge", str(store.root), "--results", str(tmp_path / "whole")]) == 0
    for run_id in store.run_ids():
        assert Store(tmp_path / "records").status(run_id) == "done"
        assert files(Store(tmp_path / "whole"), run_id) == files(store, run_id) != {}


@pytest.mark.parametrize("count, chosen", [(0, []), (1, [2]), (2, [1, 3]), (3, [1, 2, 3]), (9, [1, 0, 2, 4, 3])])
def test_episodes_are_chosen_in_even_steps(count, chosen):
    returns = [2.0, 1.0, 3.0, 5.0, 4.0]
    assert list(dict.fromkeys(evenly(returns, count))) == chosen
    assert set(evenly(np.zeros(1).tolist(), count)) <= {0}


def test_what_a_run_kept_is_watched_without_its_policy(kept, tmp_path, capsys):
    job, store = kept
    shutil.copytree(store.runs, tmp_path / "runs")
    results = ["--results", str(tmp_path)]
    for run_id in job.run_ids():  # as in a store of records with replays
        (tmp_path / "runs" / run_id / "checkpoint.pt").write_bytes(b"")
        (tmp_path / "runs" / run_id / SUMS).unlink()
    assert main(["watch", job.run_ids()[1], *results]) == 0
    assert capsys.readouterr().out.count("(the stored episode)") == 3
    assert [path.name for path in (tmp_path / "replays").iterdir()] == [f"{job.run_ids()[1]}.html"]
    unkept = next(k for k in range(32) if f"own-{k}.replay" not in files(store, job.run_ids()[1]))
    assert main(["watch", job.run_ids()[1], "--episode", str(unkept), *results]) == 2


def test_how_many_are_kept_is_a_number(tmp_path, capsys):
    for number in ("-1", "21"):
        assert main(["run", "--suite", "smac", "--replays", number, "--results", str(tmp_path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
