"""The command `offmarl experiment`: the papers' other experiments, each with figure, table and verdict."""

import argparse
from pathlib import Path
from typing import Any

from offmarl.experiments.commands.options import command, find_device, host_options, writable
from offmarl.experiments.errors import UserError, check_name

ALL = "all"


def add_command(commands) -> None:
    """Declare it."""
    study = command(commands, "experiment", "an experiment of the papers: figure, table, verdict", _conduct)
    study.add_argument("name", help="fig3, fig5, …, fig16, om2p-fig2, …; several with commas; list: names them; all")
    study.add_argument("--profile", default="quick", help="how much work: smoke, quick (default) or paper")
    study.add_argument("--source", default="embedded", help="of the suites' data: embedded (default), og_marl, …")
    study.add_argument(
        "--jobs", type=int, default=None, help="trainings side by side; 1 runs without Ray (default: cores)"
    )
    host_options(study)
    study.add_argument("--results", type=Path, default=Path("results"), help="results directory (default: results)")


def experiments() -> dict[str, Any]:
    """All of them by name: on small games, and on the tasks of the suites."""
    from offmarl.experiments.studies.comparisons import comparisons
    from offmarl.experiments.studies.toy_games import studies

    return {**studies(), **comparisons()}


def _conduct(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import SOURCES
    from offmarl.experiments.launch.serial import side_by_side
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.machine import Host
    from offmarl.reports.studies import write

    known = experiments()
    if args.name == "list":
        print("\n".join(f"{name:10} {study.title}" for name, study in known.items()))
        return 0
    names = list(known) if args.name == ALL else args.name.split(",")
    chosen = [known[check_name("experiment", name, [*known, "list", ALL])] for name in names]
    check_name("profile", args.profile, chosen[0].profiles)
    check_name("source", args.source, SOURCES)
    host = Host(find_device(args.device), args.threads, args.tf32, args.eager)
    workers = side_by_side(host.device, args.threads) if args.jobs is None else args.jobs
    if workers < 1 or args.threads < 1:
        raise UserError("--jobs and --threads: write a number of at least 1")
    results, verdicts = writable(args.results), []
    for study in chosen:
        record = study.conduct(args.profile, args.source, host, results, workers)
        name = f"{study.name}-{args.profile}" + f"-{args.source}" * (args.source != "embedded")
        Store(results).write_measurement("experiment", name, record)
        out = write(results, name)
        verdicts.append(f"{study.name:10} {out['verdict']:14} {study.title}")
        print(out["text"])
        print("written: " + ", ".join(str(path) for path in out["paths"]) + "\n")
    if len(chosen) > 1:
        print("\n".join(verdicts))
    return 0
