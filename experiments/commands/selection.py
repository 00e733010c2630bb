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


REPLAYS = 3  # that `judge` keeps of each policy
JOBS = "trainings at once, and processes of offline selectors; 1 trains without Ray (default: cores)"


def select_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = "Estimate the return of the trained policy you would choose after playing 0 to 100 episodes."
    parser.epilog = options.examples(
        ("select --suite smac --budget 10", "the board in the order of ten episodes; says what the pool lacks"),
        ("select --suite smac --source tuning --offline", "of the trials of `tune`; which selector needs no episode"),
        ("select --suite om2p --train --jobs 2", "first train what the pool lacks: eight settings of each method"),
        ("select --suite smac --reference", "among the runs of the results that ship with offmarl"),
    )
    options.declare(parser, "--suite")
    parser.add_argument("--profile", help="of the runs: smoke, quick (default), standard or paper")
    options.declare(parser, "--source", help=f"{options.SOURCES}; or tuning (the datasets of `tune`)")
    options.declare(parser, "--algorithms", *options.METHOD_FILE, "--task", "--tasks", "--seeds")
    parser.add_argument("--budget", type=int, default=0, metavar="N", help="order the board by N episodes (default: 0)")
    text = "use policies trained on this share of the episodes; the others serve to judge them: 0.9 (default: 1)"
    options.declare(parser, "--data-fraction", help=text)
    text = "also run offline selectors: agreement with the data, critics, fitted Q evaluation; takes minutes"
    parser.add_argument("--offline", action="store_true", help=text)
    text = "train what the pool lacks first; run the same command again to resume"
    parser.add_argument("--train", action="store_true", help=text)
    options.declare(parser, "--dry-run", help="print the estimated time and disk of --train, and stop")
    text = "also include the results that ship with offmarl (profile standard); most without their policies"
    parser.add_argument("--reference", action="store_true", help=text)
    options.declare(parser, "--jobs", help=JOBS)
    options.declare(parser, *options.HOST, "--results")
    parser.set_defaults(command=_select)


