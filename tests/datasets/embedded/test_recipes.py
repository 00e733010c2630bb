"""The embedded datasets: what they are, and a cache that is checked at every load."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from offmarl.benchmarks.env import cache_dir
from offmarl.benchmarks.smax.units import RULES
from offmarl.benchmarks.tasks import ENGINES
from offmarl.datasets.embedded import recipes as embedded
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.datasets.embedded.record import record

# OG-MARL's mean and deviation of returns, of the 18 datasets of MAC-Flow's Table 1.
PUBLISHED = {
    ("smac/3m", "good"): (16.49, 5.92),
    ("smac/3m", "medium"): (9.96, 6.06),
    ("smac/3m", "poor"): (4.69, 2.14),
    ("smac/8m", "good"): (16.86, 4.33),
    ("smac/8m", "medium"): (10.14, 3.34),
    ("smac/8m", "poor"): (5.28, 0.56),
    ("smac/2s3z", "good"): (18.32, 2.95),
    ("smac/2s3z", "medium"): (12.57, 3.14),
    ("smac/2s3z", "poor"): (6.88, 2.06),
    ("smac/5m_vs_6m", "good"): (16.58, 4.69),
    ("smac/5m_vs_6m", "medium"): (12.62, 5.06),
    ("smac/5m_vs_6m", "poor"): (7.45, 1.48),
    ("smac/2c_vs_64zg", "good"): (19.94, 1.26),
    ("smac/2c_vs_64zg", "medium"): (13.00, 1.39),
    ("smac/2c_vs_64zg", "poor"): (8.91, 1.01),
    ("smacv2/terran_5_vs_5", "replay"): (10.05, 5.84),
    ("smacv2/zerg_5_vs_5", "replay"): (7.34, 3.60),
    ("smacv2/terran_10_vs_10", "replay"): (6.32, 3.62),
}


@pytest.fixture(scope="session")
def tiny():
    """Six episodes of two flanks on three marines."""
    recipe = catalogue()["smac/3m", "good"]
    return dataclasses.replace(recipe, episodes=6, behaviours=[{"lane": 22.0}, {"lane": 10.0}])


@pytest.fixture
def fresh(monkeypatch, tmp_path, battles):
    """An empty cache of recordings; the simulator stays compiled."""
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path))
    return tmp_path


def equal(one, other):
    names = one.arrays().keys()
    return names == other.arrays().keys() and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


# The catalogue.


def test_the_catalogue_is_the_datasets_of_table_1_with_og_marls_returns():
    ours = {key: recipe.target for key, recipe in catalogue().items() if recipe.task.family in ("smac", "smacv2")}
    assert ours == PUBLISHED


def test_every_recipe_belongs_to_its_task_and_quality():
    for (task, quality), recipe in catalogue().items():
        assert (recipe.task.name, recipe.quality) == (task, quality)
        assert recipe.episodes * recipe.task.limit >= 18_000
        assert 0 <= recipe.epsilon <= 0.2


@pytest.mark.parametrize("key", PUBLISHED, ids=":".join)
def test_every_dataset_has_behaviours_to_record(key):
    recipe = catalogue()[key]
    team = recipe.team()
    assert len(team) >= 2
    if recipe.behaviours == "trained":
        shapes = {(actor.weights[0].shape[0], actor.weights[-1].shape[0]) for actor in team}
        assert shapes == {(recipe.task.obs + recipe.task.agents, recipe.task.actions)}


def test_every_dataset_has_a_seed_and_a_file_of_its_own():
    seeds = {recipe.seed() for recipe in catalogue().values()}
    files = {recipe.place() for recipe in catalogue().values()}
    assert len(seeds) == len(files) == len(catalogue()) >= 18
    assert all(file.is_relative_to(cache_dir()) for file in files)


@pytest.mark.parametrize(
    "change",
    [
        {"episodes": 7},
        {"epsilon": 0.1},
        {"behaviours": [{"lane": 22.0}, {"lane": 11.0}]},
        {"behaviours": [{"lane": 10.0}, {"lane": 22.0}]},
        {"behaviours": "trained"},
        {"quality": "medium"},
    ],
)
def test_the_key_changes_with_the_recipe(tiny, change):
    assert dataclasses.replace(tiny, **change).key() != tiny.key()


@pytest.mark.parametrize(
    "change", [{"limit": 59}, {"roster": {"allies": {"marine": 3}, "enemies": {"slow_marine": 3}}}]
)
def test_the_key_changes_with_the_task(tiny, change):
    assert dataclasses.replace(tiny, task=dataclasses.replace(tiny.task, **change)).key() != tiny.key()


def test_the_key_changes_with_the_simulators_version(tiny, monkeypatch):
    before = tiny.key()
    monkeypatch.setattr(embedded, "fingerprint", lambda task: {"engine": "SMAX", "jaxmarl": "0.2.0", "jax": "99"})
    assert tiny.key() != before


def test_the_key_changes_with_the_rules_of_battles(tiny, monkeypatch):
    before, smax = tiny.key(), ENGINES["smax"]
    assert smax.rules == RULES >= 2
    monkeypatch.setitem(ENGINES, "smax", dataclasses.replace(smax, rules=RULES + 1))
    assert tiny.key() != before


def test_the_key_changes_with_the_units_of_the_map(tiny, monkeypatch):
    from offmarl.benchmarks.smax import units

    before = tiny.key()
    faster = dataclasses.replace(units.UNITS["marine"], cooldown=0.3)
    monkeypatch.setitem(units.UNITS, "marine", faster)
    assert tiny.key() != before


def test_the_key_does_not_change_with_what_decides_nothing(tiny):
    assert dataclasses.replace(tiny, target=(1.0, 1.0), training=None).key() == tiny.key()


# The cache.


def test_a_dataset_is_what_its_recipe_records(fresh, tiny, battles):
    data, card = tiny.load()
    expected = record(battles, tiny.team(), tiny.episodes, tiny.epsilon, tiny.seed())
    assert equal(data, expected)
    assert card["episodes"] == 6
    assert card["return_mean"] == pytest.approx(data.returns().mean(), abs=1e-4)
    assert card["return_std"] == pytest.approx(data.returns().std(), abs=1e-4)
    assert (card["published_mean"], card["published_std"]) == (16.49, 5.92)
    assert (card["dataset"], card["source"], card["engine"]["engine"]) == ("smac/3m:good", "embedded", "SMAX")


def test_a_second_load_reads_the_same_arrays_from_the_cache(fresh, tiny, capsys):
    told = []
    data, card = tiny.load(told.append)
    again, card_again = tiny.load(told.append)
    assert equal(data, again)
    assert card == card_again == tiny.ready()
    assert sum(told) == 6  # recorded once
    assert capsys.readouterr().err == ""


def test_the_cache_is_two_files_and_the_card_knows_the_other(fresh, tiny):
    _, card = tiny.load()
    file = tiny.place()
    assert sorted(path.name for path in file.parent.iterdir()) == sorted([file.name, file.with_suffix(".json").name])
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert json.loads(file.with_suffix(".json").read_text()) == card


def test_nothing_is_ready_before_it_is_recorded(fresh, tiny, capsys):
    assert tiny.ready() is None
    assert capsys.readouterr().err == ""


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def card_of(file):
    return file.with_suffix(".json")


DAMAGE = {
    "one bit of the arrays": flip,
    "the arrays cut short": lambda file: file.write_bytes(file.read_bytes()[:1000]),
    "the arrays emptied": lambda file: file.write_bytes(b""),
    "the card cut short": lambda file: card_of(file).write_text(card_of(file).read_text()[:40]),
    "the card emptied": lambda file: card_of(file).write_text(""),
    "the card no text": lambda file: card_of(file).write_bytes(b"\xff\xfe\x00\x9f"),
    "the card of another shape": lambda file: card_of(file).write_text("[1, 2]"),
    "the card without a sum": lambda file: card_of(file).write_text('{"dataset": "smac/3m:good"}'),
    "the card of another recording": lambda file: card_of(file).write_text('{"sha256": "0"}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_said_and_mended(fresh, tiny, capsys, damage):
    data, card = tiny.load()
    DAMAGE[damage](tiny.place())
    told = []
    again, card_again = tiny.load(told.append)
    said = capsys.readouterr()
    assert str(tiny.place()) in said.err and "damaged" in said.err and "making it again" in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert equal(data, again)
    assert card_again == card == tiny.ready()
    assert sum(told) == 6


@pytest.mark.parametrize("lost", [".npz", ".json"])
def test_a_recording_without_its_other_half_is_made_again(fresh, tiny, lost):
    data, card = tiny.load()
    tiny.place().with_suffix(lost).unlink()
    assert tiny.ready() is None
    again, card_again = tiny.load()
    assert equal(data, again)
    assert card_again == card


def test_recordings_of_two_recipes_lie_side_by_side(fresh, tiny):
    other = dataclasses.replace(tiny, episodes=5)
    assert tiny.load()[1]["episodes"] == 6
    assert other.load()[1]["episodes"] == 5
    assert tiny.ready()["episodes"] == 6


@pytest.mark.parametrize("key", [("smac/3m", "good"), ("smac/2s3z", "medium")], ids=":".join)
def test_recorded_returns_are_near_og_marls(key):
    recipe = dataclasses.replace(catalogue()[key], episodes=64)
    data, card = recipe.load()
    assert card["return_mean"] == pytest.approx(recipe.target[0], abs=1.5)
    assert data.behaviour.max() + 1 == len(recipe.team())
    chosen = np.take_along_axis(data.legal[data.rows], data.actions[..., None], 2)
    assert chosen.all()
