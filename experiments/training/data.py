"""The data of jobs: a process keeps the last dataset that it read, for the next job on it."""

import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from offmarl.datasets.cache import Entry
from offmarl.datasets.dataset import Dataset

ALIGNED = 64  # bytes


class Kept:
    """A dataset and its card, of which every job gets a view of its own: what it writes there, no other job sees."""

    def __init__(self, data: Dataset, card: dict[str, Any]):
        self.card, self.form, size = card, {}, 0
        self.memory = os.fdopen(os.memfd_create("offmarl"), "wb")
        for name, values in data.arrays().items():
            self.memory.write(bytes(-size % ALIGNED))
            size += -size % ALIGNED
            self.form[name] = (size, values.dtype, values.shape)
            size += self.memory.write(np.ascontiguousarray(values).data)
        self.memory.flush()

    def view(self) -> Dataset:
        """The dataset, mapped anew."""
        pages = mmap.mmap(self.memory.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        arrays = {name: np.ndarray(shape, kind, pages, offset) for name, (offset, kind, shape) in self.form.items()}
        return Dataset(**{"legal": None, **arrays})


_kept: dict[tuple, Kept] = {}  # by file; one at most


def load(entry: Entry) -> tuple[Dataset, dict[str, Any]]:
    """As `Entry.load`; a file that has not changed since this process read it is not read again."""
    if not entry.place().suffix:  # a folder's arrays are mapped already
        return entry.load()
    if (kept := _kept.get(_stamp(entry.place()))) is None:
        _kept.clear()
        kept = Kept(*entry.load())
        _kept[_stamp(entry.place())] = kept
        _kept.pop((), None)  # the file has vanished since
    return kept.view(), kept.card


def _stamp(file: Path) -> tuple:
    """Which file it is, and in which state."""
    with suppress(OSError):
        found = file.stat()
        return file, found.st_ino, found.st_size, found.st_mtime_ns
    return ()
