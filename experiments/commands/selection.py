"""The commands `offmarl select`, choosing a policy with no or few episodes, and `offmarl judge`, on one dataset."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from offmarl.experiments.commands import options
from offmarl.experiments.errors import UserError, check_name

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Request
    from offmarl.experiments.store.store import Store


def select_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = "What playing 0 to 100 episodes before choosing buys, among all policies that were trained."
    parser.epilog = options.examples(
        ("select --suite smac", "from the store alone; says what the pool lacks"),
        ("select --suite smac --budget 10", "the board in the order of ten episodes"),
        ("select --suite smac --source tuning --offline", "of the trials of `tune`; which selector needs no episode"),
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
    text = "of policies trained on a share of the episodes (0.9), so that the others can judge them (default: 1)"
    parser.add_argument("--data-fraction", type=float, default=1.0, metavar="SHARE", help=text)
    text = "also ask what data alone say of each policy: agreement, critics, fitted Q evaluation; takes minutes"
    parser.add_argument("--offline", action="store_true", help=text)
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
    share = options.data_share(args)
    results = options.writable(args.results) if args.train else options.existing(args.results)
    codes = []
    for suite in expand(args.suite):
        source = options.source_of(suite, args.source and check_name("source", args.source, ALL_SOURCES))
        methods, names = options.listed(args.algorithms), options.listed(args.tasks)
        asked = Request(suite, args.profile, source, methods, names, data_share=share)
        codes.append(_select_suite(args, asked, results))
    return max(codes)


def _select_suite(args: argparse.Namespace, asked: "Request", results: Path) -> int:
    from offmarl.datasets.catalogue import EMBEDDED
    from offmarl.experiments.grid.suite import load_suite
    from offmarl.experiments.studies import selection
    from offmarl.reports.selection import board
    from offmarl.reports.selection.pool import pools

    jobs = selection.pool_jobs(asked)
    store = selection.pool_store(results, asked.source)
    failures = _train(args, asked, jobs, store) if args.train else []
    records, gaps = selection.pool_records(asked, jobs, results)
    if not records:
        print(f"offmarl: {asked.suite}: the pool is empty; --train trains it, or `offmarl run` a part", file=sys.stderr)
        return 3
    found, rows = pools(records), []
    for number, pool in enumerate(found, 1):
        print(f"[{number}/{len(found)}] {pool.label}: {len(pool.policies)} policies", file=sys.stderr)
        rows += board.rows_of(pool)
    said = _offline(asked, found, records, results) if args.offline else ""
    text = board.markdown(load_suite(asked.suite).title, found, rows, gaps, args.budget, said)
    share = "" if asked.data_share == 1 else f"-data={asked.data_share!r}"
    name = (asked.suite if asked.source == EMBEDDED else f"{asked.suite}-{asked.source}") + share
    paths = board.write(results / "reports" / name, text, rows)
    print(text)
    print("written: " + ", ".join(map(str, paths)))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _offline(asked: "Request", found: list, records: list, results: Path) -> str:
    """What selectors that need no episode say of the pools, and how far they can be trusted, which `judge` goes by."""
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.studies import selection, selectors
    from offmarl.reports.selection import offline

    by_id, known, answers = {record["run_id"]: record for record in records}, offline.measured(results), []
    for number, pool in enumerate(found, 1):
        print(f"[{number}/{len(found)}] {pool.label}: asking the data", file=sys.stderr)
        own = {policy.run_id: by_id[policy.run_id] for policy in pool.policies}
        record = next((one for one in known if one["runs"] == sorted(own)), None)
        if record is None:
            record = selectors.measure(selection.folders(asked, list(own), results), own, asked.data_share)
            name = f"{pool.task}-{pool.quality}-{asked.source}-{asked.profile}-{asked.data_share!r}"
            Store(results).write_measurement("selectors", name, record)
        answers.append((pool, record))
    judged = offline.judge(answers)
    name = f"{asked.suite}-{asked.source}-{asked.profile}-{asked.data_share!r}"
    Store(results).write_measurement(
        "trust", name, {"profile": asked.profile, "judged": [one._asdict() for one in judged]}
    )
    return offline.markdown(judged, all(record["held_out"] for _, record in answers))


def _train(args: argparse.Namespace, asked: "Request", jobs: list, store: "Store") -> list[str]:
    """Train what a store lacks; the failures, one line each."""
    from offmarl.experiments.studies import tuning

    device = options.find_device(args.device)
    workers = min(options.workers_of(args, device), len(jobs))
    return tuning.train(jobs, asked.source, store, options.host_of(args, device, jobs), workers)


def judge_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = "Train methods on nine tenths of one dataset, and say which policy to take without playing."
    parser.epilog = options.examples(
        ("judge mpe/spread:expert", "the page, and the policy's file"),
        ("judge smac/3m:good --algorithms bc,mac_flow --jobs 2", "of these methods"),
        ("judge lbf/8x8:mine --task lbf.py", "on data of your own"),
    )
    parser.add_argument("dataset", help="smac/3m:good")
    parser.add_argument("--profile", default="quick", help="how much work: smoke, quick (default), standard or paper")
    parser.add_argument("--source", help=options.SOURCES)
    parser.add_argument("--algorithms", help="comma-separated methods (default: those of the dataset's suite)")
    options.method_file_option(parser)
    options.task_option(parser)
    options.jobs_option(parser)
    options.host_options(parser)
    options.results_option(parser)
    parser.set_defaults(command=_judge)


def _judge(args: argparse.Namespace) -> int:
    from offmarl.datasets.measures.measure import measures
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.grid.suite import profiles
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.studies import selection, selectors
    from offmarl.reports.records.files import write_text
    from offmarl.reports.selection import verdict
    from offmarl.reports.selection.pool import pools

    check_name("profile", args.profile, profiles())
    asked = selection.on_one(args.dataset, args.profile, args.source or ("own" if args.task_file else "embedded"))
    asked = replace(asked, algorithms=options.listed(args.algorithms))
    results = options.writable(args.results)
    store, jobs = Store(results / "judge"), grid.jobs(asked)
    if not jobs:
        raise UserError(f"{args.dataset}: {'; '.join(grid.unavailable(asked).values()) or 'no method acts there'}")
    failures = _train(args, asked, jobs, store)
    records = selection.finished(store, jobs)
    if not records:
        print(f"offmarl: {args.dataset}: nothing was trained to the end: {'; '.join(failures)}", file=sys.stderr)
        return 1
    (pool,), entry = pools(records.values()), options.find_entries([args.dataset], asked.source)[0]
    folders = {run_id: store.runs / run_id for run_id in records}
    said = selectors.measure(folders, records, asked.data_share)["selectors"]
    by = verdict.evidence(results, entry.task.family, asked.profile)
    text = verdict.markdown(pool, said, by, measures(entry, *entry.load()), folders, asked.suite)
    page = results / "reports" / "judge" / f"{args.dataset}-{asked.source}.md".replace("/", "-").replace(":", "-")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, text)
    print(f"{text}\nwritten: {page}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0
