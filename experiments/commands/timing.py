"""The commands that measure: `offmarl latency` and `offmarl bench`."""

import argparse
import json
import sys
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from offmarl.experiments.commands import options
from offmarl.experiments.errors import UserError
from offmarl.experiments.launch.workers import core_count

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Job, Request

FIRST = "the first of each group of the suite; all: every one"


def bench_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = options.examples(
        ("bench envs --tasks mpe/spread", "steps per second of a simulator, and of recording"),
        ("bench train --suite smac --tasks smac/3m", "seed-steps per second of every method"),
    )
    subjects = parser.add_subparsers(title="subjects", required=True, metavar="SUBJECT")
    text = "measure steps per second of every simulator and of recording its data"
    shown = ("bench envs --tasks mpe/spread", "one task"), ("bench envs --task my_task.py", "a task of your own")
    envs = options.subcommand(subjects, "envs", text, _bench_envs, *shown)
    envs.add_argument("--tasks", help="mpe/spread,mamujoco/2ant (default: all)")
    options.declare(envs, "--task")
    envs.add_argument("--seconds", type=float, default=2.0, help="of random steps on each task (default: 2)")
    text = "measure seed-steps per second of every method, and predict the time of the whole table"
    shown = ("bench train --suite smac --tasks smac/3m", "one task"), ("bench train --suite om2p --seeds 1,5", "")
    train = options.subcommand(subjects, "train", text, _bench_train, *shown)
    options.selection_options(train, profile="paper", tasks=FIRST)
    train.add_argument("--seeds", default="1,2,6", help="counts of seeds trained together (default: 1,2,6)")
    train.add_argument("--seconds", type=float, default=2.0, help="seconds of updates to time per row (default: 2)")
    options.declare(train, *options.HOST)


def latency_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = options.examples(
        ("latency --suite smac --tasks smac/3m", "milliseconds of a decision, at the papers' sizes"),
        ("latency --suite smac --scaling", "the same by the number of agents and denoising steps"),
    )
    options.selection_options(parser, profile="paper", tasks=FIRST)
    options.declare(parser, *options.DEVICE)
    parser.add_argument("--threads", default="1,all", help="CPU threads to measure with (default: 1,all)")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of decisions to time per row (default: 2)")
    text = "calls to time and extrapolate from where a denoising chain is too slow for --seconds (default: 8)"
    parser.add_argument("--calls", type=int, default=8, help=text)
    parser.add_argument("--scaling", action="store_true", help="time by number of agents and denoising steps")
    text = "seconds a decision may take in --scaling (default: 60)"
    parser.add_argument("--limit", type=float, default=60.0, help=text)
    parser.set_defaults(command=_latency)


def _bench_envs(args: argparse.Namespace) -> int:
    from offmarl.benchmarks import own
    from offmarl.experiments.timing.simulators import bench_envs

    _positive(args, "seconds")
    names = options.listed(args.tasks) or (list(own.registry()) if args.task_file else None)
    mine = [name for name in names or () if name in own.registry()]
    rest = [name for name in names if name not in mine] if names else None
    found = options.find_entries(rest) if rest or not mine else []
    print(bench_envs([*mine, *dict.fromkeys(recipe.task.name for recipe in found)], args.seconds))
    return 0


def _bench_train(args: argparse.Namespace) -> int:
    from offmarl.experiments.grid.jobs import jobs
    from offmarl.experiments.grid.suite import load_suite
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.timing import throughput
    from offmarl.experiments.training.machine import Host

    _positive(args, "seconds", "threads")
    counts = options.parse_seeds(args.seeds) or [1]
    if min(counts) < 1:
        raise UserError(f"--seeds {args.seeds}: here these are numbers of seeds, at least 1")
    device, store = options.find_device(args.device), Store(options.writable(args.results))
    modes = (True, False) if device.startswith("cuda") and not args.eager else (args.eager,)
    selected = _selected(args)
    library = options.matmul_of(args, device, args.threads, chain(*(grid for _, grid in selected)))
    hosts = [Host(device, args.threads, args.tf32, eager, matmul=library) for eager in modes]
    found, failures = [], []
    for asked, grid in selected:
        suite = load_suite(asked.suite)
        rows = throughput.rows_of(grid, counts, hosts, suite.bench, asked.overrides)
        records, failed = throughput.bench_train(rows, args.seconds, store)
        print(throughput.table(records))
        whole = jobs(replace(asked, tasks=None, seeds=None, overrides={}))
        print(f"\nAll of {suite.title} ({args.profile} profile, {len(whole)} jobs) on this device:")
        print("\n".join(throughput.projected(whole, records, suite.groups)))
        found, failures = found + records, failures + failed
    return _ended(found, failures)


