"""The finished runs of a store."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def finished(results: Path) -> Iterator[tuple[Path, Record]]:
    """The whole runs of a store that are done, in order; one without episodes in their form is left out, and said."""
    from offmarl.experiments.store.store import Store
    from offmarl.reports.records.schema import evaluated

    store = Store(results)
    for place in sorted(store.runs.glob("[!.]*")):
        record = store.peek(place.name)
        if record and record["status"] == "done":
            if evaluated(record) and all(map(_even, record["evaluations"])):
                yield place, record
            else:
                print(f"left out: {place}: its evaluations are not in the form of a run's", file=sys.stderr)


def _even(look: Record) -> bool:
    """Whether an evaluation has a step, and a length (and a victory or none) for each return."""
    count = len(look["returns"])
    return "step" in look and len(look.get("lengths") or []) == count == len(look.get("won") or look["returns"])
