"""All measures of a dataset, kept beside its card in the cache, and what two datasets have in common.

`datasets/README.md` says what each means and costs.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offmarl.datasets.cache import MEASURES, Entry, replacing
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.measures.conventions import conventions
from offmarl.datasets.measures.coverage import coverage, overlap
from offmarl.datasets.measures.dependence import coordination, held_out, memory, nothing
from offmarl.datasets.measures.likelihood import TooFew, fit, rows_of, sample
from offmarl.datasets.measures.pictures import pictures
from offmarl.datasets.measures.returns import distribution, freedom, settled

VERSION = 5  # of the measures: a new one measures every dataset anew


def measure(data: Dataset) -> dict[str, Any]:
    """Every measure; the same numbers for the same data. Those that need networks are left out below 8 episodes."""
    began = time.process_time()
    found = {
        "returns": distribution(data.returns()),
        "lengths": distribution(np.bincount(data.episode)),
        "settled": settled(data),
        "freedom": freedom(data),
        "coverage": coverage(data),
    }
    with suppress(TooFew):
        found |= _behaviour(data)
    return found | {"cpu_seconds": round(time.process_time() - began, 1)}


def _behaviour(data: Dataset) -> dict[str, Any]:
    """What networks tell of the behaviour behind the data. Raises TooFew where there are too few episodes."""
    seen = sample(data)
    rows = rows_of(seen)
    plain = fit(rows, nothing(rows))
    uncertainty, _ = held_out(seen, -plain.scores.reshape(-1, rows.agents).sum(1))
    together, network = coordination(seen, rows, plain)
    return {
        "uncertainty": uncertainty,
        "coordination": together,
        "conventions": conventions(seen, rows, network, torch.from_numpy(seen.others()).flatten(0, 1)),
        "memory": memory(seen, rows, plain),
        "looked_at": {"episodes": len(seen.behaviour), "transitions": len(seen.obs)},
    }


def relation(one: Dataset, other: Dataset) -> dict[str, float]:
    """What two datasets of a task have in common.

    `overlap` and `overlap_back` are the shares of their pairs of observation and action that the other has too.
    `difference` is E sum_i [log p(a_i | o_i, dataset) - log p(a_i | o_i)], in nats a step over held-out episodes of
    both: how much it tells of the actions from which of the two an observation comes; 0 where they agree. It is left
    out where one has too few episodes.
    """
    names: list[str] = ["overlap", "overlap_back", "difference", "difference_error"]
    found = dict(zip(names, overlap(one, other)))
    try:
        seen = sample(one, other)
    except TooFew:
        return found
    rows = rows_of(seen)
    plain = fit(rows, nothing(rows))
    which = torch.from_numpy(np.repeat(np.eye(2, dtype=np.float32)[seen.origin], rows.agents, 0))
    gain = (fit(rows, which, plain.network).scores - plain.scores).reshape(-1, rows.agents).sum(1)
    return found | dict(zip(names[2:], held_out(seen, gain)))


def stored(entry: Entry) -> dict[str, Any] | None:
    """The measures in the cache, where they are of the data that are there now."""
    kept = _read(entry)
    return kept.get("measures")


def measures(entry: Entry, data: Dataset, card: dict[str, Any]) -> dict[str, Any]:
    """The measures of a loaded dataset, from the cache or made now and kept there."""
    return _kept(entry, "measures", card, lambda: measure(data))


def relations(entry: Entry, data: Dataset, other: Entry) -> dict[str, float]:
    """`relation` to another dataset, from the cache of either, or made now and kept there."""
    card, theirs = entry.card() or {}, other.ready() or other.load()[1]
    there = _read(other).get(_name_of_relation(entry, card))
    if there is not None:
        back = {"overlap": there["overlap_back"], "overlap_back": there["overlap"]}
        return there | back
    return _kept(entry, _name_of_relation(other, theirs), card, lambda: relation(data, other.load()[0]))


def shown(entry: Entry, data: Dataset, card: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a loaded dataset's figures, from the cache or made now and kept there."""
    return _kept(entry, "pictures", card, lambda: pictures(data, entry.task))


def _name_of_relation(other: Entry, card: dict[str, Any]) -> str:
    return " ".join(["relation to", other.quality, *other.sums(card).values()])


def _kept(entry: Entry, name: str, card: dict[str, Any], make: Callable[[], Any]) -> Any:
    kept = _read(entry) or {"version": VERSION, "sums": entry.sums(card)}
    if name not in kept:
        kept[name] = make()
        with suppress(OSError), replacing(_file(entry)) as draft:
            draft.write_text(json.dumps(kept, indent=1))
    return kept[name]


def _read(entry: Entry) -> dict[str, Any]:
    """What is kept of the data that are in the cache now."""
    card = entry.card()
    with suppress(OSError, ValueError):
        kept = json.loads(_file(entry).read_bytes())
        if card and kept.get("version") == VERSION and kept.get("sums") == entry.sums(card):
            return kept
    return {}


def _file(entry: Entry) -> Path:
    place = entry.place()
    return place.with_suffix(MEASURES) if place.suffix else place / "measures.json"
