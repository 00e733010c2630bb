"""The cache of datasets: each is made once, and checked against its checksums whenever it is loaded.

A cached dataset is its arrays and a card, a JSON file with their SHA-256: `<name>.npz` and `<name>.json`, or a folder
of .npy files with `card.json`. Both appear complete or not at all. The name contains a key of all that decides the
content, so a new version is made beside the old one.
"""

import json
import os
import shutil
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from offmarl.benchmarks.env import cache_dir
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import Dataset, file_sum, read, read_folder

STALE_S = 3600.0  # a draft that nobody has written to for so long belongs to a killed process
MEASURES = ".measures.json"  # after the name of a dataset: what was measured of it

Progress = Callable[[int], object]  # called with the number of steps that have just been done


def no_progress(_: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True)
class Entry(ABC):
    """One dataset of a source, in the cache or still to be made."""

    task: Task  # as this source has it
    quality: str
    target: tuple[float, float] | None  # published mean and standard deviation of the return; None for a mix
    mix: Mapping[str, float] | None  # shares of the task's other datasets that it is joined from, or None
    kind: ClassVar[str] = ""  # in its name in the cache

    @abstractmethod
    def key(self) -> str:
        """Eight hex digits of all that decides the content."""

    def place(self) -> Path:
        """The .npz file, or the folder, of its arrays in the cache."""
        words = self.task.name.replace("/", "-"), self.quality, self.kind, self.key()
        return cache_dir() / "data" / f"{'-'.join(filter(None, words))}.npz"

    @abstractmethod
    def make(self, progress: Progress = no_progress) -> dict[str, Any]:
        """Write the arrays and the card into the cache, whatever is there; returns the card.

        Raises ValueError naming file, key and row of a fault, or what is missing.
        """

    @property
    def work(self) -> int:
        """Steps of progress that `make` reports in all."""
        return 1

    @abstractmethod
    def disk(self) -> int:
        """Bytes that it takes in the cache, at most."""

    @abstractmethod
    def state(self) -> str:
        """Where the data are if they are not in the cache yet, in a few words."""

    @property
    def recorded(self) -> "Entry":
        """The dataset that must be recorded or downloaded for it: itself."""
        return self

    @property
    def trained_as(self) -> str:
        """The quality whose settings a suite trains it with: its own."""
        return self.quality

    def data_missing(self) -> str:
        """Why there are no data and what to do; empty where they are here or can be recorded."""
        return ""

    def unavailable(self) -> str:
        """Why nothing can be trained on it here and what to do; empty where it can."""
        return ""

    def changed_files(self) -> list[str]:
        """Downloaded files that are not as they were, a line each."""
        return []

    def card_path(self) -> Path:
        """Its card in the cache."""
        place = self.place()
        return place.with_suffix(".json") if place.suffix else place / "card.json"

    def checksums(self, card: dict[str, Any]) -> dict[Path, str]:
        """The SHA-256 of every file of arrays, as the card has it."""
        place = self.place()
        if place.suffix:
            return {place: card["sha256"]}
        return {place / f"{name}.npy": sha256 for name, sha256 in card["arrays"].items()}

    def sums(self, card: dict[str, Any]) -> dict[str, str]:
        """The same by the files' names."""
        return {file.name: sum_ for file, sum_ in self.checksums(card).items()}

    def card(self) -> dict[str, Any] | None:
        """The card in the cache, without a check of the arrays; None if there is no readable one."""
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            card = json.loads(self.card_path().read_bytes())
            if "return_mean" in card and self.checksums(card):
                return card
        return None

    def ready(self) -> dict[str, Any] | None:
        """The card if the arrays in the cache match their checksums; None if they must be made. Says if damaged."""
        card = self.card()
        try:
            if card is not None and all(file_sum(file) == sum_ for file, sum_ in self.checksums(card).items()):
                return card
        except FileNotFoundError:
            return None
        if self.card_path().exists():
            print(f"{self.place()}: damaged (does not match its SHA-256); making it again", file=sys.stderr)
        return None

    def load(self, progress: Progress = no_progress) -> tuple[Dataset, dict[str, Any]]:
        """The dataset and its card; made now if the cache has none, or a damaged one.

        Raises ValueError naming file, key and row of a fault, or what is missing.
        """
        card = self.ready()
        if card is None:
            try:
                card = self.make(progress)
            except OSError:
                card = self.ready()  # another process may have made it at the same time
                if card is None:
                    raise
        place = self.place()
        return (read(place, self.task) if place.suffix else read_folder(place)), card


def write(entry: Entry, data: Dataset, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a dataset's arrays, in one .npz, and its card with these facts into the cache; returns the card."""
    with replacing(entry.place()) as draft:
        data.save(draft)
        sha256 = file_sum(draft)
    card = {"dataset": f"{entry.task.name}:{entry.quality}", "sha256": sha256, **data.statistics(), **facts}
    with replacing(entry.card_path()) as draft:
        draft.write_text(json.dumps(card, indent=1))
    return card


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """A draft of a file or folder that takes its place when the block ends; after an error nothing of it is left."""
    place.parent.mkdir(parents=True, exist_ok=True)
    for other in place.parent.glob(f".{place.name}.*"):
        with suppress(FileNotFoundError):
            files = list(other.iterdir()) if other.is_dir() else [other]
            if time.time() - max((file.stat().st_mtime for file in files), default=0.0) > STALE_S:
                _remove(other)
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield draft
        if draft.is_dir():
            _remove(place)
        os.replace(draft, place)
    finally:
        _remove(draft)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all it holds, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
