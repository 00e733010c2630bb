"""The command `offmarl verify`: whether a results store still holds what was measured, and tables show that."""

import argparse
import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from offmarl.experiments.commands.options import examples, existing, results_option
from offmarl.experiments.errors import UserError

if TYPE_CHECKING:
    from offmarl.datasets.catalogue import Entry
    from offmarl.experiments.store.store import Store

Record = dict[str, Any]
MACHINES = ("status", "reason")  # columns that say of what is not available why it is so here


class Finding(NamedTuple):
    """Something that does not match, or (not `wrong`) that cannot be compared."""

    file: str
    key: str
    reason: str
    wrong: bool = True


def verify_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(("verify", "results/"), ("verify --results /node1/results", "another store"))
    results_option(parser)
    parser.set_defaults(command=_verify)


def _verify(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from offmarl.experiments.store.store import Store

    store = Store(existing(args.results))
    records = {run_id: record for run_id in store.run_ids() if (record := store.peek(run_id))}
    work = _checks(store, records)
    found: list[Finding] = []
    with tqdm(work, desc="verifying", unit="check", leave=False, disable=None) as bar:
        for check in bar:
            for finding in check():
                found.append(finding)
                bar.write(("! " if finding.wrong else "  ") + ": ".join(finding[:3]))
    wrong = sum(finding.wrong for finding in found)
    print(f"{len(store.run_ids())} runs, {len(work)} checks: " + (f"{wrong} do not match" if wrong else "all sound"))
    return 1 if wrong else 0


def _checks(store: "Store", records: dict[str, Record]) -> list[Callable[[], Iterator[Finding]]]:
    """What there is to do."""
    runs = [partial(check_run, store, run_id) for run_id in store.run_ids()]
    data: dict[Any, list[str]] = {}
    games: dict[Any, list[str]] = {}
    for run_id, record in records.items():
        cell, facts = record.get("cell") or {}, record.get("dataset") or {}
        named = cell.get("source"), cell.get("task"), cell.get("quality")
        if "sha256" in facts:
            key = (record.get("protocol") or {}).get("data")
            data.setdefault((*named, key, facts["sha256"]), []).append(run_id)
        if "rollout" in (record.get("engine") or {}):
            games.setdefault((*named, record["engine"]["rollout"]), []).append(run_id)
    sums = [partial(check_data, *what, ids[0]) for what, ids in data.items()]
    rollouts = [partial(check_rollout, *what, ids[0]) for what, ids in games.items()]
    tables = sorted((store.root / "reports").glob("*/table.csv"))
    return [*runs, *sums, *rollouts, *(partial(check_table, store.root, path) for path in tables)]


def check_run(store: "Store", run_id: str) -> Iterator[Finding]:
    """A run's files against their sums, and its settings against its name."""
    from offmarl.experiments.grid.jobs import stored_hash
    from offmarl.experiments.store.store import Cell
    from offmarl.reports.records import checksums as sums

    folder, record = f"runs/{run_id}", store.peek(run_id)
    if sums.summed(store.runs / run_id):
        for fault in sums.faults(store.runs / run_id):
            yield Finding(folder, run_id, fault)
    else:
        yield Finding(folder, run_id, "no sums, it was written by an older version", wrong=False)
    if record is None:
        yield Finding(f"{folder}/run.json", run_id, "is damaged; the next run sets it aside and trains the cell again")
        return
    try:
        expected = stored_hash(record)
        name_by_settings = Cell(**record["cell"]).run_id(expected)
        names = {"name of its folder": run_id, "run_id": record["run_id"]}
        settings = record["config_hash"]
    except (KeyError, TypeError, AttributeError) as error:
        yield Finding(f"{folder}/run.json", run_id, f"lacks what its name is made of ({error!r})", wrong=False)
        return
    for key, name in names.items():
        if name != name_by_settings:
            yield Finding(f"{folder}/run.json", key, f"is {name}, the stored settings give {name_by_settings}")
    if settings != expected:
        yield Finding(f"{folder}/run.json", "config_hash", f"is {settings}, should be {expected}")


def check_data(source: str, task: str, quality: str, key: str, sha256: str, run_id: str) -> Iterator[Finding]:
    """The data that runs name, where they are here."""
    name, entry = f"{task}:{quality}", _entry(source, task, quality)
    if entry is None or entry.key() != key or entry.card() is None:
        yield Finding(f"data {name} ({source})", run_id, "not here, so not compared", wrong=False)
        return
    with contextlib.redirect_stderr(io.StringIO()):  # nothing is recorded anew here
        card = entry.ready()
    if card is None:
        yield Finding(str(entry.place()), name, "does not match its SHA-256")
    elif card["sha256"] != sha256:
        yield Finding(str(entry.place()), name, f"has SHA-256 {card['sha256']}, {run_id} names {sha256}")


def check_rollout(source: str, task: str, quality: str, rollout: str, run_id: str) -> Iterator[Finding]:
    """The reference rollout of a run's task, played here."""
    from offmarl.benchmarks.reference_rollout import reference

    entry = _entry(source, task, quality)
    if entry is None or entry.missing():
        yield Finding(f"simulator of {task} ({source})", run_id, "not here, so not compared", wrong=False)
    elif (here := reference(entry.task).get("rollout")) != rollout:
        reason = f"its reference rollout is {here} here, {rollout} in {run_id}: another simulator or processor"
        yield Finding(f"simulator of {task} ({source})", "rollout", reason)


def _entry(source: str, task: str, quality: str) -> "Entry | None":
    from offmarl.datasets.catalogue import SOURCES, catalogue

    return catalogue(source).get((task, quality)) if source in SOURCES else None


def check_table(results: Path, path: Path) -> Iterator[Finding]:
    """Every cell of a written table, computed again from the episodes in the store."""
    from offmarl.experiments.commands.report import suite_facts
    from offmarl.reports.tables import table as tables

    text, name = path.read_text(encoding="utf-8", errors="replace"), str(path.relative_to(results))
    written = list(csv.DictReader(io.StringIO(text)))
    try:
        profile, source = written[0]["profile"], written[0]["source"]
        suite = path.parent.name.removesuffix(f"-{source}")
        facts = suite_facts(suite, source)
    except (IndexError, KeyError, UserError, ValueError) as error:
        yield Finding(name, "table", f"is not a table of this store ({error})")
        return
    now = tables.build(results, facts[0], suite, profile, source, *facts[1:]).to_csv(index=False)
    fresh = {_row_key(row): row for row in csv.DictReader(io.StringIO(now))}
    found = False
    for row in written:
        other = fresh.pop(_row_key(row), {})
        skipped = MACHINES if row.get("status") == "not available" else ()
        for column in row.keys() - {*skipped}:
            if row[column] != other.get(column):
                found = True
                reason = f"is {row[column]!r}, the store gives {other.get(column)!r}"
                yield Finding(name, f"{' '.join(_row_key(row))} {column}", reason)
    for key in fresh:
        yield Finding(name, " ".join(key), "is missing; the store has more than the table: report again")
    if text != now and not found and not fresh and not any(row["status"] == "not available" for row in written):
        yield Finding(name, "table", "is not written as the store gives it")


def _row_key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row.get(key) or "" for key in ("task", "quality", "algorithm"))
