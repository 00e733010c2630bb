"""Reading stored runs."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from offmarl.experiments.store.store import Store
from offmarl.reports.records import checksums
from offmarl.reports.records.schema import Record, has_returns
from offmarl.reports.records.schema import by_play as by_play
from offmarl.reports.records.schema import plays_of as plays_of


def readable(store: Store) -> dict[str, Record]:
    """The records of a store by run id, without damaged ones."""
    return {run_id: record for run_id in store.run_ids() if (record := store.peek(run_id))}


def finished(results: Path) -> Iterator[tuple[Path, Record]]:
    """Folder and record of every finished run, in order. One with malformed evaluations is skipped, with a message."""
    store = Store(results)
    for run_id, record in readable(store).items():
        if record["status"] == "done":
            if has_returns(record) and all(map(_even, record["evaluations"])):
                yield store.runs / run_id, record
            else:
                print(f"skipped: {store.runs / run_id}: its evaluations are malformed", file=sys.stderr)


def read_folder(folder: Path) -> Record:
    """The record in a run's folder, wherever that is.

    Raises:
        ValueError: when a file does not match its checksum, or the record is not JSON.
        OSError: when it cannot be read.
    """
    if checksums.has_sums(folder) and (faults := checksums.faults(folder)):
        raise ValueError(faults[0])
    return json.loads((folder / checksums.RECORD).read_text())


def _even(evaluation: Record) -> bool:
    """Whether an evaluation has a step, and a length (and a victory or none) for each return."""
    count = len(evaluation["returns"])
    lengths, won = evaluation.get("lengths") or [], evaluation.get("won") or evaluation["returns"]
    return "step" in evaluation and len(lengths) == count == len(won)
