"""Reading stored runs."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from offmarl.experiments.store.store import Store
from offmarl.reports.records import checksums
from offmarl.reports.records.reader import stored_record
from offmarl.reports.records.schema import FINISHED as FINISHED
from offmarl.reports.records.schema import Record
from offmarl.reports.records.schema import by_play as by_play
from offmarl.reports.records.schema import has_returns as has_returns
from offmarl.reports.records.schema import plays_of as plays_of
from offmarl.reports.records.schema import scale as scale


def readable(store: Store) -> tuple[dict[str, Record], list[str]]:
    """The records of a store by run id, and a line for each folder that is left out."""
    found, left_out = {}, []
    for run_id in store.run_ids():
        try:
            if record := store.peek(run_id):
                found[run_id] = record
            else:
                left_out.append(f"{store.runs / run_id}: {why_not(store.runs / run_id)}")
        except OSError as error:
            left_out.append(f"{store.runs / run_id}: cannot be read ({error.strerror})")
    return found, left_out


def why_not(folder: Path) -> str:
    """Why a folder is not read as a run: it is none, damaged, or of another name."""
    record = stored_record(folder)
    if record:
        return f"holds the run {record['run_id']}: a copy, or renamed; delete it, or give it back its name"
    exists = (folder / checksums.RECORD).exists()
    return "is damaged; the next run sets it aside and trains the cell again" if exists else "holds no run"


def told(store: Store) -> dict[str, Record]:
    """The readable records of a store by run id; a message says what is left out."""
    records, left_out = readable(store)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return records


def finished(store: Store, records: Mapping[str, Record]) -> Iterator[tuple[Path, Record]]:
    """Folder and record of every finished run among these, in order; a message says what is left out."""
    for run_id, record in records.items():
        if record["status"] != "done":
            print(f"left out: {store.runs / run_id}: {record['status']}", file=sys.stderr)
        elif has_returns(record) and all(map(_even, record["evaluations"])):
            yield store.runs / run_id, record
        else:
            print(f"left out: {store.runs / run_id}: its evaluations are malformed", file=sys.stderr)


def read_folder(folder: Path) -> Record:
    """The record in a run's folder. Raises ValueError where it is damaged, OSError where it cannot be read."""
    if checksums.has_sums(folder) and (faults := checksums.faults(folder)):
        raise ValueError(faults[0])
    return json.loads((folder / checksums.RECORD).read_bytes())


def _even(evaluation: Record) -> bool:
    """Whether an evaluation has a step, and a length (and a victory or none) for each return."""
    count = len(evaluation["returns"])
    lengths, won = evaluation.get("lengths") or [], evaluation.get("won") or evaluation["returns"]
    return "step" in evaluation and len(lengths) == count == len(won)
