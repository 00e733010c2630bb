"""A part of a dataset: some of its whole episodes, drawn once for all, so that smaller parts lie within larger ones."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from offmarl.datasets.cache import Entry, Progress, no_progress, write
from offmarl.datasets.dataset import PER_ROW, Dataset, index

FORMAT, SEED = 1, 0


@dataclass(frozen=True)
class Part(Entry):
    """A share of another dataset's episodes, at least one."""

    whole: Entry
    share: float
    kind = "part"

    @property
    def recorded(self) -> Entry:
        """What it is taken from."""
        return self.whole

    def key(self) -> str:
        """Eight hex digits of the whole dataset's key, the share and the seed."""
        facts = f"{FORMAT} {self.whole.key()} {self.share!r} {SEED}"
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    @property
    def trained_as(self) -> str:
        """As the whole."""
        return self.whole.trained_as

    def disk(self) -> int:
        """Its share."""
        return round(self.whole.disk() * self.share)

    def state(self) -> str:
        """What it is taken from."""
        return f"{self.share:.2%} of {self.whole.state()}"

    def data_missing(self) -> str:
        """What is missing of the whole."""
        return self.whole.data_missing()

    def unavailable(self) -> str:
        """Why nothing can be trained on the whole."""
        return self.whole.unavailable()

    def make(self, progress: Progress = no_progress) -> dict[str, Any]:
        """Take the episodes and write them into the cache; the card says of what, by its checksums."""
        data, card = self.whole.load()
        taken, _ = halves(data, self.share)
        kept = {
            key: card[key] for key in ("source", "epsilon", "behaviours", "engine", "note", "made_from") if key in card
        }
        lineage = {"of": self.whole.sums(card), "share": self.share, "seed": SEED}
        made = write(self, taken, {**kept, "lineage": lineage | {"episodes_of_it": len(data.behaviour)}})
        progress(1)
        return made


def part(entry: Entry, share: float) -> Entry:
    """A share of a dataset's episodes; the dataset itself for 1."""
    return entry if share == 1 else Part(entry.task, entry.quality, None, None, entry, share)


def halves(data: Dataset, share: float) -> tuple[Dataset, Dataset | None]:
    """A share of the episodes, at least one, as `Part` takes it, and the others; None where there are none."""
    episodes = np.random.default_rng(SEED).permutation(len(data.behaviour))
    count = max(1, round(share * len(episodes)))
    rest = take(data, np.sort(episodes[count:])) if count < len(episodes) else None
    return take(data, np.sort(episodes[:count])), rest


def take(data: Dataset, episodes: np.ndarray) -> Dataset:
    """The episodes of these numbers, in rising order: [n]."""
    wanted = np.zeros(len(data.behaviour), bool)
    wanted[episodes] = True
    lengths = np.bincount(data.episode, minlength=len(wanted))
    steps, rows = wanted[data.episode], np.repeat(wanted, lengths + 1)
    last = np.cumsum(lengths)[wanted] - 1
    names = (*PER_ROW, "actions", "rewards")
    fields = {
        name: values[rows if name in PER_ROW else steps] for name, values in data.arrays().items() if name in names
    }
    ends = index(lengths[wanted], data.done[last], data.timeout[last], data.behaviour[wanted])
    return Dataset(**{"legal": None, **fields}, **ends)
