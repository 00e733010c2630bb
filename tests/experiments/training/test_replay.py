"""Replays of a run are its stored episodes; those of data are the recorded ones."""

import dataclasses
import shutil

import numpy as np
import pytest

from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.embedded.film import start_of
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.experiments.cli import main
from offmarl.experiments.commands import watch
from offmarl.experiments.errors import UserError
from offmarl.experiments.store import archive
from offmarl.experiments.store.compare import compare
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.policy import load_policy
from offmarl.experiments.training.replay import Stored, replay_data, replay_run, spread
from offmarl.experiments.training.run import train
from offmarl.reports.records.replay import pack, read, unpack


@pytest.fixture(scope="module")
def played(small, tmp_path_factory):
    """A store of MAC-Flow, which draws noise, and BC, on three evaluations each."""
    store = Store(tmp_path_factory.mktemp("watched"))
    jobs = [small("mac_flow", flow_steps=2), small("bc")]
    for job in jobs:
        list(train(job, store.root))
    return store, *[job.run_ids() for job in jobs]


@pytest.mark.parametrize("play", ["own", "zero"])
def test_a_run_plays_its_stored_episodes_again(played, play):
    """Of the second seed, whose noise comes after that of two evaluations which the first seed may have prolonged."""
    store, ids, _ = played
    run = Stored(store, ids[1], store.peek(ids[1]), play)
    replays = replay_run(run, [3, 0, 31])
    for k, replay in zip([3, 0, 31], replays, strict=True):
        head = unpack(pack(replay)).header
        assert (head.episode, head.same, head.return_, head.stored) == (k, True, run.returns[k], run.returns[k])
        assert head.steps == run.lengths[k] and replay.returns[-1] == pytest.approx(run.returns[k], abs=1e-5)
        assert len(pack(replay)) < 3000 and head.run == ids[1] and head.play == play


def test_what_is_not_the_stored_episode_says_so(played, tmp_path):
    store, ids, _ = played
    record = store.peek(ids[0])
    last = [evaluation for evaluation in record["evaluations"] if evaluation["play"] == "own"][-1]
    last["returns"][5] += 1.0
    (found,) = replay_run(Stored(store, ids[0], record), [5])
    assert found.header.same is False and found.header.stored == last["returns"][5]
    alone = Store(tmp_path)  # one seed of two: nobody knows how long the other played
    shutil.copytree(store.runs / ids[1], alone.runs / ids[1])
    run = Stored(alone, ids[1], alone.peek(ids[1]))
    for replay in replay_run(run, [0, 1]):
        exact = replay.header.return_ == run.returns[replay.header.episode]
        assert replay.header.same == (exact and replay.header.steps == run.lengths[replay.header.episode])


def test_policies_that_ship_play_the_stored_episodes(played, tmp_path, monkeypatch, capsys):
    """MAC-Flow's without its critics and its flow; BC's record ships alone."""
    store, (first, _), (bc, _) = played
    records, policies = tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"
    words = ["export", "--results", str(store.root), "--format"]
    assert main([*words, "records", "--out", str(records)]) == 0
    assert main([*words, "policies", "--runs", "*.mac_flow.*.s0.*", "no*", "--out", str(policies)]) == 0
    monkeypatch.setattr(archive, "shipped", lambda: [records, policies])
    command = ["watch", "smac/3m:good", "--reference", "--results", str(tmp_path), "--play", "zero"]
    assert main([*command[:2], "mac_flow", *command[2:], "--episode", "4", "--out", str(tmp_path / "4.replay")]) == 0
    assert read(tmp_path / "4.replay").header.same and "(the stored episode)" in capsys.readouterr().out
    assert main([*command[:2], "bc", *command[2:]]) == 2
    assert f"{bc}: its policy was not kept with its record" in capsys.readouterr().err
    joined = Store(tmp_path / "joined")
    for source, taken in ((records, "4 runs taken"), (policies, "1 runs taken"), (records, "0 runs taken")):
        assert main(["merge", str(source), "--results", str(joined.root)]) == 0
        assert taken in capsys.readouterr().out
    assert set(load_policy(joined.runs / first, tasks()["smac/3m"]).nets) == {"policy"}
    assert all(row.same for row in compare(joined, store, first))
    assert main([*words, "policies", "--runs", "nothing*", "--out", str(policies)]) == 2
    assert "holds no finished run named nothing*" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["smac/3m", "mpe/tag", "mamujoco/3hopper"])
