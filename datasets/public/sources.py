"""What is known of the public sources, from sources.yaml; this module imports nothing heavy."""

from typing import Literal

from offmarl.benchmarks.yaml_files import Pair, Strict, packaged
from offmarl.datasets import Quality

Ends = Literal["last", "delimiter", "limit", "detect"]  # conventions of episode ends, see the README of datasets


class PublicTask(Strict):
    """The data of one task: one archive, with a dataset for each quality."""

    archive: str
    gigabytes: float  # of the download
    ends: Ends
    returns: dict[Quality, Pair]  # published mean and standard deviation
    mix: dict[Quality, dict[Quality, float]] = {}  # shares of the task's other datasets
    original: str = ""  # where the makers' own files lie below the data folder
    engine: str | None = None  # this and the rest: what differs from the embedded task
    obs: int | None = None
    state: int | None = None
    physics: Literal["native", "legacy"] | None = None


class Source(Strict):
    """A publisher of datasets."""

    title: str
    licence: str
    page: str
    repo: str  # of the Hugging Face hub
    revision: str  # branch, tag or commit
    path: str  # of an archive in it
    prey: str = ""  # URL
    tasks: dict[str, PublicTask]


def sources() -> dict[str, Source]:
    """The public sources by name. Raises FileError naming the key of sources.yaml that is wrong, and the reason."""
    return packaged(dict[str, Source], "offmarl.datasets.public", "sources.yaml")
