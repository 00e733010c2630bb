"""The replays that `offmarl watch` kept in a store, for the pages of the cells that they are of."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from offmarl.reports.records.replay import SUFFIX, Header, ReplayError, read
from offmarl.reports.replays.page import WHAT, embedded

MOST = 12  # of a cell


class Shown(NamedTuple):
    """A replay as a page holds it."""

    header: Header
    packed: str

    @property
    def meaning(self) -> str:
        """How to read its pictures."""
        return WHAT[self.header.kind]


def kept(results: Path) -> tuple[dict[str, list[Shown]], list[str]]:
    """The replays of a store by run, the lowest return first, and a line for each that cannot be read."""
    found, notes = defaultdict(list), []
    for path in sorted((results / "replays").glob(f"[!.]*/[!.]*{SUFFIX}")):
        try:
            replay = read(path)
        except (ReplayError, OSError) as error:
            notes.append(f"left out: {error}")
            continue
        found[replay.header.run].append(Shown(replay.header, *embedded([replay])))
    return {run: sorted(some, key=lambda one: one.header.return_) for run, some in found.items()}, notes
