"""Names of runs outlive changes of the code: a store written before is read, verified and continued after."""

import json
from pathlib import Path

import pytest

from offmarl.experiments.grid.jobs import Request, jobs, stored_job

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
