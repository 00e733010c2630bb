"""Damaged files of every layout: they are read, or refused in one line that names them, whatever was damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offmarl.benchmarks.tasks import tasks
from offmarl.datasets import dataset as canonical
from offmarl.datasets.public.releases import catalogue


def write_vault(forge):
    entry = catalogue("og_marl")["smac/3m", "good"]
    forge.write_vault(entry.paths()[0], [forge.rows(forge.episodes(entry.task, [4, 5]))])
    return entry.paths()[0], entry.load


def write_hdf5(forge):
    entry = catalogue("omiga")["mamujoco/3hopper", "expert"]
    forge.write_hdf5(entry.paths()[1], forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True))
    return entry.paths()[1], entry.load


def write_npy(forge):
    entry = catalogue("omar")["mpe/spread", "medium"]
    story = forge.episodes(entry.task, [25, 25])
    columns, following = forge.rows(story), np.concatenate([one["obs"][1:] for one in story])
    forge.write_npy(entry.paths()[1] / "seed_0_data", columns, following)
    return entry.paths()[1], entry.load


def write_npz(forge):
    task, file = tasks()["mamujoco/3hopper"], Path("mine.npz").absolute()
    np.savez(file, **forge.canonical(forge.episodes(task, [9, 5]), ()).arrays())
    return file, lambda: canonical.read(file, task)


WRITERS = {"vault": write_vault, "hdf5": write_hdf5, "npy": write_npy, "npz": write_npz}


@pytest.fixture(params=WRITERS, scope="module")
def published(request, forge, tmp_path_factory):
    """A dataset's file or folder, what loads it, and the folder of conversions."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFMARL_DATA", str(folder / "data"))
        patch.setenv("OFFMARL_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield *WRITERS[request.param](forge), folder / "cache"


SHARE = st.floats(0, 1)
HEADERS = st.floats(0, 1).map(lambda share: share**4)  # most of the structure stands in the first bytes
DAMAGE = st.tuples(st.integers(0, 99), st.lists(st.tuples(HEADERS, st.integers(0, 255)), max_size=6), SHARE)


def damaged(content, changes, kept):
    """Bytes set to other values, and the end cut off: [(share of the length, value)], share that is kept."""
    found = bytearray(content)
    for share, value in changes:
        found[int(share * (len(found) - 1))] = value
    return bytes(found[: round(kept * len(found))])


@settings(max_examples=150, deadline=None)
@given(damage=DAMAGE, whole=st.booleans())
def test_a_damaged_file_is_read_or_refused_in_a_line_that_names_it(published, damage, whole):
    place, load, cache = published
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    number, changes, kept = damage
    file = files[number % len(files)]
    before = file.read_bytes()
    shutil.rmtree(cache, ignore_errors=True)
    try:
        file.write_bytes(damaged(before, changes, 1.0 if whole else kept))
        load()
    except ValueError as error:
        assert "\n" not in str(error) and str(place) in str(error)
    finally:
        file.write_bytes(before)
    assert not list(cache.rglob(".*"))  # no draft stays behind