def test_data_are_watched_as_they_were_recorded(name):
    task, quality = tasks()[name], {"smac/3m": "good"}.get(name, "medium")
    recipe = dataclasses.replace(catalogue()[name, quality], episodes=7, lanes=3)
    assert recipe.task == task
    found = replay_data(recipe, "embedded", {"one": 0, "other": 6})
    returns = recipe.load()[0].returns()
    for k, replay in zip((0, 6), found.values(), strict=True):
        assert replay.header.same is True and replay.header.return_ == pytest.approx(returns[k], abs=1e-4)
    assert [replay.header.title for replay in replay_data(recipe, "embedded").values()][0].startswith(
        "data, behaviour "
    )
    with pytest.raises(UserError, match="episode 7: there are episodes 0 to 6"):
        replay_data(recipe, "embedded", {"": 7})


def test_an_episode_of_a_mix_began_as_that_of_its_part():
    for recipe in (r for r in catalogue().values() if r.mix):
        (first, share), *rest = recipe.mix.items()
        count = round(share * recipe.sibling(first).episodes)
        assert start_of(recipe, count - 1) == start_of(recipe.sibling(first), count - 1)
        if rest:
            assert start_of(recipe, count) == start_of(recipe.sibling(rest[0][0]), 0)


def test_worst_median_and_best_are_named_once():
    assert spread([3.0, 1.0, 2.0, 5.0, 4.0]) == {"worst": 1, "median": 0, "best": 3}
    assert list(spread([1.0]).values()) == [0] and set(spread([1.0, 2.0]).values()) == {0, 1}


def told(capsys):
    text = capsys.readouterr()
    return text.out + text.err


def test_the_command_shows_runs_data_and_files(played, tmp_path, capsys):
    store, ids, bc = played
    results = ["--results", str(store.root)]
    assert main(["watch", "smac/3m:good", "mac_flow", "--beside", "bc", *results]) == 0
    out = told(capsys)
    assert out.count("the stored episode") == 6 and "worst: MAC-Flow, smac/3m:good, episode " in out
    page = store.root / "replays" / f"{ids[0]}-beside-bc.html"
    assert page.read_text().count("octet-stream") == 7 and f"written: {page}" in out and page.stat().st_size < 60_000
    for run in (ids[0], bc[0]):  # where the site finds them
        kept = sorted((store.root / "replays" / run).iterdir())
        assert len(kept) == 3 and all(read(path).header.run == run for path in kept)
    kept = tmp_path / "kept.replay"
    assert main(["watch", str(store.runs / bc[1]), "--episode", "4", "--out", str(kept), *results]) == 0
    assert read(kept).header.run == bc[1] and "episode 4: BC" in told(capsys)
    assert main(["watch", str(kept), "--out", str(tmp_path / "again.html")]) == 0
    assert main(["watch", "--data", "smac/3m:good", "--episode", "11", *results]) == 0
    assert "data, behaviour 1, smac/3m:good, episode 11" in told(capsys)


WRONG = {
    "name a run, a dataset and a method": [],
    "write a name that ends in": ["RUN", "--out", "film.avi"],
    "pip install imageio-ffmpeg": ["smac/3m:good", "bc", "--out", "film.mp4"],
    "unknown run 'smoc': known: ": ["smoc"],
    "name a method, too": ["smac/3m:good"],
    "unknown algorithm among the stored runs": ["smac/3m:good", "mac_flaw"],
    "unknown quality among the stored runs": ["smac/3m:god", "bc"],
    "must be task:quality": ["smac/3m", "bc"],
    "unknown play 'fixed'": ["smac/3m:good", "bc", "--play", "fixed"],
    "was evaluated on episodes 0 to 31": ["smac/3m:good", "bc", "--episode", "32"],
    "--episode -1": ["smac/3m:good", "bc", "--episode", "-1"],
    "a .replay holds one episode": ["smac/3m:good", "bc", "--beside", "mac_flow", "--out", "x.replay"],
    "leave --beside, --seed out": ["--data", "smac/3m:good", "--beside", "bc", "--seed", "0"],
    "--source, --seed: a run already fixes it": ["RUN", "--seed", "0", "--source", "embedded"],
    "--beside, --episode: a .replay is one episode": ["damaged.replay", "--beside", "bc", "--episode", "3"],
    "the data of og_marl hold no states": ["--data", "smac/3m:good", "--source", "og_marl"],
    "no.replay: cannot be read": ["no.replay"],
    "damaged.replay: is not a whole replay": ["damaged.replay"],
}


@pytest.mark.parametrize("message", WRONG)
def test_bad_input_is_one_line(played, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch, "find_spec", lambda package: None)
    (tmp_path / "damaged.replay").write_bytes(np.random.default_rng(0).bytes(500))
    assert main(["watch", *WRONG[message], "--results", str(played[0].root)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
