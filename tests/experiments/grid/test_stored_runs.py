"""Names of runs outlive changes of the code: a store written before is read, verified and continued after."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from offmarl.algorithms import registry
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid.jobs import Request, jobs, stored_hash, stored_job

STORED = json.loads(Path(__file__).with_name("stored_runs.json").read_text())
ONLINE = [record for record in STORED["runs"] if "online" in record["protocol"]]


@pytest.mark.parametrize("record", STORED["runs"], ids=lambda record: record["run_id"])
def test_a_stored_record_gives_the_job_with_its_hash_and_its_run_id(record):
    job = stored_job(record, [record["cell"]["seed"]])
    assert job.hash == record["config_hash"]
    assert job.run_ids() == [record["run_id"]]


@pytest.mark.parametrize("suite", STORED["grids"])
def test_the_grid_of_a_suite_has_the_run_ids_that_it_had(suite):
    found = jobs(Request(suite, "smoke"))
    assert [job.run_ids()[0] for job in found] == STORED["grids"][suite]
    assert {job.seeds for job in found} == {(0, 1)}


def test_the_stored_records_cover_the_suites_and_an_online_phase():
    names = {name for names in STORED["grids"].values() for name in names}
    assert {record["run_id"].replace(".s1.", ".s0.") for record in STORED["runs"] if record not in ONLINE} <= names
    assert len({record["cell"]["algorithm"] for record in STORED["runs"]}) >= 8 and ONLINE


def test_a_hash_needs_neither_the_method_nor_its_settings_of_today():
    record = STORED["runs"][0]
    unknown = record | {"cell": record["cell"] | {"algorithm": "forgotten"}}
    assert stored_hash(unknown) == record["config_hash"]
    assert stored_hash(record | {"config": record["config"] | {"dropped": 1}}) != record["config_hash"]
    with pytest.raises(UserError, match="unknown algorithm 'forgotten'.*name the file: --method-file FILE"):
        stored_job(unknown, [0])
    with pytest.raises(UserError, match="unknown task 'mine/1'.*name the file: --task FILE"):
        stored_job(record | {"cell": record["cell"] | {"task": "mine/1"}}, [0])


@pytest.mark.parametrize("record", [STORED["runs"][0], ONLINE[0]], ids=["offline", "online"])
def test_a_job_goes_to_another_process_by_its_settings(record):
    """There, the class of a method file's Config cannot be imported by name."""
    job = stored_job(record, [0, 1])
    sent = pickle.dumps(job)
    assert pickle.loads(sent) == copy.deepcopy(job) == job and hash(job) == hash(pickle.loads(sent))
    assert b"Config" not in sent and registry()[job.algorithm].__module__.encode() not in sent
