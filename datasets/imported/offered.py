"""Datasets that installed packages offer: a module named by an entry point of the group `offmarl.datasets`.

The module has `DATASETS`, which maps family/task:name to a file in the canonical form, from the module's folder, or to
a function without arguments that gives episodes, as `recording_of` describes them.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from offmarl.benchmarks.own import WORD, TaskError
from offmarl.benchmarks.source import imported, sources, sum_of
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.imported.episodes import Episode
from offmarl.datasets.imported.importing import converted_episodes
from offmarl.datasets.own import OwnData

GROUP = "offmarl.datasets"


@dataclass(frozen=True)
class Episodes(OwnData):
    """The episodes that a function gives, converted on first use; `file` is its module's."""

    function: Callable[[], Iterable[Episode]]
    version: str  # of its package

    def disk(self) -> int:
        """It is not known before they are made."""
        return 0

    def arrays(self) -> AbstractContextManager[tuple[Dataset, dict[str, Any], list[str]]]:
        """The episodes in the canonical form."""
        return converted_episodes(self.function(), self.task, self.place().parent, str(self.file))

    def _sum(self) -> str:
        return f"{self.version} {sum_of(sources(self.file))}"


def offered() -> dict[tuple[str, str], OwnData]:
    """The datasets of packages for the tasks that are known, by task and name.

    Raises TaskError for an entry point that cannot be used, and says why.
    """
    found: dict[tuple[str, str], OwnData] = {}
    for place, file, version, datasets in _modules():
        for name, origin in datasets.items():
            task, _, quality = name.partition(":")
            if not re.fullmatch(WORD, quality) or not isinstance(origin, str | Path | Callable):
                raise TaskError(f"{place}: DATASETS has '{name}': write 'family/task:name' to a file or a function")
            if (task, quality) in found:
                raise TaskError(f"{place}: another package offers {name} too")
            if task in tasks():
                entry = tasks()[task], quality, None, None
                found[task, quality] = (
                    Episodes(*entry, file, origin, version)
                    if callable(origin)
                    else OwnData(*entry, (file.parent / origin).absolute())
                )
    return found


@cache
def _modules() -> list[tuple[str, Path, str, dict[str, Any]]]:
    """Where messages say they are, file, version and datasets of every module."""
    found = []
    for entry in entry_points(group=GROUP):
        place = f"entry point {entry.value}"
        module = imported(place, entry.load, TaskError)
        datasets, file = getattr(module, "DATASETS", None), getattr(module, "__file__", None)
        if not isinstance(datasets, dict) or not file:
            raise TaskError(f"{place}: has no DATASETS, a dict of 'family/task:name' to a file or a function")
        found.append((place, Path(file), entry.dist.version if entry.dist else "", datasets))
    return found
