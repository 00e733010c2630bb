"""The command `offmarl select`: choosing a policy with no or few episodes."""

import argparse
import sys

from offmarl.experiments.commands import options
from offmarl.experiments.errors import UserError, check_name


def select_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = "What playing 0 to 100 episodes before choosing buys, among all policies that were trained."
    parser.epilog = options.examples(
        ("select --suite smac", "from the store alone; says what the pool lacks"),
        ("select --suite smac --budget 10", "the board in the order of ten episodes"),
        ("select --suite smac --source tuning", "the trials of `offmarl tune`"),
        ("select --suite om2p --train --jobs 2", "first train what the pool lacks: eight settings of each method"),
    )
    parser.add_argument("--suite", help=options.SUITES)
    parser.add_argument("--profile", default="quick", help="of the runs: smoke, quick (default), standard or paper")
    parser.add_argument("--source", help=f"{options.SOURCES}; tuning: what settings are chosen on")
    parser.add_argument("--algorithms", help="comma-separated methods (default: those of the suite)")
    options.method_file_option(parser)
    options.task_option(parser)
    parser.add_argument("--tasks", help="comma-separated tasks or datasets: smac/3m,smac/8m:good (default: all)")
    parser.add_argument("--budget", type=int, default=0, metavar="N", help="order the board by N episodes (default: 0)")
    parser.add_argument(
        "--train", action="store_true", help="train what the pool lacks first; the same command continues"
    )
    options.jobs_option(parser)
    options.host_options(parser)
    options.results_option(parser)
    parser.set_defaults(command=_select)


def _select(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import ALL_SOURCES
    from offmarl.experiments.grid.jobs import Request
    from offmarl.experiments.grid.suite import expand, profiles
    from offmarl.reports.selection.budgets import BUDGETS

    check_name("profile", args.profile, profiles())
    if args.budget not in BUDGETS:
        raise UserError(f"--budget {args.budget}: choose one of {', '.join(map(str, BUDGETS))}")
    results = options.writable(args.results) if args.train else options.existing(args.results)
    codes = []
    for suite in expand(args.suite):
        source = options.source_of(suite, args.source and check_name("source", args.source, ALL_SOURCES))
        asked = Request(suite, args.profile, source, options.listed(args.algorithms), options.listed(args.tasks))
        codes.append(_select_suite(args, asked, results))
    return max(codes)


def _select_suite(args: argparse.Namespace, asked, results) -> int:
    from offmarl.datasets.catalogue import EMBEDDED
    from offmarl.experiments.grid.suite import load_suite
    from offmarl.experiments.studies import selection
    from offmarl.reports.selection import board
    from offmarl.reports.selection.pool import pools

    jobs = selection.pool_jobs(asked)
    failures = _train(args, asked, jobs, results) if args.train else []
    records, gaps = selection.pool_records(asked, jobs, results)
    if not records:
        print(f"offmarl: {asked.suite}: the pool is empty; --train trains it, or `offmarl run` a part", file=sys.stderr)
        return 3
    found, rows = pools(records), []
    for number, pool in enumerate(found, 1):
        print(f"[{number}/{len(found)}] {pool.label}: {len(pool.policies)} policies", file=sys.stderr)
        rows += board.rows_of(pool)
    name = asked.suite if asked.source == EMBEDDED else f"{asked.suite}-{asked.source}"
    out = board.write(results, name, load_suite(asked.suite).title, found, rows, gaps, args.budget)
    print(out["text"])
    print("written: " + ", ".join(map(str, out["paths"])))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _train(args: argparse.Namespace, asked, jobs: list, results) -> list[str]:
    """Train what the pool lacks; the failures, one line each."""
    from offmarl.experiments.studies import selection, tuning
    from offmarl.experiments.training.machine import Host

    device = options.find_device(args.device)
    workers = min(options.workers_of(args, device), len(jobs))
    library = options.matmul_of(args, device, args.threads, jobs)
    host = Host(device, args.threads, args.tf32, args.eager, matmul=library)
    return tuning.train(jobs, asked.source, selection.pool_store(results, asked.source), host, workers)
