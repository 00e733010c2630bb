"""Results in and out: `offmarl export` writes every evaluation episode, `offmarl merge` joins several stores."""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from offmarl.experiments.commands.options import examples, results_option, writable
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.store.reading import finished
from offmarl.reports.records.files import replacing

Record = dict[str, Any]
SAME = ("evaluations", "status", "config", "protocol")  # what makes two runs of one cell the same run


def export_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(
        ("export --out episodes.csv", "every evaluation episode"),
        ("export --format parquet --out episodes.parquet", ""),
        ("export --format marl-eval --out runs.json", "for marl-eval's plots"),
    )
    parser.add_argument("--format", default="csv", help="csv (default), parquet or marl-eval (its JSON)")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    results_option(parser)
    parser.set_defaults(command=_export)


def merge_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(("merge /node1/results /node2/results --results joined", "two machines' runs"))
    parser.add_argument("sources", nargs="+", type=Path, metavar="DIR", help="results directories to take runs from")
    results_option(parser, "results directory to write to")
    parser.set_defaults(command=_merge)


def _export(args: argparse.Namespace) -> int:
    write = FORMATS[check_name("format", args.format, FORMATS)]
    records = [record for _, record in finished(_directory(args.results))]
    if not records:
        raise UserError(f"export: {args.results} holds no finished run")
    try:
        with replacing(args.out) as draft:
            write(records, draft)
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot be written ({error.strerror})") from error
    print(f"written: {args.out} ({len(records)} runs)")
    return 0


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"{path}: there is no such directory")
    return path.resolve()


def episodes(records: list[Record]) -> Any:
    """A row for every evaluation episode: cell, step, episode, return, won (none where a task knows it not), length."""
    import pandas as pd

    rows = [
        {**record["cell"], "run_id": record["run_id"], "step": look["step"], "episode": k, "return": value}
        | {"won": (look.get("won") or {k: None})[k], "length": look["lengths"][k]}
        for record in records
        for look in record["evaluations"]
        for k, value in enumerate(look["returns"])
    ]
    return pd.DataFrame(rows)


def marl_eval(records: list[Record]) -> Record:
    """marl-eval's nesting: environment, task, algorithm, seed, step; the last look is its absolute metric.

    Source: instadeepai/marl-eval, "JSON file structure". Tasks are datasets; the environment is the family with source.
    """
    found: Record = {}
    for record in records:
        cell, looks = record["cell"], record["evaluations"]
        family, _, task = cell["task"].partition("/")
        place = f"{family}-{cell['source']}", f"{task}-{cell['quality']}", f"{cell['algorithm']}-{cell['variant']}"
        node = found
        for key in place:
            node = node.setdefault(key, {})
        steps = {f"step_{k}": {"step_count": look["step"], **_metrics(look)} for k, look in enumerate(looks)}
        node[f"seed_{cell['seed']}"] = {**steps, "absolute_metrics": _metrics(looks[-1])}
    return found


def _metrics(look: Record) -> Record:
    won = look.get("won")
    return {"return": look["returns"]} | ({"win_rate": [100.0 * sum(won) / len(won)]} if won else {})


FORMATS = {
    "csv": lambda records, path: episodes(records).to_csv(path, index=False),
    "parquet": lambda records, path: episodes(records).to_parquet(path, index=False),
    "marl-eval": lambda records, path: path.write_text(json.dumps(marl_eval(records), indent=1)),
}


def _merge(args: argparse.Namespace) -> int:
    from offmarl.experiments.store.store import Store

    sources, store = [_directory(source) for source in args.sources], Store(writable(args.results))
    if store.root in sources:
        raise UserError(f"merge: {store.root} is both a source and --results; name another --results")
    runs = [place for source in sources for place in sorted((source / "runs").glob("[!.]*"))]
    taken, there, refused = 0, 0, []
    for place in tqdm(runs, desc="merge", unit="run"):
        theirs, fault = _sound(place)
        ours = None if fault else store.read(place.name, all_files=True)  # a damaged one gives way
        if fault := fault or _conflict(ours, theirs):
            refused.append(f"{place}: {fault}")
        elif ours:
            there += 1
        else:
            _copy(place, store.runs / place.name)
            taken += 1
    print(f"{taken} runs taken, {there} were there already, {len(refused)} refused")
    for line in refused:
        print(f"refused: {line}", file=sys.stderr)
    return 1 if refused else 0


def _sound(place: Path) -> tuple[Record | None, str]:
    """A run's record, of which every file is whole; or why it cannot be taken at all."""
    from offmarl.experiments.store.store import Store

    if place.is_symlink() or any(part.is_symlink() for part in place.rglob("*")):
        return None, "has symbolic links"
    record = Store(place.parents[1]).peek(place.name, all_files=True)
    if record is None:
        return None, "is damaged, or no run"
    return record, "" if record.get("run_id") == place.name else f"calls itself {record.get('run_id')!r}"


def _conflict(ours: Record | None, theirs: Record | None) -> str:
    """How two runs of one cell differ in what they found; empty where they do not, or there is one only."""
    if not ours or not theirs:
        return ""
    differ = [key for key in SAME if ours.get(key) != theirs.get(key)]
    return f"conflicts with the run that is there: {', '.join(differ)} differ" if differ else ""


def _copy(place: Path, to: Path) -> None:
    """A run's files under a name that only becomes the run's when all are there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with replacing(to) as draft:
        shutil.copytree(place, draft)
