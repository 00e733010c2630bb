"""The command `offmarl rerun`: train a stored run once more and compare."""

from collections.abc import Mapping, Sequence
from typing import Any

from offmarl.experiments.grid import REPEATED, Job


def stored_job(record: Mapping[str, Any], seeds: Sequence[int]) -> Job:
    """The job that made a run, for these seeds. KeyError where the record does not say."""
    cell = {key: value for key, value in record["cell"].items() if key != "seed"}
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in record["config"].items()}
    protocol = {key: value for key, value in record["protocol"].items() if key not in REPEATED}
    return Job(**cell, seeds=tuple(seeds), config=config, protocol=protocol)
