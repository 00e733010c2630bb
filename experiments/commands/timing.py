"""The commands that measure: `offmarl latency` and `offmarl bench`."""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial

from offmarl.experiments.commands.options import (
    SUITES,
    VARIANT,
    device_options,
    examples,
    find_device,
    find_recipes,
    host_options,
    listed,
    method_file_option,
    parse_seeds,
    results_option,
    subcommand,
    writable,
)
from offmarl.experiments.errors import UserError
from offmarl.experiments.launch.workers import core_count


def bench_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(
        ("bench envs --tasks mpe/spread", "steps per second of a simulator, and of recording"),
        ("bench train --suite smac --tasks smac/3m", "seed-steps per second of every method"),
    )
    subjects = parser.add_subparsers(title="subjects", required=True, metavar="SUBJECT")
    text = "measure steps per second of every simulator and of recording its data"
    envs = subcommand(subjects, "envs", text, _bench_envs, ("bench envs --tasks mpe/spread", "one task"))
    envs.add_argument("--tasks", help="mpe/spread,mamujoco/2ant (default: all)")
    envs.add_argument("--seconds", type=float, default=2.0, help="of random steps on each task (default: 2)")
    text = "measure seed-steps per second of every method, and hours of the whole table"
    shown = ("bench train --suite smac --tasks smac/3m", "one task"), ("bench train --suite om2p --seeds 1,5", "")
    train = subcommand(subjects, "train", text, _bench_train, *shown)
    _selection_options(train)
    train.add_argument("--seeds", default="1,2,6", help="how many train in lock step (default: 1,2,6)")
    train.add_argument("--seconds", type=float, default=2.0, help="of updates for each row (default: 2)")
    host_options(train)


def latency_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(
        ("latency --suite smac --tasks smac/3m", "milliseconds of a decision, at the papers' sizes"),
        ("latency --suite smac --scaling", "the same by the number of agents and denoising steps"),
    )
    _selection_options(parser)
    device_options(parser)
    parser.add_argument("--threads", default="1,all", help="CPU threads to measure with (default: 1,all)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of decisions for each row (default: 2)")
    text = "of a denoising chain too slow for that, from which to extrapolate (8)"
    parser.add_argument("--calls", type=int, default=8, help=text)
    parser.add_argument("--scaling", action="store_true", help="instead: by the number of agents and denoising steps")
    text = "seconds a decision may take in --scaling (default: 60)"
    parser.add_argument("--limit", type=float, default=60.0, help=text)
    parser.set_defaults(command=_latency)


def _selection_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--suite", required=True, help=SUITES)
    options.add_argument("--profile", default="paper", help="whose network sizes: smoke, quick or paper (default)")
    options.add_argument("--algorithms", help="comma-separated methods (default: those of the suite)")
    method_file_option(options)
    options.add_argument("--tasks", help="comma-separated tasks (default: the first of each of the suite's groups)")
    options.add_argument("--variant", help=VARIANT)
    options.add_argument("--set", action="append", default=[], metavar="METHOD.KEY=VALUE", help="change a setting")
    results_option(options)


def _bench_envs(args: argparse.Namespace) -> int:
    from offmarl.experiments.timing.simulators import bench_envs

    _positive(args, "seconds")
    found = dict.fromkeys(recipe.task.name for recipe in find_recipes(listed(args.tasks)))
    print(bench_envs(list(found), args.seconds))
    return 0


def _bench_train(args: argparse.Namespace) -> int:
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.timing import throughput as pace
    from offmarl.experiments.training.machine import Host

    _positive(args, "seconds", "threads")
    counts = parse_seeds(args.seeds) or [1]
    if min(counts) < 1:
        raise UserError(f"--seeds {args.seeds}: here these are numbers of seeds, at least 1")
    device, store = find_device(args.device), Store(writable(args.results))
    modes = (True, False) if device.startswith("cuda") and not args.eager else (args.eager,)
    hosts = [Host(device, args.threads, args.tf32, eager) for eager in modes]
    found, failures = [], []
    for suite in grid.expand(args.suite):
        facts = grid.load_suite(suite)
        rows = pace.rows_of(_selected(args, suite, args.algorithms), counts, hosts, facts.get("bench", {}))
        records, lost = pace.bench_train(rows, args.seconds, store, _bar(suite))
        print(pace.table(records))
        whole = grid.jobs(grid.Request(suite, args.profile, algorithms=listed(args.algorithms), variant=args.variant))
        print(f"\nAll of {facts['title']} ({args.profile} profile, {len(whole)} trainings) on this device:")
        print("\n".join(pace.projected(whole, records, facts["groups"])))
        found, failures = found + records, failures + lost
    return _ended(found, failures)


def _latency(args: argparse.Namespace) -> int:
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.timing import latency, scaling
    from offmarl.experiments.training.machine import Host

    _positive(args, "seconds", "limit")
    if args.calls < 2:
        raise UserError(f"--calls {args.calls}: write a number of at least 2")
    device, store = find_device(args.device), Store(writable(args.results))
    counts = [1] if device.startswith("cuda") else _thread_counts(args.threads)
    hosts = [Host(device, threads, args.tf32) for threads in counts]
    suites = {name: grid.load_suite(name) for name in grid.expand(args.suite)}
    if args.scaling and not args.algorithms:
        suites = {name: facts for name, facts in suites.items() if "scaling" in facts}
        if not suites:
            raise UserError(
                f"--scaling: no paper says how the methods of {args.suite} grow; name some with --algorithms"
            )
    rows, ratios, failures = [], [], []
    for suite, facts in suites.items():
        orders, reference = facts.get("scaling", {}), facts["headline"]
        jobs = _selected(args, suite, args.algorithms or (",".join(orders) if args.scaling else None))
        if args.scaling:
            methods = list(dict.fromkeys(job.algorithm for job in jobs))
            found, lost = scaling.scaling(methods, hosts[0], args.seconds, args.limit, store, _bar(suite))
            print(scaling.table(found, orders))
        else:
            found, lost = latency.latency(jobs, hosts, latency.Plan(args.seconds, args.calls), store, _bar(suite))
            compared = latency.ratios(found, reference)
            print(latency.table(found), latency.ratio_table(compared, reference), sep="\n")
            ratios += compared
        rows, failures = rows + found, failures + lost
    status = _ended(rows, failures)
    print(json.dumps({"suite": args.suite, "device": device, "rows": rows, "ratios": ratios, "failures": failures}))
    return status


def _selected(args: argparse.Namespace, suite: str, algorithms: str | None) -> list:
    """The jobs of a suite that a measurement is about."""
    from offmarl.experiments.grid import jobs as grid

    firsts = [next(iter(group)) for group in grid.load_suite(suite)["groups"].values()]
    return grid.jobs(
        grid.Request(
            suite=suite,
            profile=args.profile,
            algorithms=listed(algorithms),
            tasks=listed(args.tasks) or firsts,
            seeds=[0],
            variant=args.variant,
            overrides=args.set,
        )
    )


def _positive(args: argparse.Namespace, *options: str) -> None:
    for option in options:
        if getattr(args, option) <= 0:
            raise UserError(f"--{option} {getattr(args, option):g}: write a number above 0")


def _bar(suite: str) -> Callable:
    """A progress bar over rows."""
    from tqdm import tqdm

    return partial(tqdm, desc=f"measuring {suite}", unit="row")


def _ended(found: list, failures: list[str]) -> int:
    """Say what could not be measured; the exit code."""
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
