"""The finished runs of a store."""

import sys
from collections.abc import Iterator
from pathlib import Path

from offmarl.reports.records.schema import Record, has_returns


def finished(results: Path) -> Iterator[tuple[Path, Record]]:
    """The finished runs of a store, in order: folder and record. One with malformed evaluations is named on stderr."""
    from offmarl.experiments.store.store import Store

    store = Store(results)
    for run_id in store.run_ids():
        record = store.peek(run_id)
        if record and record["status"] == "done":
            if has_returns(record) and all(map(_is_complete, record["evaluations"])):
                yield store.runs / run_id, record
            else:
                print(f"left out: {store.runs / run_id}: its evaluations are malformed", file=sys.stderr)


def _is_complete(evaluation: Record) -> bool:
    """Whether an evaluation has a step, and a length (and a victory or none) for each return."""
    count = len(evaluation["returns"])
    lengths, won = evaluation.get("lengths") or [], evaluation.get("won") or evaluation["returns"]
    return "step" in evaluation and len(lengths) == count == len(won)
