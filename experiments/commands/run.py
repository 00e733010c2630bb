"""The command `offmarl run`: train and evaluate the pending cells of a suite, then report."""

import argparse
import sys
from typing import TYPE_CHECKING

from offmarl.experiments.commands import options
from offmarl.experiments.errors import UserError

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Request


MOST_REPLAYS = 20  # of a run


def run_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = options.examples(
        ("run --suite smac", "Table 1, quick profile, everything on this machine"),
        ("run --suite smac --profile smoke", "two maps in four minutes"),
        ("run --suite smac --tasks smac/3m,smac/8m:good --algorithms my_method,bc --method-file my_method.py", ""),
        ("run --task my_task.py", "a task of your own, on all its datasets, every method that acts there"),
    )
    options.selection_options(parser, profile="quick", tasks="all of the suite")
    options.declare(parser, "--source", "--seeds")
    text = "updates for every method, added to the variant's name (default: the profile's)"
    parser.add_argument("--steps", type=int, metavar="N", help=text)
    options.declare(parser, "--data-fraction", *options.TRAINING, "--again", "--dry-run")
    text = "the same bits from the same seed on the same machine; slower"
    parser.add_argument("--deterministic", action="store_true", help=text)
    text = "episodes of the last evaluation that each run keeps to be watched, from worst to best; 0: none (default: 3)"
    parser.add_argument("--replays", type=int, default=3, metavar="N", help=text)
    parser.add_argument("--log", default=None, help="write curves there too: tensorboard")
    parser.set_defaults(command=_run)


def _run(args: argparse.Namespace) -> int:
    from offmarl.experiments.commands.report import print_report
    from offmarl.experiments.commands.status import note_grid
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.grid.code import treat_stale, why_stale
    from offmarl.experiments.grid.suite import expand
    from offmarl.experiments.launch.prepare_data import prepare, writable_cache
    from offmarl.experiments.launch.serial import largest_first, launch
    from offmarl.experiments.launch.workers import bounded_by_games, check_cluster
    from offmarl.experiments.store.leftovers import clear_leftovers
    from offmarl.experiments.store.store import Store
    from offmarl.reports.records.reader import Records

    _check(args)
    request = options.request_of(
        args, source=args.source, seeds=options.parse_seeds(args.seeds), steps=args.steps, data_share=args.data_fraction
    )
    if not (jobs := grid.jobs(request)):
        print("offmarl: nothing to run: no dataset of this selection is available here", file=sys.stderr)
        _print_unavailable(request)
        return 3
    host, workers = options.host_of(args, jobs, deterministic=args.deterministic, replays=args.replays)
    workers = bounded_by_games(min(workers, len(jobs)), jobs)
    results = options.writable(args.results)
    if not args.dry_run:
        clear_leftovers(results)
    store = Store(results)
    runs = grid.stored(jobs, store)
    treat_stale(store, runs, again=args.again and not args.dry_run)
    left = grid.left(jobs, runs)
    if args.dry_run:
        from offmarl.experiments.timing.throughput import dry_run

        print(dry_run(jobs, left, host, workers))
        _print_unavailable(request)
        return 0
    check_cluster(min(workers, len(left)))
    if any(job.entry.card() is None for job in left):
        writable_cache()  # before anything is written
    note_grid(results, request, jobs)
    for fault in prepare([job.entry.recorded for job in left], request.source, min(workers, 2)):
        print(f"offmarl: {fault}", file=sys.stderr)  # its jobs fail, and the table says why
    failures = launch(largest_first(left), results, host, workers)
    if args.log:
        from offmarl.experiments.store import loggers

        loggers.write(results, [run_id for job in jobs for run_id in job.run_ids()])
    records = Records.read(results, why_stale)
    for suite in expand(args.suite):
        print_report(records, suite, args.profile, request.source)
    code = options.exit_code(failures)
    _print_unavailable(request)
    return code


def _check(args: argparse.Namespace) -> None:
    """Refuse options that exclude each other or make no sense, before anything is read."""
    if args.steps is not None and args.steps < 1:
        raise UserError(f"--steps {args.steps}: write a number of updates of at least 1")
    if not 0 <= args.replays <= MOST_REPLAYS:
        raise UserError(f"--replays {args.replays}: write a number from 0 to {MOST_REPLAYS}")
    options.data_share(args)
    if args.method_file and args.algorithms is None:
        raise UserError("--method-file: also name the methods to run, for example --algorithms my_method,mac_flow")
    if args.log:
        from offmarl.experiments.store import loggers

        loggers.check(args.log)
    if args.deterministic and args.tf32:
        raise UserError("--deterministic and --tf32: TF32 rounds products; use one of them")


def _print_unavailable(request: "Request") -> None:
    """Print the datasets of the selection that are unavailable here: each reason once, with its datasets."""
    from offmarl.experiments.grid.jobs import unavailable

    by_reason: dict[str, dict[str, list[str]]] = {}
    for name, reason in unavailable(request).items():
        task, quality = name.split(":")
        by_reason.setdefault(reason, {}).setdefault(task, []).append(quality)
    for reason, datasets in by_reason.items():
        names = ", ".join(f"{task} ({', '.join(qualities)})" for task, qualities in datasets.items())
        print(f"not available: {names}: {reason}", file=sys.stderr)
