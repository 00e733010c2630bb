"""tools/soak.py: trainings that are killed at random moments lose nothing, and a loss is counted."""

import json
import shutil

import pytest
import soak

from offmarl.algorithms import registry
from offmarl.experiments.store.store import Store

FAULTS = ("lost", "twice", "damaged", "different")
SEED = 4  # of moments, the first of which are early


def test_trainings_that_are_killed_at_random_moments_give_the_same_results():
    counts = soak.rounds(0.15, SEED)
    assert counts["kills"] >= 1 and counts["rounds"] >= 1
    assert {name: counts[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The soak's grid, trained undisturbed."""
    results = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soak.train, "CHECKPOINT_SECONDS", 300.0)  # `work` sets it for its process
        soak.work(results)
    return results


def take_away(place, other):
    (place / "run.json").unlink()


def exchange(place, other):
    shutil.copy(other / "checkpoint.pt", place)
    (place / "SHA256SUMS").unlink()


def double(place, other):
    twin = place.with_name(place.name[:-8] + "0" * 8)
    shutil.copytree(place, twin, dirs_exist_ok=True)
    (twin / "SHA256SUMS").unlink()
    record = json.loads((twin / "run.json").read_text())
    (twin / "run.json").write_text(json.dumps(record | {"run_id": twin.name}))  # a copy that says otherwise is no run


@pytest.mark.parametrize(("fault", "spoil"), [("lost", take_away), ("different", exchange), ("twice", double)])
def test_a_run_that_is_lost_or_different_or_stored_twice_is_counted(fault, spoil, trained, monkeypatch):
    begun = []

    def attempt(context, results, seconds):
        """Two undisturbed trainings; then one that is killed and one that finishes, in turn, with a spoiled run."""
        begun.append(results)
        shutil.copytree(trained, results, dirs_exist_ok=True)
        if len(begun) > 2:
            spoil(*(Store(results).runs / run_id for run_id in reversed(Store(results).run_ids()[-2:])))
        return len(begun) == 1 or len(begun) % 2 == 0

    monkeypatch.setattr(soak, "_attempt", attempt)
    counts = soak.rounds(0.002, seed=0)
    assert counts["rounds"] >= 1 and counts[fault] == counts["rounds"]


def test_the_watched_training_prepares_its_data(monkeypatch):
    calls, method = [], registry()[soak.grid()[-1].algorithm]
    monkeypatch.setattr(method, "prepare", lambda self, data: calls.append(type(self).name) or data)
    monkeypatch.setattr(soak, "UPDATES", 2)
    monkeypatch.setattr(soak, "SETTLED", 1)
    assert soak.growth() > -1 and calls == [method.name]
