"""The commands `offmarl experiment`, the papers' other experiments, and `offmarl tune`, settings with equal budgets."""

import argparse
from itertools import chain
from pathlib import Path

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
    options.declare(parser, "--profile")
    parser.add_argument("--tasks", help="train on these datasets instead: task or task:quality, with commas")
    parser.add_argument("--source", default="embedded", help="of the suites' data: embedded (default), og_marl, …")
    options.declare(parser, *options.TRAINING, "--again", "--results")
    parser.set_defaults(command=_experiment)


def tune_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = "Try eight combinations of settings of every method on datasets that are in no table."
    parser.epilog = options.examples(
        ("tune --suite smac --dry-run", "trials and estimated time"),
        ("tune --suite all --jobs 2", "all of it; run the same command again to resume"),
        ("tune --suite smac --algorithms bc,mac_flow --families smac", "a part of it"),
        ("tune --show", "what tuning brought each method"),
    )
    options.declare(parser, "--suite", default="all", help=f"{options.SUITES} (default: all)")
    options.declare(parser, "--profile", "--algorithms", *options.METHOD_FILE)
    parser.add_argument("--families", help="smac,smacv2,mamujoco,mpe (default: those of the suite)")
    text = "what was chosen is written there (default: the package's own, which the variant `tuned` trains)"
    parser.add_argument("--file", type=Path, metavar="FILE", help=text)
    parser.add_argument("--show", action="store_true", help="print what tuning brought each method, and stop")
    options.declare(parser, "--dry-run", *options.TRAINING, "--results")
    parser.set_defaults(command=_tune)


def _tune(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import TUNING
    from offmarl.experiments.grid import tuned
    from offmarl.experiments.launch.serial import train_pending
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.studies import tuning
    from offmarl.reports.tables.tuning import text

    if args.file and args.show and not args.file.is_file():
        raise UserError(f"--file {args.file}: there is no such file; `offmarl tune` writes it")
    if args.show:
        print(text(tuning.listing(tuned.choices(args.file))))
        return 0
    file = args.file or tuned.own_file()
    known = tuned.choices(file) if file.is_file() else {}
    asked = tuning.searches(args.suite, args.profile, options.listed(args.algorithms), options.listed(args.families))
    found = [search for search in asked if not tuning.is_settled(search, known)]
    if args.profile == "smoke" and not args.file and not args.dry_run:
        raise UserError("--profile smoke: too short to compare settings; write what it chooses to a separate --file")
    if not found:
        print(f"{file} has all of these searches, by the code of today; `offmarl tune --show` prints it")
        return 0
    host, workers = options.host_of(args, jobs := tuning.unique(found))
    workers = min(workers, len(jobs))
    store = Store(options.writable(args.results) / "tuning")
    if args.dry_run:
        from offmarl.experiments.timing.throughput import dry_run

        print(dry_run(*tuning.planned(found, store), host, workers))
        return 0
    options.new_file(file, "--file")
    try:
        failures, _ = train_pending(jobs, TUNING, store, host, workers, again=True)
    finally:  # Ctrl-C too leaves what is complete
        chosen = [(search, choice) for search in found if (choice := tuning.choose(search, store))]
        tuning.write(file, chosen)
    print(text(tuning.listing(tuned.choices(file))))
    print(f"\nwritten: {file}: {len(asked) - len(found) + len(chosen)} of {len(asked)} searches are complete")
    return options.exit_code(failures)


def _experiment(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import SOURCES
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.studies.comparisons import Comparison, comparisons
    from offmarl.experiments.studies.toy_games import toy_games
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
    trained = [study for name in names if isinstance(study := known[name], Comparison)]
    arms = [arm for study in trained for arm in study.jobs(args.profile, args.source).values()]
    host, workers = options.host_of(args, chain(*arms))
    results, verdicts, failures = options.writable(args.results), [], []
    for name in names:
        record = known[name].run(args.profile, args.source, host, results, workers, args.again)
        stored = "-".join([name, args.profile, *([args.source] if args.source != "embedded" else [])])
        stored = slug(stored, *tasks)
        Store(results).write_measurement("experiment", stored, {"study": name, **record})
        out = write(results, stored)
        failures += record.get("failures", [])  # a small game has none
        verdicts.append(f"{name:10} {out['verdict']:14} {known[name].title}")
        print(out["text"])
        print("written: " + ", ".join(str(path) for path in out["paths"]) + "\n")
    if len(names) > 1:
        print("\n".join(verdicts))
    return options.exit_code(failures)
