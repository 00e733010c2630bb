"""Results in and out: `offmarl export` writes episodes or records into one file, `offmarl merge` joins stores."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import METHOD_FILE, declare, examples, existing, new_file, writable
from offmarl.experiments.errors import UserError, check_name
from offmarl.reports.records.checksums import POLICY
from offmarl.reports.records.files import replacing
from offmarl.reports.records.schema import OWN, Record, by_play

if TYPE_CHECKING:
    from offmarl.experiments.store.store import Store

SAME = ("evaluations", "status", "config", "protocol")  # what makes two runs of one cell the same run
TAKEN, THERE = "taken", "there already"
RECORDS, POLICIES = "records", "policies"  # the formats that keep whole records


def export_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(
        ("export --out episodes.csv", "every evaluation episode"),
        ("export --format parquet --out episodes.parquet", ""),
        ("export --format marl-eval --out runs.json", "for marl-eval's plots"),
        ("export --format records --out runs.tar.xz", "every record in one small file, which `merge` reads"),
    )
    text = (
        "csv (default), parquet or marl-eval (its JSON): episodes; records: all of every run but curves and weights; "
        "policies: records with the networks that act"
    )
    parser.add_argument("--format", default="csv", help=text)
    parser.add_argument(
        "--runs", nargs="+", metavar="PATTERN", help="only runs whose names match; * matches any text (default: all)"
    )
    parser.add_argument("--profile", help="smoke, quick, standard or paper (default: all that ran)")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    declare(parser, *METHOD_FILE, "--task", "--results")
    parser.set_defaults(command=_export)


def merge_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(
        ("merge /node1/results /node2/results --results joined", "two machines' runs"),
        ("merge runs.tar.xz", "what `export --format records` wrote: runs without curves and weights"),
    )
    text = "results directories, or files of records, to take runs from"
    parser.add_argument("sources", nargs="+", type=Path, metavar="DIR", help=text)
    declare(parser, "--results", help="results directory to write to (default: results)")
    parser.set_defaults(command=_merge)


def _export(args: argparse.Namespace) -> int:
    from offmarl.experiments.grid.code import why_stale
    from offmarl.experiments.grid.suite import profiles
    from offmarl.experiments.store.archive import pack
    from offmarl.experiments.store.reading import told
    from offmarl.experiments.store.store import Store
    from offmarl.reports.records.reader import newest

    check_name("format", args.format, [*FORMATS, RECORDS, POLICIES])
    if args.profile is not None:
        check_name("profile", args.profile, profiles())
    store = Store(existing(args.results))
    records = told(store)
    found = list(records.values()) if args.format == RECORDS else _finished(store, records)
    found = [record for record in found if any(fnmatch(record["run_id"], one) for one in args.runs or "*")]
    chosen, notes = newest([record for record in found if args.profile in (None, record["cell"]["profile"])])
    if not chosen:
        asked = f" of {args.profile}" * bool(args.profile) + f" named {' or '.join(args.runs or ())}" * bool(args.runs)
        raise UserError(f"export: {args.results} holds no finished run{asked}")
    if stale := sum(why_stale(record) is not None for record in chosen):
        notes.append(f"Stale: the code of {stale} of these runs has changed since.")
    for note in notes:
        print(note, file=sys.stderr)
    partial = sum(record.get("lost_seeds", 0) > 0 for record in chosen)
    if partial and args.format == "marl-eval":
        chosen = [record for record in chosen if not record["lost_seeds"]]
        print(f"left out: {partial} runs of cells that lost a seed (failed or diverged), as in our aggregates")
    try:
        with replacing(new_file(args.out)) as draft:
            if args.format in (RECORDS, POLICIES):
                pack([store.runs / record["run_id"] for record in chosen], draft, _policy(args.format))
            else:
                FORMATS[args.format](chosen, draft)
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot be written ({error.strerror})") from error
    print(f"written: {args.out} ({len(chosen)} runs)")
    return 0


def _policy(kind: str) -> "Callable[[Path], bytes] | None":
    """What gives a run's policy to a format that keeps it."""
    if kind != POLICIES:
        return None
    from offmarl.experiments.training.policy import acting_policy

    return acting_policy


def _finished(store: "Store", records: dict[str, Record]) -> list[Record]:
    """Every finished run among these, with the number of seeds that its cell lost."""
    from offmarl.experiments.store.reading import finished

    lost = Counter(_training(run_id) for run_id, record in records.items() if record["status"] != "done")
    return [record | {"lost_seeds": lost[_training(record["run_id"])]} for _, record in finished(store, records)]


def _training(run_id: str) -> tuple[str, ...]:
    """What the run ids of a cell's seeds share."""
    return tuple(run_id.rsplit(".", 2)[::2])