def _latency(args: argparse.Namespace) -> int:
    from offmarl.experiments.grid.suite import load_suite
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.timing import latency, scaling
    from offmarl.experiments.training.machine import Host

    _positive(args, "seconds", "limit")
    if args.calls < 2:
        raise UserError(f"--calls {args.calls}: write a number of at least 2")
    device, store = options.find_device(args.device), Store(options.writable(args.results))
    counts = [1] if device.startswith("cuda") else _thread_counts(args.threads)
    selected = _played(_selected(args))
    library = options.matmul_of(args, device, counts[0], chain(*(grid for _, grid in selected)))
    hosts = [Host(device, threads, args.tf32, matmul=library) for threads in counts]
    rows, ratios, failures = [], [], []
    for asked, jobs in selected:
        suite = load_suite(asked.suite)
        if args.scaling:
            methods = list(dict.fromkeys(job.algorithm for job in jobs))
            found, failed = scaling.scaling(methods, hosts[0], args.seconds, args.limit, store)
            print(scaling.table(found, suite.scaling))
        else:
            found, failed = latency.latency(jobs, hosts, latency.Plan(args.seconds, args.calls), store, asked.overrides)
            compared = latency.ratios(found, suite.headline)
            print(latency.table(found), latency.ratio_table(compared, suite.headline), sep="\n")
            ratios += compared
        rows, failures = rows + found, failures + failed
    status = _ended(rows, failures)
    print(json.dumps({"suite": args.suite, "device": device, "rows": rows, "ratios": ratios, "failures": failures}))
    return status


def _selected(args: argparse.Namespace) -> "list[tuple[Request, list[Job]]]":
    """What is asked of every suite, and its jobs; with --scaling the methods whose growth a paper tells.

    Raises UserError where there are none.
    """
    from offmarl.experiments.grid.jobs import by_suite, jobs
    from offmarl.experiments.grid.suite import load_suite

    found, scaling = [], getattr(args, "scaling", False)
    tasks = None if args.tasks == "all" else options.listed(args.tasks)
    for asked in by_suite(options.request_of(args, tasks=tasks, seeds=[0])):
        suite = load_suite(asked.suite)
        first = None if args.tasks == "all" else [next(iter(group)) for group in suite.groups.values()]
        methods = asked.algorithms or (list(suite.scaling) if scaling else None)
        if methods != []:
            found.append((asked, jobs(replace(asked, tasks=asked.tasks or first, algorithms=methods))))
    if not found and scaling:
        raise UserError(f"--scaling: no paper states how methods of {args.suite} scale; name --algorithms")
    if not found:
        raise UserError(f"--algorithms {args.algorithms}: act in none of these tasks")
    return found


def _played(selected: "list[tuple[Request, list[Job]]]") -> "list[tuple[Request, list[Job]]]":
    """What is selected without the tasks that have no environment, whose decisions have nothing to be timed on.

    Raises UserError where nothing is left.
    """
    from offmarl.benchmarks.tasks import tasks

    left_out = dict.fromkeys(job.task for _, jobs in selected for job in jobs if not tasks()[job.task].played)
    if not left_out:
        return selected
    reason = f"{', '.join(left_out)}: has no environment, only data: nothing can be played, so no decision is timed"
    found = [(asked, [job for job in jobs if job.task not in left_out]) for asked, jobs in selected]
    if not any(jobs for _, jobs in found):
        raise UserError(reason)
    print(f"offmarl: {reason}", file=sys.stderr)
    return [(asked, jobs) for asked, jobs in found if jobs]


def _positive(args: argparse.Namespace, *options: str) -> None:
    for option in options:
        if getattr(args, option) <= 0:
            raise UserError(f"--{option} {getattr(args, option):g}: write a number above 0")


def _ended(found: list, failures: list[str]) -> int:
    """Print what could not be measured; return the exit code."""
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0 if found else 3


def _thread_counts(text: str) -> list[int]:
    try:
        counts = [core_count() if part == "all" else int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UserError(f"--threads {text}: write numbers and all, for example 1,all")
    return list(dict.fromkeys(counts))
