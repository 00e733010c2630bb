"""Training on a share of a dataset: whole episodes, a name of its own, and everything where it is one."""

import dataclasses

import numpy as np
from one_job import only

from offmarl.datasets.part import take
from offmarl.experiments.commands.verify import check_data
from offmarl.experiments.grid.jobs import Protocol
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host


def test_all_of_the_data_is_the_job_without_a_share():
    assert only(data_share=1.0) == only()
    assert "data_share" not in only().settings["protocol"]
    assert only(data_share=1.0).entry == only().entry


def test_every_share_has_a_name_and_data_of_its_own():
    found = [only(data_share=share) for share in (0.1, 0.1000001, 0.2, 1.0)]
    assert len({job.run_ids()[0] for job in found}) == len({job.protocol.data for job in found}) == len(found)
    assert len({job.entry.place() for job in found}) == len(found)
    assert found[0].variant == f"{found[-1].variant}+data=0.1"
    assert [Protocol.from_json(job.protocol.to_json()) == job.protocol for job in found] == [True] * len(found)


def starts(data):
    """The first two states of every episode, where units begin and what they did: [episodes, 2, G]."""
    first = data.rows[np.searchsorted(data.episode, np.arange(len(data.behaviour)))]
    return data.state[first[:, None] + np.arange(2)]


def part_of(job, share):
    """The job on a share of its data."""
    protocol = dataclasses.replace(job.protocol, data_share=share)
    protocol = dataclasses.replace(protocol, data=dataclasses.replace(job, protocol=protocol).entry.key())
    return dataclasses.replace(job, protocol=protocol)


def test_a_share_is_whole_episodes_within_those_of_a_larger_one(small):
    job = small()
    data, card = job.entry.load()
    parts = {share: part_of(job, share).entry.load() for share in (0.25, 0.5)}
    kept = {share: {e.tobytes() for e in starts(found)} for share, (found, _) in parts.items()}
    assert [len(found.behaviour) for found, _ in parts.values()] == [3, 6]
    assert kept[0.25] < kept[0.5] < {e.tobytes() for e in starts(data)}
    assert parts[0.5][1]["lineage"]["of"] == {job.entry.place().name: card["sha256"]}
    whole = take(data, np.arange(len(data.behaviour)))
    assert all(np.array_equal(values, whole.arrays()[name]) for name, values in data.arrays().items())


def test_a_run_on_a_share_says_so_and_is_verified(small, tmp_path):
    job = part_of(small(seeds=(0,), steps=2), 0.5)
    assert run_serial([job], tmp_path, Host()) == []
    record = Store(tmp_path).read(job.run_ids()[0])
    assert record["protocol"]["data_share"] == 0.5
    assert record["dataset"]["episodes"] == 6
    place = (job.source, job.task, job.quality, 0.5, job.protocol.data)
    assert list(check_data(*place, record["dataset"]["sha256"], "it")) == []
    (finding,) = check_data(*place, "another", "it")
    assert finding.wrong