def _select(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import ALL_SOURCES
    from offmarl.experiments.grid.jobs import Request
    from offmarl.experiments.grid.suite import REFERENCE, profiles
    from offmarl.experiments.studies import selection
    from offmarl.reports.selection.budgets import BUDGETS

    profile = check_name("profile", args.profile or (REFERENCE if args.reference else "quick"), profiles())
    if args.budget not in BUDGETS:
        raise UserError(f"--budget {args.budget}: choose one of {', '.join(map(str, BUDGETS))}")
    if args.reference and args.offline:
        raise UserError("--reference and --offline: most policies of the reference do not ship; leave one out")
    makes = args.train or args.reference or args.dry_run
    results = options.writable(args.results) if makes else options.existing(args.results)
    source = options.source_of(args.suite, args.source and check_name("source", args.source, ALL_SOURCES))
    methods, names = options.listed(args.algorithms), options.listed(args.tasks)
    seeds, share = options.parse_seeds(args.seeds), options.data_share(args)
    asked = selection.by_suite(Request(args.suite, profile, source, methods, names, seeds, data_share=share))
    if args.dry_run:
        return _dry_run(args, asked, results)
    return max(_select_suite(args, one, results) for one in asked)


def _dry_run(args: argparse.Namespace, asked: "list[Request]", results: Path) -> int:
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.studies import selection
    from offmarl.experiments.timing.throughput import dry_run

    pools = [(selection.pool_jobs(one), selection.pool_store(results, one.source)) for one in asked]
    jobs = [job for own, _ in pools for job in own]
    left = [job for own, store in pools for job in grid.pending(own, store)]
    host, workers = options.host_of(args, jobs)
    shown, pending = ([replace(job, variant="all trials") for job in own] for own in (jobs, left))
    print(dry_run(shown, pending, host, workers))
    return 0


def _select_suite(args: argparse.Namespace, asked: "Request", results: Path) -> int:
    from offmarl.datasets.catalogue import EMBEDDED
    from offmarl.experiments.grid.suite import load_suite
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.studies import selection
    from offmarl.reports.selection import board
    from offmarl.reports.selection.pool import pools

    jobs = selection.pool_jobs(asked)
    store = selection.pool_store(results, asked.source)
    failures = _train(args, asked, jobs, store) if args.train else []
    records, gaps = selection.pool_records(asked, jobs, results, args.reference)
    if not records:
        print(f"offmarl: {asked.suite}: no policies yet; --train trains them, `offmarl run` a part", file=sys.stderr)
        return 3
    found, rows = pools(records), []
    for number, pool in enumerate(found, 1):
        print(f"[{number}/{len(found)}] {pool.label}: {board.counted_once(pool)}", file=sys.stderr)
        rows += board.rows_of(pool)
    runs = {record["run_id"]: record["finished"] for record in records}
    offline = _offline(asked, found, records, results, options.processes_of(args)) if args.offline else ""
    title = " – ".join(filter(None, [load_suite(asked.suite).title, _part(asked)]))
    root = results / "reference" if args.reference else results
    text = board.markdown(title, found, rows, gaps, args.budget, offline)
    share = "" if asked.data_share == 1 else f"-data={asked.data_share!r}"
    name = (asked.suite if asked.source == EMBEDDED else f"{asked.suite}-{asked.source}") + share
    paths = board.write(root / "reports" / name, text, rows)
    counted = {f"{pool.task}:{pool.quality}:{pool.source}": board.counted_once(pool) for pool in found}
    facts = {name: getattr(asked, name) for name in ("suite", "profile", "source", "data_share")}
    facts |= {"title": title, "rows": rows, "pools": counted, "missing": gaps, "runs": runs}
    Store(root).write_measurement("select", _name(asked), facts)
    print(text)
    print("written: " + ", ".join(map(str, paths)))
    return options.exit_code(failures)


def _offline(asked: "Request", found: list, records: list, results: Path, jobs: int) -> str:
    """What selectors that need no episode say of the pools, and how far they can be trusted, which `judge` goes by."""
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.studies import selection, selectors
    from offmarl.reports.selection import offline, trust

    by_id, known, answers = {record["run_id"]: record for record in records}, offline.measured(results), []
    for number, pool in enumerate(found, 1):
        print(f"[{number}/{len(found)}] {pool.label}: running offline selectors", file=sys.stderr)
        own = {policy.run_id: by_id[policy.run_id] for policy in pool.policies}
        made = selectors.code(), {run_id: run["finished"] for run_id, run in own.items()}
        record = next((one for one in known if (one["code"], one["runs"]) == made), None)
        if record is None:
            places = selection.folders(asked, list(own), results)
            record = selectors.measure(places, own, asked.data_share, jobs)
            name = f"{pool.task}-{pool.quality}-{asked.source}-{asked.profile}-{asked.data_share!r}"
            Store(results).write_measurement("selectors", name, record)
        answers.append((pool, record))
    scores = offline.scored((pool, record["selectors"]) for pool, record in answers)
    judged, held_out = offline.judge(scores), all(record["held_out"] for _, record in answers)
    without = {dataset: _plain(own) for dataset, own in offline.judge_without_each(scores).items()}
    facts = {"profile": asked.profile, "source": asked.source, "share": asked.data_share, "held_out": held_out}
    facts |= {"runs": {run_id: run["finished"] for run_id, run in by_id.items()}}
    Store(results).write_measurement("trust", _name(asked), facts | {"judged": _plain(judged), "without": without})
    return trust.markdown(judged, held_out)


def _plain(judged: list) -> list[dict]:
    return [one._asdict() for one in judged]


def _name(asked: "Request") -> str:
    """Of the measurements of a pool; those of a part of it replace no more than themselves."""
    whole = f"{asked.suite}-{asked.source}-{asked.profile}-{asked.data_share!r}"
    return "-".join(filter(None, [whole, _part(asked)]))


def _part(asked: "Request") -> str:
    """The methods, datasets and seeds that were asked for, where these are not all."""
    seeds = f"seeds {', '.join(map(str, asked.seeds))}" if asked.seeds else ""
    return "; ".join(filter(None, [", ".join(asked.algorithms or ()), ", ".join(asked.tasks or ()), seeds]))


def _train(args: argparse.Namespace, asked: "Request", jobs: list, store: "Store", replays: int = 0) -> list[str]:
    """Train what a store lacks; the failures, one line each."""
    from offmarl.experiments.launch.serial import train_pending

    host, workers = options.host_of(args, jobs, replays=replays)
    return train_pending(jobs, asked.source, store, host, workers, again=True)[0]


def judge_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = "Train methods on 90 % of one dataset and choose a policy offline, without played returns."
    parser.epilog = options.examples(
        ("judge mpe/spread:expert", "a page with replays, and the policy's file"),
        ("judge smac/3m:good --algorithms bc,mac_flow --jobs 2", "of these methods"),
        ("judge lbf/8x8:mine --task lbf.py", "on data of your own"),
    )
    parser.add_argument("dataset", help="smac/3m:good")
    options.declare(parser, "--profile", "--source", "--algorithms", *options.METHOD_FILE, "--task")
    options.declare(parser, "--jobs", help=JOBS)
    options.declare(parser, *options.HOST, "--results")
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
    from offmarl.reports.site.verdict import write as write_page

    check_name("profile", args.profile, profiles())
    asked = selection.on_one(args.dataset, args.profile, options.data_source(args))
    asked = replace(asked, algorithms=options.listed(args.algorithms))
    results = options.writable(args.results)
    store, jobs = Store(results / "judge"), grid.jobs(asked)
    if not jobs:
        raise UserError(f"{args.dataset}: {'; '.join(grid.unavailable(asked).values()) or 'no method acts there'}")
    failures = _train(args, asked, jobs, store, REPLAYS)
    records = selection.finished(store, jobs)
    if not records:
        print(f"offmarl: {args.dataset}: nothing was trained to the end: {'; '.join(failures)}", file=sys.stderr)
        return 1
    (pool,), entry = pools(records.values()), options.find_entries([args.dataset], asked.source)[0]
    folders = {run_id: store.runs / run_id for run_id in records}
    measured = selectors.measure(folders, records, asked.data_share, options.processes_of(args))
    more = "".join(f" --task {file}" for file in args.task_file)
    more += "".join(f" --method-file {file}" for file in args.method_file)
    split = asked.data_share, measured["seen"], measured["held_out"]
    facts = verdict.Asked(asked.suite, asked.profile, *split, store.root, more, entry.task.played)
    lost = [run_id for job in jobs for run_id in job.run_ids() if run_id not in records]
    trusted = verdict.evidence(results, asked.profile, asked.data_share, asked.source, args.dataset)
    shown = verdict.facts(pool, measured["selectors"], trusted, measures(entry, *entry.load()), facts, lost)
    page = results / "reports" / "judge" / f"{args.dataset}-{asked.source}.md".replace("/", "-").replace(":", "-")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, text := verdict.markdown(shown))
    as_html = page.with_suffix(".html")
    write_page(as_html, shown, store.root)
    print(f"{text}\nwritten: {page}, {as_html}")
    return options.exit_code(failures)
