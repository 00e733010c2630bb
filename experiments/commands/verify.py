"""The command `offmarl verify`: whether a results store still holds what was measured, and tables show that."""

import argparse
import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from offmarl.experiments.commands.options import METHOD_FILE, declare, examples, existing, strangers
from offmarl.experiments.errors import UserError

if TYPE_CHECKING:
    from offmarl.datasets.catalogue import Entry
    from offmarl.reports.records.reader import Records
    from offmarl.reports.records.schema import Record

MACHINES = ("status", "reason")  # columns that say why something is not available on the machine of the report
MISSING = "not available"
UNCOMPARED = "unavailable here, so not compared"


class Finding(NamedTuple):
    """Something that does not match, or (not `wrong`) that cannot be compared."""

    file: str
    key: str
    reason: str
    wrong: bool = True


def verify_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(("verify", "results/"), ("verify --results /node1/results", "another store"))
    declare(parser, "--results", *METHOD_FILE, "--task")
    parser.add_argument("--suite", default="", metavar="FILE", help="a file.yaml with a suite of your own")
    parser.set_defaults(command=_verify)


def _verify(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from offmarl.experiments.grid.code import why_stale
    from offmarl.experiments.store.store import Store
    from offmarl.reports.records.reader import Records

    store = Store(existing(args.results))
    run_ids = store.run_ids()
    records = Records.read(store.root, why_stale)
    checks = _checks(records, run_ids)
    found: list[Finding] = []
    with tqdm(checks, desc="verifying", unit="check", leave=False, disable=None) as bar:
        for check in bar:
            for finding in check():
                found.append(finding)
                bar.write(("! " if finding.wrong else "  ") + ": ".join(finding[:3]))
    for line in strangers(records.by_run.values()):
        print(f"  {line}")
    for run_id, reason in records.stale.items():
        print(f"  runs/{run_id}: stale: {reason}")
    wrong, left = sum(finding.wrong for finding in found), sum(UNCOMPARED in finding.reason for finding in found)
    verdict = (f"{wrong} do not match" if wrong else "all sound") + (f", {left} not compared" if left else "")
    stale = f", {len(records.stale)} stale (`offmarl run --again` retrains them)" if records.stale else ""
    print(f"{len(run_ids)} runs, {len(checks)} checks: {verdict}{stale}")
    return 1 if wrong else 0


def _checks(records: "Records", run_ids: list[str]) -> list[Callable[[], Iterator[Finding]]]:
    """A check for each run, dataset, simulator and written table."""
    data: dict[tuple, str] = {}  # to the first run that names it
    games: dict[tuple, str] = {}
    for run_id, record in records.by_run.items():
        if record is None:
            continue
        dataset = tuple(record["cell"][key] for key in ("source", "task", "quality"))
        facts = record.get("dataset") or {}
        if "sha256" in facts:
            protocol = record.get("protocol") or {}
            share = protocol.get("data_share", 1.0)
            data.setdefault((*dataset, share, protocol.get("data"), facts["sha256"]), run_id)
        if "rollout" in (record.get("engine") or {}):
            key = (record.get("protocol") or {}).get("data") if dataset[0] == "own" else None
            games.setdefault((*dataset, record["engine"]["rollout"], key), run_id)
    tables = sorted((records.root / "reports").glob("*/table.csv"))
    return [
        *(partial(check_run, records.root / "runs" / run_id, records.by_run.get(run_id)) for run_id in run_ids),
        *(partial(check_data, *what, run_id) for what, run_id in data.items()),
        *(partial(check_rollout, *what, run_id) for what, run_id in games.items()),
        *(partial(check_table, records, path) for path in tables),
    ]


def check_run(folder: Path, record: "Record | None") -> Iterator[Finding]:
    """A run's files against their checksums, and its settings against its name."""
    from offmarl.experiments.grid.jobs import stored_hash
    from offmarl.experiments.store.reading import why_not
    from offmarl.experiments.store.store import Cell
    from offmarl.reports.records import checksums

    run_id, place = folder.name, f"runs/{folder.name}"
    if checksums.has_sums(folder):
        for fault in checksums.faults(folder):
            yield Finding(place, run_id, fault)
    else:
        yield Finding(place, run_id, "no checksums, it was written by an older version", wrong=False)
    if record is None:
        yield Finding(f"{place}/run.json", run_id, why_not(folder))
        return
    try:
        expected = stored_hash(record)
        name_by_settings = Cell(**record["cell"]).run_id(expected)
        names = {"name of its folder": run_id, "run_id": record["run_id"]}
        settings = record["config_hash"]
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"settings are missing, so its name is not checked ({error!r})"
        yield Finding(f"{place}/run.json", run_id, reason, wrong=False)
        return
    for key, name in names.items():
        if name != name_by_settings:
            yield Finding(f"{place}/run.json", key, f"is {name}, the stored settings give {name_by_settings}")
    if settings != expected:
        yield Finding(f"{place}/run.json", "config_hash", f"is {settings}, should be {expected}")


def check_data(
    source: str, task: str, quality: str, share: float, key: str, sha256: str, run_id: str
) -> Iterator[Finding]:
    """The data that runs name, or the share of them, where it is on this machine."""
    from offmarl.datasets.derived import Derived
    from offmarl.datasets.part import part

    name, entry = f"{task}:{quality}", _entry(source, task, quality)
    entry = entry and part(entry, share)
    if entry is None or entry.key() != key or entry.card() is None:
        yield Finding(f"data {name} ({source})", run_id, UNCOMPARED, wrong=False)
        return
    if isinstance(entry.recorded, Derived) and (fault := entry.recorded.outdated()):
        yield Finding(f"data {name} ({source})", run_id, fault, wrong=False)
    with contextlib.redirect_stderr(io.StringIO()):  # nothing is recorded anew here
        card = entry.ready()
    if card is None:
        yield Finding(str(entry.place()), name, "does not match its SHA-256")
    elif card["sha256"] != sha256:
        yield Finding(str(entry.place()), name, f"has SHA-256 {card['sha256']}, {run_id} names {sha256}")


def check_rollout(
    source: str, task: str, quality: str, rollout: str, key: str | None, run_id: str
) -> Iterator[Finding]:
    """The reference rollout of a run's task, played here; `key` names a file's task and data, which are edited."""
    from offmarl.benchmarks.fingerprint import reference

    entry = _entry(source, task, quality)
    if entry is None or entry.unavailable() or (key and entry.key() != key):
        yield Finding(f"simulator of {task} ({source})", run_id, UNCOMPARED, wrong=False)
    elif (here := reference(entry.task).get("rollout")) != rollout:
        reason = f"its reference rollout is {here} here, {rollout} in {run_id}: another simulator or processor"
        yield Finding(f"simulator of {task} ({source})", "rollout", reason)


def _entry(source: str, task: str, quality: str) -> "Entry | None":
    from offmarl.datasets.catalogue import SOURCES, catalogue

    return catalogue(source).get((task, quality)) if source in SOURCES else None


def check_table(records: "Records", path: Path) -> Iterator[Finding]:
    """Every cell of a written table, computed again from the episodes in the store."""
    from offmarl.experiments.commands.report import suite_facts
    from offmarl.experiments.grid.suite import suite_names
    from offmarl.reports.records.files import read_text
    from offmarl.reports.tables.build import build

    text, name = read_text(path), str(path.relative_to(records.root))
    written = list(csv.DictReader(io.StringIO(text)))
    try:
        profile, source = written[0]["profile"], written[0]["source"]
        suite = path.parent.name.removesuffix(f"-{source}")
        if suite not in suite_names():
            reason = f"its suite '{suite}' is {UNCOMPARED}; name its file: --task or --suite FILE"
            yield Finding(name, "table", reason, wrong=False)
            return
        facts = suite_facts(suite, source)
    except (IndexError, KeyError, UserError, ValueError) as error:
        yield Finding(name, "table", f"is not a table of this store ({error})")
        return
    now = build(records, facts[0], suite, profile, source, *facts[1:]).frame().to_csv(index=False)
    fresh = {_row_key(row): row for row in csv.DictReader(io.StringIO(now))}
    found = False
    for row in written:
        other = fresh.pop(_row_key(row), {})
        skipped = MACHINES if MISSING in (row.get("status"), other.get("status")) else ()
        for column in row.keys() - {*skipped}:
            if row[column] != other.get(column):
                found = True
                reason = f"is {row[column]!r}, the store gives {other.get(column)!r}"
                yield Finding(name, f"{' '.join(_row_key(row))} {column}", reason)
    for key in fresh:
        yield Finding(name, " ".join(key), "is missing: the table lacks a row of the store; run `offmarl report` again")
    if text != now and not found and not fresh and MISSING not in text + now:
        yield Finding(name, "table", "is not written as the store gives it")


def _row_key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row.get(key) or "" for key in ("task", "quality", "algorithm", "play"))
