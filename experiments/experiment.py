"""The command `offmarl experiment`: the papers' small experiments, each with figure, table and verdict."""

import argparse
from pathlib import Path

from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.options import command, find_device, host_options, writable

ALL = "all"


def add_command(commands) -> None:
    """Declare it."""
    study = command(commands, "experiment", "a small experiment of the papers: figure, table, verdict", _conduct)
    study.add_argument("name", help="fig3, fig14, fig15, fig16, or all of them")
    study.add_argument("--profile", default="quick", help="how much work: smoke, quick (default) or paper")
    host_options(study)
    study.add_argument("--results", type=Path, default=Path("results"), help="results directory (default: results)")


def _conduct(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from offmarl.experiments.host import Host
    from offmarl.experiments.store import Store
    from offmarl.experiments.studies import conduct, studies
    from offmarl.reports.studies import write

    check_name("experiment", args.name, [*studies(), ALL])
    chosen = list(studies().values()) if args.name == ALL else [studies()[args.name]]
    check_name("profile", args.profile, chosen[0].profiles)
    if args.threads < 1:
        raise UserError("--threads: write a number of at least 1")
    host = Host(find_device(args.device), args.threads, args.tf32, args.eager)
    results = writable(args.results)
    for study in chosen:
        with tqdm(total=study.work(args.profile), desc=study.name, unit="update") as bar:
            record = conduct(study, args.profile, host, bar.update)
        name = f"{study.name}-{args.profile}"
        Store(results).write_measurement("experiment", name, record)
        out = write(results, name)
        print(out["text"])
        print("written: " + ", ".join(str(path) for path in out["paths"]))
    return 0
