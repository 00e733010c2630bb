"""The dataset that a process keeps from job to job."""

import numpy as np
import pytest

from offmarl.datasets.cache import Entry
from offmarl.experiments.training import data


@pytest.fixture
def entry(small, monkeypatch):
    """A dataset in the cache, and how often it was read."""
    entry = small().entry
    entry.load()
    reads, load = [], Entry.load
    monkeypatch.setattr(Entry, "load", lambda self, *rest: (reads.append(self), load(self, *rest))[1])
    monkeypatch.setattr(data, "_kept", {})
    return entry, reads


def test_a_dataset_is_read_once_and_every_job_gets_all_of_it(entry):
    entry, reads = entry
    first, second = data.load(entry), data.load(entry)
    assert len(reads) == 1
    written, card = entry.load()
    for found, facts in (first, second):
        assert facts == card and list(found.arrays()) == list(written.arrays())
        for name, values in written.arrays().items():
            assert np.array_equal(found.arrays()[name], values) and found.arrays()[name].dtype == values.dtype
            assert found.arrays()[name].ctypes.data % 64 == 0


def test_what_a_job_writes_into_its_data_no_other_job_sees(entry):
    entry, _ = entry
    first, before = data.load(entry)[0], data.load(entry)[0]
    kept = first.rewards.copy()
    first.rewards[:] = -1.0
    assert np.array_equal(before.rewards, kept) and np.array_equal(data.load(entry)[0].rewards, kept)


def test_a_changed_file_is_read_and_checked_again(entry, capsys):
    entry, reads = entry
    whole = data.load(entry)[0]
    content = bytearray(entry.place().read_bytes())
    content[-200] ^= 1
    entry.place().write_bytes(content)
    again = data.load(entry)[0]
    assert len(reads) == 2 and "damaged" in capsys.readouterr().err
    assert np.array_equal(again.obs, whole.obs)
