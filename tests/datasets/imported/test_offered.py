"""Datasets of installed packages, found by entry points as importlib.metadata finds them."""

import itertools
import sys

import numpy as np
import pytest

from offmarl.benchmarks import source
from offmarl.benchmarks.own import TaskError
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.catalogue import OWN, catalogue
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.imported import offered

MODULE = """
import numpy as np

def episodes():
    with np.load(__file__.replace("data.py", "rows.npz")) as file:
        rows = dict(file)
    for k in range(3):
        yield {name: values[k] for name, values in rows.items()} | {"terminated": True, "behaviour": k}

DATASETS = {"smac/3m:told": episodes, "smac/3m:kept": "kept.npz", "no/such:task": "nothing.npz"}
"""
NUMBER = itertools.count()  # every test imports a module of its own


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package of a module and a version."""
    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path / "cache"))
    name, place = f"their{next(NUMBER)}_data", tmp_path / "site"
    monkeypatch.syspath_prepend(str(place))

    def install(text=MODULE, version="1.0"):
        facts = place / f"{name}.dist-info"
        facts.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.py").write_text(text)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (facts / "entry_points.txt").write_text(f"[offmarl.datasets]\nmine = {name}\n")
        sys.modules.pop(name, None)
        for cached in (offered._modules, source._tree, source._form):
            cached.cache_clear()
        return place

    yield install
    offered._modules.cache_clear()


@pytest.fixture
def story(forge):
    return forge.episodes(tasks()["smac/3m"], [6, 6, 6])


def test_episodes_and_files_of_a_package_are_datasets(package, story):
    place = package()
    np.savez(
        place / (next(place.glob("*.py")).stem.replace("data", "rows") + ".npz"),
        **{k: np.stack([s[k] for s in story]) for k in story[0]},
    )
    wanted = from_episodes([one | {"done": True, "timeout": False} for one in story], [0, 1, 2])
    np.savez(place / "kept.npz", **wanted.arrays())
    found = catalogue(OWN)
    assert {pair for pair in found if pair[0] in ("smac/3m", "no/such")} == {("smac/3m", "told"), ("smac/3m", "kept")}
    for quality in ("told", "kept"):
        data, card = found["smac/3m", quality].load()
        assert card["source"] == OWN and card["episodes"] == 3
        for name, values in wanted.arrays().items():
            np.testing.assert_array_equal(getattr(data, name), values, err_msg=name)
    keys = {quality: found["smac/3m", quality].key() for quality in ("told", "kept")}
    package(MODULE.replace("range(3)", "range(2)"))
    assert catalogue(OWN)["smac/3m", "told"].key() != keys["told"]
    package(version="1.1")
    assert catalogue(OWN)["smac/3m", "told"].key() != keys["told"]
    assert catalogue(OWN)["smac/3m", "kept"].key() == keys["kept"]


def test_episodes_at_fault_are_one_line_that_names_the_module(package, story):
    package('DATASETS = {"smac/3m:told": lambda: [{"obs": [1.0]}]}')
    with pytest.raises(ValueError, match=r"_data.py: episode 0: has no actions"):
        catalogue(OWN)["smac/3m", "told"].load()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", r"entry point their\d+_data: cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("", "has no DATASETS, a dict of 'family/task:name' to a file or a function"),
        ("DATASETS = {'smac/3m': 'kept.npz'}", "DATASETS has 'smac/3m': write 'family/task:name'"),
        ("DATASETS = {'smac/3m:a': 3}", "DATASETS has 'smac/3m:a': write 'family/task:name' to a file or a function"),
    ],
)
def test_a_package_that_cannot_be_used_is_one_line(package, text, reason):
    package(text)
    with pytest.raises(TaskError, match=reason):
        catalogue(OWN)
