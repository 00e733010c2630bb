"""Committed behaviours: files, actors, and which snapshots are chosen."""

from typing import NamedTuple

import numpy as np
import pytest

from offmarl.benchmarks.env import View
from offmarl.datasets.embedded import actors as behaviours
from offmarl.datasets.embedded.actors import Actor, load, save, select


class Snapshot(NamedTuple):
    steps: int
    score: float
    weights: list


def run(*scores):
    """A training whose k-th snapshot has this score."""
    return [Snapshot(100 * k, score, []) for k, score in enumerate(scores)]


def scores(pairs):
    return [s.score for _, s in pairs]


def weights(seed, sizes=(33, 8, 8, 9)):
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(a, b)), rng.normal(size=b)) for a, b in zip(sizes, sizes[1:])]
    return [w.astype(np.float16) for layer in layers for w in layer]


# Files.


def test_saved_behaviours_load_bit_for_bit(tmp_path):
    snapshots = [Snapshot(100 * k, 5.0 + k, weights(k)) for k in range(3)]
    save(tmp_path / "3m.npz", {"good": [(0, snapshots[0]), (4, snapshots[1])], "poor": [(1, snapshots[2])]})
    for quality, expected in (("good", snapshots[:2]), ("poor", snapshots[2:])):
        loaded = load(tmp_path / "3m.npz", quality)
        assert len(loaded) == len(expected)
        for actor, snapshot in zip(loaded, expected, strict=True):
            assert len(actor.weights) == 6
            for one, other in zip(actor.weights, snapshot.weights, strict=True):
                assert one.dtype == np.float32
                assert np.array_equal(one, other.astype(np.float32))


def test_a_quality_that_was_not_saved_is_refused_by_name(tmp_path):
    save(tmp_path / "3m.npz", {"good": [(0, Snapshot(0, 1.0, weights(0)))]})
    with pytest.raises(ValueError, match=r"3m\.npz.*'poor'.*good"):
        load(tmp_path / "3m.npz", "poor")


def test_the_committed_file_of_a_task_lies_in_the_package(marines):
    for source in ("embedded", "tuning"):
        assert behaviours.path(marines, source).name == f"3m-{source}.npz"
        assert behaviours.path(marines, source).is_file()


# Actors.


def views(seed, episodes=6):
    rng = np.random.default_rng(seed)
    legal = rng.random((episodes, 3, 9)) < 0.4
    legal[:, :, 1] |= ~legal.any(-1)
    return View(rng.normal(size=(episodes, 3, 30)).astype(np.float32), np.zeros((episodes, 48)), legal)


def test_an_actor_takes_the_best_legal_action_of_its_network():
    layers = [w.astype(np.float64) for w in weights(3)]
    view = views(1)
    chosen = Actor(layers)(view, np.random.default_rng())
    for e in range(6):
        for i in range(3):
            x = np.concatenate([view.obs[e, i], np.eye(3)[i]])
            for k in (0, 2):
                x = np.maximum(x @ layers[k] + layers[k + 1], 0)
            value = x @ layers[4] + layers[5]
            legal = np.flatnonzero(view.legal[e, i])
            assert chosen[e, i] == legal[value[legal].argmax()]


def test_an_actor_decides_for_each_battle_alone():
    view = views(2)
    actor = Actor(weights(4))
    together = actor(view, np.random.default_rng())
    for e in range(6):
        assert np.array_equal(actor(View(*(part[e : e + 1] for part in view)), None), together[e : e + 1])


# Choosing snapshots.


def test_a_level_takes_the_snapshot_nearest_to_its_target():
    chosen = select([run(0, 4, 9, 15)], {"medium": 10.0})
    assert chosen == {"medium": [(0, Snapshot(200, 9, []))]}


def test_a_level_joins_the_four_runs_that_passed_nearest():
    runs = [run(0, 2), run(9, 10), run(10.5, 20), run(3, 8), run(10.1, 1), run(1, 2)]
    picked = select(runs, {"good": 10.0})["good"]
    assert [r for r, _ in picked] == [1, 4, 2, 3]
    assert len({r for r, _ in picked}) == behaviours.ACTORS


def test_every_choice_makes_up_for_the_error_of_those_before():
    runs = [run(10, 12), run(8.5, 11.6), run(6, 9)]
    assert scores(select(runs, {"good": 10.0})["good"]) == [10, 9, 11.6]  # after 9 it owes 11: 11.6, not 8.5
    runs = [run(8.9), run(5, 11.2, 20), run(0, 9.8, 30)]
    picked = scores(select(runs, {"good": 10.0})["good"])
    assert sorted(picked) == [8.9, 9.8, 11.2]
    assert np.mean(picked) == pytest.approx(10, abs=0.05)


def test_each_level_is_chosen_apart():
    runs = [run(1, 5, 10, 17), run(2, 6, 11, 16)]
    chosen = select(runs, {"good": 16.5, "medium": 10.5, "poor": 5.5})
    assert {q: sorted(scores(pairs)) for q, pairs in chosen.items()} == {
        "good": [16, 17],
        "medium": [10, 11],
        "poor": [5, 6],
    }


def test_replay_is_spaced_over_the_history_up_to_the_target_average():
    history = run(*range(21))  # the average of the first n + 1 is n / 2
    picked = select([history], {"replay": 7.0})["replay"]
    assert scores(picked) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_replay_starts_at_the_beginning_of_every_run_and_takes_as_many_of_each():
    runs = [run(*range(30)), run(*np.linspace(0, 12, 41))]
    picked = select(runs, {"replay": 5.0})["replay"]
    for r in (0, 1):
        own = [s for k, s in picked if k == r]
        assert len(own) == behaviours.REPLAY_ACTORS_PER_RUN
        assert own[0] is runs[r][0]
        assert [s.steps for s in own] == sorted(s.steps for s in own)
        until = runs[r].index(own[-1]) + 1
        assert np.mean([s.score for s in runs[r][:until]]) == pytest.approx(5.0, abs=0.26)


def test_replay_covers_a_history_that_is_above_the_target_from_the_start():
    picked = select([run(*[9.0] * 20)], {"replay": 2.0})["replay"]
    assert [s.steps for _, s in picked] == [100 * k for k in range(8)]


def test_replay_of_a_short_history_takes_all_of_it():
    picked = select([run(1, 2, 3)], {"replay": 50.0})["replay"]
    assert len(picked) == behaviours.REPLAY_ACTORS_PER_RUN
    assert set(scores(picked)) == {1, 2, 3}
