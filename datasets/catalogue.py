"""Every dataset there is, by source: what `embedded` records here and what others have published."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.embedded import recipes as embedded
from offmarl.datasets.public import releases as public
from offmarl.datasets.public.sources import sources

EMBEDDED = "embedded"
SOURCES = (EMBEDDED, *sources())


class Entry(Protocol):
    """One dataset: a task, with what this source has otherwise of it, and a quality."""

    @property
    def task(self) -> Task:
        """The task as the data show it."""
        ...

    @property
    def quality(self) -> str:
        """How good those were who recorded it."""
        ...

    @property
    def target(self) -> tuple[float, float] | None:
        """The real dataset's mean return and its standard deviation, where they are published."""
        ...

    @property
    def mix(self) -> Mapping[str, float] | None:
        """Shares of the task's other datasets that it is joined from; None for one with a recording of its own."""
        ...

    @property
    def work(self) -> int:
        """How much there is to do before it can be loaded, in steps of `load`'s progress."""
        ...

    def absent(self) -> str:
        """Why the data are not here, and what to do; empty where they are or can be recorded."""
        ...

    def missing(self) -> str:
        """Why nothing can be trained on it here, and what to do; empty where it can."""
        ...

    def changed(self) -> list[str]:
        """Files that are not what was once downloaded, a line each."""
        ...

    def state(self) -> str:
        """Where data stand that are not in the cache yet, in a few words."""
        ...

    def disk(self) -> int:
        """Bytes that it will take in the cache, at most."""
        ...

    def key(self) -> str:
        """Eight hex digits of what decides the content."""
        ...

    def place(self) -> Path:
        """Where its arrays are kept."""
        ...

    def card(self) -> dict[str, Any] | None:
        """The card of the arrays in the cache, which are not looked at, or None."""
        ...

    def ready(self) -> dict[str, Any] | None:
        """The card of the intact arrays in the cache, or None."""
        ...

    def load(self, progress: Callable[[int], object] = ...) -> tuple[Dataset, dict[str, Any]]:
        """The dataset and its card; made now if the cache has none. ValueError where that cannot be done."""
        ...


def catalogue(source: str) -> Mapping[tuple[str, str], Entry]:
    """The datasets of a source by task and quality."""
    return embedded.catalogue() if source == EMBEDDED else public.catalogue(source)
