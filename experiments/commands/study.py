"""The command `offmarl experiment`: the papers' other experiments, each with figure, table and verdict."""

import argparse
from typing import Any

from offmarl.experiments.commands.options import (
    examples,
    find_device,
    host_options,
    jobs_option,
    results_option,
    workers_of,
    writable,
)
from offmarl.experiments.errors import check_name

ALL = "all"


def experiment_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(
        ("experiment list", "all of them by name"),
        ("experiment fig6,fig7", "figure, table, text and verdict of each"),
        ("experiment all --profile smoke", "every one, in a few minutes"),
    )
    parser.add_argument("name", help="fig3, fig5, …, fig16, om2p-fig2, …; several with commas; list: names them; all")
    parser.add_argument("--profile", default="quick", help="how much work: smoke, quick (default) or paper")
    parser.add_argument("--source", default="embedded", help="of the suites' data: embedded (default), og_marl, …")
    jobs_option(parser)
    host_options(parser)
    results_option(parser)
    parser.set_defaults(command=_conduct)


def experiments() -> dict[str, Any]:
    """All of them by name: on small games, and on the tasks of the suites."""
    from offmarl.experiments.studies.comparisons import comparisons
    from offmarl.experiments.studies.toy_games import studies

    return {**studies(), **comparisons()}


def _conduct(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import SOURCES
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
    workers = workers_of(args, host.device)
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
