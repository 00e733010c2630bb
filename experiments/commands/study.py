"""The command `offmarl experiment`: the papers' other experiments, each with figure, table and verdict."""

import argparse

from offmarl.experiments.commands import options
from offmarl.experiments.errors import UserError, check_name


def experiment_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = options.examples(
        ("experiment list", "all of them by name"),
        ("experiment fig6,fig7", "figure, table, text and verdict of each"),
        ("experiment fig8 --tasks mamujoco/3hopper", "on these datasets instead of its own"),
        ("experiment all --profile smoke", "every one, in a few minutes"),
    )
    parser.add_argument("name", help="names with commas (fig3, …, fig16, om2p-fig2, …); list: show all names; all")
    parser.add_argument("--profile", default="quick", help="how much work: smoke, quick (default) or paper")
    parser.add_argument("--tasks", help="train on these datasets instead: task or task:quality, with commas")
    parser.add_argument("--source", default="embedded", help="of the suites' data: embedded (default), og_marl, …")
    options.jobs_option(parser)
    options.host_options(parser)
    options.again_option(parser)
    options.results_option(parser)
    parser.set_defaults(command=_experiment)


def _experiment(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import SOURCES
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.studies.comparisons import comparisons
    from offmarl.experiments.studies.toy_games import toy_games
    from offmarl.experiments.training.machine import Host
    from offmarl.reports.site.boards import slug
    from offmarl.reports.studies import write

    known = {**toy_games(), **comparisons()}
    if args.name == "list":
        print("\n".join(f"{name:10} {study.title}" for name, study in known.items()))
        return 0
    names = list(known) if args.name == "all" else args.name.split(",")
    tasks = [] if args.tasks is None else args.tasks.split(",")
    for name in names:
        check_name("profile", args.profile, known[check_name("experiment", name, [*known, "list", "all"])].profiles)
    check_name("source", args.source, SOURCES)
    if args.tasks is not None:
        if games := [name for name in names if name not in comparisons()]:
            raise UserError(f"--tasks: {', '.join(games)}: small games, which have no tasks; leave the option out")
        known |= {name: comparisons()[name].on(args.profile, tasks) for name in names}
    device = options.find_device(args.device)
    workers = options.workers_of(args, device)
    trained = [known[name].jobs(args.profile, args.source) for name in names if name in comparisons()]
    jobs = [job for arms in trained for of_arm in arms.values() for job in of_arm]
    library = options.matmul_of(args, device, args.threads, jobs)
    host = Host(device, args.threads, args.tf32, args.eager, matmul=library)
    results, verdicts = options.writable(args.results), []
    for name in names:
        record = known[name].run(args.profile, args.source, host, results, workers, args.again)
        stored = "-".join([name, args.profile, *([args.source] if args.source != "embedded" else [])])
        stored = slug(stored, *tasks)
        Store(results).write_measurement("experiment", stored, {"study": name, **record})
        out = write(results, stored)
        verdicts.append(f"{name:10} {out['verdict']:14} {known[name].title}")
        print(out["text"])
        print("written: " + ", ".join(str(path) for path in out["paths"]) + "\n")
    if len(names) > 1:
        print("\n".join(verdicts))
    return 0
