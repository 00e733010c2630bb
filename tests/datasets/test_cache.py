"""The cache of datasets: places and keys that existing caches have, drafts, and what is made again."""

import hashlib
import json
import os

import numpy as np
import pytest

from offmarl.benchmarks.env import cache_dir
from offmarl.datasets import cache
from offmarl.datasets.cache import replacing
from offmarl.datasets.catalogue import SOURCES, catalogue
from offmarl.datasets.embedded import recipes

# Of the keys of the papers' embedded datasets, without simulators' versions.
KEYS = "a6f660c29712b5b38bbc0df8b722ea83849985353c7be3d8789f22ad39d05d54"


def test_keys_are_those_of_existing_caches(monkeypatch):
    """A change here makes every user record everything anew."""
    monkeypatch.setattr(recipes, "fingerprint", lambda task: {})
    papers = {name: recipe for name, recipe in recipes.catalogue().items() if recipe.task.engine != "own"}
    keys = {":".join(name): recipe.key() for name, recipe in papers.items()}
    assert hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest() == KEYS


def test_places_are_those_of_existing_caches():
    for source in SOURCES:
        for (task, quality), entry in catalogue(source).items():
            name = f"{task.replace('/', '-')}-{quality}"
            if source == "embedded":
                expected = (f"{name}-{entry.key()}.npz", f"{name}-{entry.key()}.json")
            else:
                expected = (f"{name}-{source}-{entry.key()}", f"{name}-{source}-{entry.key()}/card.json")
            assert (entry.place(), entry.card_path()) == tuple(cache_dir() / "data" / one for one in expected)


def test_a_dataset_that_an_older_version_recorded_is_used_as_it_is(monkeypatch, tmp_path, forge):
    """Arrays and card as they have always been written; the recipe must not record."""
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path))
    recipe = recipes.catalogue()["mpe/spread", "random"]
    arrays = forge.canonical(forge.episodes(recipe.task, [25, 25]), (), timeout=True).arrays()
    recipe.place().parent.mkdir()
    np.savez(recipe.place(), **arrays)
    card = {"sha256": hashlib.sha256(recipe.place().read_bytes()).hexdigest(), "return_mean": 1.0, "episodes": 2}
    recipe.place().with_suffix(".json").write_text(json.dumps(card))
    monkeypatch.setattr(type(recipe), "record", lambda *_: pytest.fail("recorded anew"))
    data, found = recipe.load()
    assert found == card == recipe.card() == recipe.ready()
    assert np.array_equal(data.obs, arrays["obs"])


def test_a_draft_takes_its_place_or_leaves_nothing(tmp_path):
    place = tmp_path / "folder" / "file.json"
    with replacing(place) as draft:
        draft.write_text("one")
        assert not place.exists()
    with pytest.raises(KeyError), replacing(place) as draft:
        draft.write_text("two")
        raise KeyError
    assert place.read_text() == "one"
    assert os.listdir(place.parent) == ["file.json"]


def test_a_folder_is_replaced_with_all_it_held(tmp_path):
    place = tmp_path / "arrays"
    for name in ("old", "new"):
        with replacing(place) as draft:
            draft.mkdir()
            (draft / name).write_text(name)
    assert os.listdir(tmp_path) == ["arrays"] and os.listdir(place) == ["new"]


def test_drafts_of_killed_processes_are_removed_and_those_under_way_are_not(tmp_path):
    old, young = tmp_path / ".file.json.old", tmp_path / ".file.json.young"
    for draft in (old, young):
        draft.touch()
    os.utime(old, (1, 1))
    with replacing(tmp_path / "file.json") as draft:
        draft.touch()
    assert sorted(os.listdir(tmp_path)) == [".file.json.young", "file.json"]


def test_what_another_process_made_meanwhile_is_used(monkeypatch):
    recipe = recipes.catalogue()["mpe/spread", "random"]
    found = iter([None, {"episodes": 2}])

    def fail(*_):
        raise OSError("the folder is there already")

    monkeypatch.setattr(type(recipe), "ready", lambda self: next(found))
    monkeypatch.setattr(type(recipe), "make", fail)
    monkeypatch.setattr(cache, "read", lambda *_: "data")
    assert recipe.load() == ("data", {"episodes": 2})
    monkeypatch.setattr(type(recipe), "ready", lambda self: None)
    with pytest.raises(OSError, match="there already"):
        recipe.load()