def episodes(records: list[Record]) -> Any:
    """A row for every evaluation episode: cell, run id, step, play, episode, return, won (None: none can), length.

    `lost_seeds` counts the seeds of the same cell that failed or diverged, and so have no rows.
    """
    import pandas as pd

    rows = [
        {**record["cell"], "run_id": record["run_id"], "step": evaluation["step"], "play": evaluation["play"]}
        | {"episode": k, "return": value}
        | {"won": evaluation["won"][k] if evaluation.get("won") else None, "length": evaluation["lengths"][k]}
        | {"lost_seeds": record.get("lost_seeds", 0)}
        for record in records
        for evaluation in record["evaluations"]
        for k, value in enumerate(evaluation["returns"])
    ]
    return pd.DataFrame(rows)


def marl_eval(records: list[Record]) -> Record:
    """marl-eval's nesting: environment, task, algorithm, seed, step; the last evaluation is its absolute metric.

    Tasks are datasets; the environment is the family with source. Plays other than the methods' own are algorithms of
    their own. Where there are runs of several profiles, the algorithm's name ends in the profile.
    Source: instadeepai/marl-eval, "JSON file structure".
    """
    found: Record = {}
    several = len({record["cell"]["profile"] for record in records}) > 1
    for record in records:
        cell = record["cell"]
        family, _, task = cell["task"].partition("/")
        for play, evaluations in by_play(record).items():
            method = f"{cell['algorithm']}-{cell['variant']}" + ("" if play == OWN else f"-{play}")
            node, method = found, method + several * f"-{cell['profile']}"
            for key in (f"{family}-{cell['source']}", f"{task}-{cell['quality']}", method):
                node = node.setdefault(key, {})
            metrics = [(evaluation["step"], _metrics(evaluation)) for evaluation in evaluations]
            steps = {f"step_{k}": {"step_count": step, **metric} for k, (step, metric) in enumerate(metrics)}
            node[f"seed_{cell['seed']}"] = {**steps, "absolute_metrics": metrics[-1][1]}
    return found


def _metrics(evaluation: Record) -> Record:
    won = evaluation.get("won")
    return {"return": evaluation["returns"]} | ({"win_rate": [100.0 * sum(won) / len(won)]} if won else {})


FORMATS = {
    "csv": lambda records, path: episodes(records).to_csv(path, index=False),
    "parquet": lambda records, path: episodes(records).to_parquet(path, index=False),
    "marl-eval": lambda records, path: path.write_text(json.dumps(marl_eval(records), indent=1)),
}


def _merge(args: argparse.Namespace) -> int:
    from offmarl.experiments.store.archive import unpacked
    from offmarl.experiments.store.store import Store

    files = [source for source in args.sources if source.is_file()]
    sources = [existing(source, "merge") for source in args.sources if source not in files]
    if empty := [source for source in sources if not any((source / "runs").glob("[!.]*"))]:
        raise UserError(f"merge: {empty[0]}: holds no runs; name a results directory, or a file of records")
    store = Store(writable(args.results))
    if store.root in sources:
        raise UserError(f"merge: {store.root} is both a source and --results; name another --results")
    with unpacked(*files) as records:
        return _take_all([*sources, records], store)


def _take_all(sources: Sequence[Path], store: "Store") -> int:
    """Take the runs of some results directories, say what became of them, and return the exit code."""
    from tqdm import tqdm

    folders = [folder for source in sources for folder in sorted((source / "runs").glob("[!.]*"))]
    outcomes = [(folder, take(folder, store)) for folder in tqdm(folders, desc="merge", unit="run")]
    refused = [f"refused: {folder}: {why}" for folder, why in outcomes if why not in (TAKEN, THERE)]
    taken, there = (sum(what == outcome for _, what in outcomes) for outcome in (TAKEN, THERE))
    print(f"{taken} runs taken, {there} were there already, {len(refused)} refused")
    for line in refused:
        print(line, file=sys.stderr)
    return 1 if refused else 0


def take(folder: Path, store: "Store") -> str:
    """Copy a run's folder into a store, unless the run is there; returns TAKEN, THERE, or why it is refused.

    A run that came without its policy is replaced by the same one with it.
    """
    from offmarl.experiments.store.reading import why_not
    from offmarl.experiments.store.store import Store

    if any(path.is_symlink() for path in (folder, *folder.rglob("*"))):
        return "has symbolic links"
    theirs = Store(folder.parents[1]).peek(folder.name, all_files=True)
    if theirs is None:
        return why_not(folder)
    ours = store.read(folder.name, all_files=True)  # a damaged one is set aside
    if ours and (differ := [key for key in SAME if ours.get(key) != theirs.get(key)]):
        return f"conflicts with the stored run: {', '.join(differ)} differ"
    brings_policy = (folder / POLICY).exists() and not (store.runs / folder.name / POLICY).exists()
    if ours and not brings_policy:
        return THERE
    store.take(folder)
    return TAKEN
