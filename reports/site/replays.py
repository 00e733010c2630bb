"""Replays for the pages of the site: those that runs kept, and those that `offmarl watch` wrote into the store."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from offmarl.reports.records.replay import SUFFIX, Header, ReplayError, file_name, read
from offmarl.reports.records.schema import Record
from offmarl.reports.replays.page import WHAT, embedded

MOST, ROOM = 12, 40_000  # that were watched, on a page; letters of those that runs kept
DUELS = 2  # on a page


class Shown(NamedTuple):
    """A replay as a page holds it."""

    header: Header
    packed: str
    watched: bool  # by hand

    @property
    def meaning(self) -> str:
        """How to read its pictures."""
        return WHAT[self.header.kind]


Replays = Mapping[str, list[Shown]]  # by run, or by dataset: task:quality:source


def kept(results: Path, name_of: Callable[[str], str] = str) -> tuple[Replays, list[str]]:
    """The replays of a store, the lowest return first, and a line for each that cannot be read.

    `name_of` gives a run's name on the site.
    """
    found, notes = defaultdict(dict), []
    for folder in ("runs", "replays"):
        for path in filter(Path.is_file, sorted((results / folder).glob(f"[!.]*/[!.]*{SUFFIX}"))):
            try:
                replay = read(path)
            except (ReplayError, OSError) as error:
                notes.append(f"left out: {error}")
                continue
            head = replay.header
            if folder == "runs" and (head.run, file_name(head.play, head.episode)) != (path.parent.name, path.name):
                notes.append(f"left out: {path}: is a replay of another run or episode")
                continue
            place = found[name_of(head.run) if head.run else f"{head.task}:{head.quality}:{head.source}"]
            place.setdefault(path.name, Shown(head, embedded([replay])[0], folder == "replays"))
    return {key: sorted(some.values(), key=_return) for key, some in found.items()}, notes


def of_page(replays: Sequence[Shown]) -> list[Shown]:
    """By return: what was watched, and the median, best and worst of what runs kept, as far as there is room."""
    chosen = [one for one in replays if one.watched][:MOST]
    own = sorted((one for one in replays if not one.watched), key=_return)
    room = ROOM
    for one in (own[(len(own) - 1) // 2], own[-1], own[0]) if own else ():
        if one not in chosen and (room == ROOM or len(one.packed) <= room):
            chosen.append(one)
            room -= len(one.packed)
    return sorted(chosen, key=_return)


def of_runs(replays: Replays, runs: Sequence[Record], play: str) -> list[Shown]:
    """The replays of some runs in a play."""
    return [one for run in runs for one in replays.get(run["run_id"], ()) if one.header.play == play]


def duels(one: Sequence[Shown], other: Sequence[Shown]) -> list[tuple[Shown, Shown]]:
    """Pairs of two methods' replays that began the same: of the same seed and number."""
    first, second = ({(r.header.seed, r.header.episode): r for r in some} for some in (one, other))
    return [(first[key], second[key]) for key in sorted(first.keys() & second.keys(), key=str)][:DUELS]


def _return(replay: Shown) -> float:
    return replay.header.return_
