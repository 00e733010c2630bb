"""The command line: `offmarl run`, `report`, `status`, `data`, `bench`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from offmarl.experiments import measuring
from offmarl.experiments.errors import UserError
from offmarl.experiments.options import (
    EXAMPLES,
    SUITES,
    command,
    core_count,
    find_device,
    find_recipes,
    host_options,
    listed,
    parse_seeds,
    writable,
)

if TYPE_CHECKING:
    from offmarl.experiments.host import Host

JOBS_PER_GPU = 6  # small networks share a card well; --jobs says otherwise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 done, 1 something failed, 2 the input was wrong, 3 nothing could run."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault(
        "THP_MEM_ALLOC_ENABLE", "1"
    )  # torch: large tensors on huge pages, else page faults cost a fifth
    args = parser().parse_args(argv)
    try:
        return args.command(args)
    except UserError as error:
        print(f"offmarl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\noffmarl: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="offmarl",
        description="Benchmark harness and leaderboard for offline multi-agent reinforcement learning.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"offmarl {version('offmarl')}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _run_options(commands)
    report = command(commands, "report", "make the tables and figures of a suite from the store", _report)
    report.add_argument("--suite", required=True, help=SUITES)
    report.add_argument("--profile", default="quick", help="smoke, quick (default) or paper")
    report.add_argument("--source", default="embedded", help="embedded")
    report.add_argument("--results", type=Path, default=Path("results"), help="results directory (default: results)")
    status = command(commands, "status", "what the store holds: done, failed, diverged (and why)", _status)
    status.add_argument("--results", type=Path, default=Path("results"))
    data = command(commands, "data", "the datasets", None)
    actions = data.add_subparsers(title="actions", required=True, metavar="ACTION")
    command(actions, "list", "every dataset, and whether it is recorded", _data_list)
    record = command(actions, "record", "record embedded datasets now", _data_record)
    record.add_argument("--tasks", help="smac/3m,smac/8m:good (default: all)")
    record.add_argument("--jobs", type=int, default=core_count())
    card = command(actions, "card", "a dataset's card as JSON", _data_card)
    card.add_argument("dataset", help="smac/3m:good")
    check = command(actions, "check", "whether a dataset file (.npz) is sound and fits a task", _data_check)
    check.add_argument("file", type=Path)
    check.add_argument("--task", required=True, help="mamujoco/3hopper")
    teach = command(actions, "train-behaviour", "train the behaviour policies of a task anew", _train)
    teach.add_argument("task", help="smac/3m")
    teach.add_argument("--out", type=Path, default=None, help="file to write (default: the package's own)")
    measuring.add_commands(commands)
    return top


def _run_options(commands) -> None:
    run = command(commands, "run", "train and evaluate the pending cells of a suite, then report", _run)
    run.add_argument("--suite", required=True, help=SUITES)
    run.add_argument("--profile", default="quick", help="how much work: smoke, quick (default) or paper")
    run.add_argument("--source", default="embedded", help="where data and simulator come from: embedded")
    run.add_argument("--algorithms", help="comma-separated methods (default: those of the suite)")
    run.add_argument("--tasks", help="comma-separated tasks or datasets: smac/3m,smac/8m:good (default: all)")
    run.add_argument("--seeds", help="0-5 or 0,2,4 (default: the profile's)")
    run.add_argument("--variant", help="paper, released or quick (default: the profile's)")
    run.add_argument(
        "--set", action="append", default=[], metavar="METHOD.KEY=VALUE", help="change a setting; repeatable"
    )
    run.add_argument(
        "--jobs", type=int, default=None, help="trainings side by side; 1 runs without Ray (default: cores)"
    )
    host_options(run)
    run.add_argument("--results", type=Path, default=Path("results"), help="results directory (default: results)")
    run.add_argument("--dry-run", action="store_true", help="print the cells, the estimated time and disk, and stop")


def _workers(device: str, threads: int) -> int:
    """Trainings side by side: as many as the cores feed, and on CUDA not more than a few share a card."""
    import torch

    most = max(1, core_count() // max(1, threads))
    return min(most, JOBS_PER_GPU * torch.cuda.device_count()) if device.startswith("cuda") else most


def _run(args: argparse.Namespace) -> int:
    from offmarl.datasets.embedded import catalogue
    from offmarl.experiments import grid
    from offmarl.experiments.host import Host
    from offmarl.experiments.prepare import prepare
    from offmarl.experiments.store import Store

    request = grid.Request(
        suite=args.suite,
        profile=args.profile,
        source=args.source,
        algorithms=listed(args.algorithms),
        tasks=listed(args.tasks),
        seeds=parse_seeds(args.seeds),
        variant=args.variant,
        overrides=args.set,
    )
    jobs, device = grid.jobs(request), find_device(args.device)
    workers = _workers(device, args.threads) if args.jobs is None else args.jobs
    if workers < 1 or args.threads < 1:
        raise UserError("--jobs and --threads: write a number of at least 1")
    if not jobs:
        print("offmarl: nothing to run: no dataset of this selection is available", file=sys.stderr)
        return 3
    host = Host(device, args.threads, args.tf32, args.eager)
    results = writable(args.results)
    left = grid.pending(jobs, Store(results))
    if args.dry_run:
        from offmarl.experiments.estimate import describe

        print(describe(jobs, left, host, workers))
        return 0
    needed = {(job.task, job.quality) for job in left}
    prepare([recipe for key, recipe in catalogue().items() if key in needed], min(workers, 2))
    failures = _launch(left, results, host, min(workers, len(left)))
    for suite in grid.expand(args.suite):
        _print_report(suite, args.profile, args.source, results)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _launch(left: list, results: Path, host: "Host", workers: int) -> list[str]:
    if not left:
        return []
    if workers == 1:
        from offmarl.experiments.launch import run_serial

        return run_serial(left, results, host)
    from offmarl.experiments.launch_ray import run_ray

    return run_ray(left, results, host, workers)


def _print_report(suite_name: str, profile: str, source: str, results: Path) -> None:
    from offmarl.experiments import grid
    from offmarl.reports.report import write

    suite = grid.load_suite(suite_name)
    elsewhere = {method for name in grid.suite_names() for method in grid.load_suite(name)["algorithms"]}
    out = write(results, suite_name, suite, profile, source, grid.unavailable(suite), elsewhere)
    print(out["text"])
    for note in out["notes"]:
        print(note)
    print("\nwritten: " + ", ".join(str(path) for path in out["paths"]))


def _report(args: argparse.Namespace) -> int:
    from offmarl.experiments import grid
    from offmarl.experiments.errors import check_name

    suites = grid.expand(args.suite)
    check_name("profile", args.profile, grid.profiles())
    check_name("source", args.source, grid.SOURCES)
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: there is no such directory; `offmarl run` makes it")
    for suite in suites:
        _print_report(suite, args.profile, args.source, args.results.resolve())
    return 0


def _status(args: argparse.Namespace) -> int:
    from offmarl.reports.results import load_runs

    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: there is no such directory; `offmarl run` makes it")
    runs = load_runs(args.results)
    if runs.empty:
        print("no runs yet")
        return 0
    print(runs.groupby(["profile", "algorithm", "status"]).size().unstack(fill_value=0).to_string())
    for row in runs.query("status != 'done'").to_dict("records"):
        print("{status}: {task}:{quality} {algorithm} seed {seed}: {reason}".format(**row))
    return 0


def _data_list(args: argparse.Namespace) -> int:
    from offmarl.datasets.embedded import ready

    print(f"{'dataset':35} {'source':8} {'real return':>18} {'ours':>18}  state")
    for recipe in find_recipes(None):
        card = ready(recipe)
        ours = f"{card['return_mean']:.2f} ± {card['return_std']:.2f}" if card else ""
        theirs = "{:.2f} ± {:.2f}".format(*recipe.target)
        state = f"{card['episodes']} episodes, {recipe.file()}" if card else "recorded on first use"
        print(f"{recipe.task.name + ':' + recipe.quality:35} embedded {theirs:>18} {ours:>18}  {state}")
    return 0


def _data_record(args: argparse.Namespace) -> int:
    from offmarl.experiments.prepare import prepare

    prepare(find_recipes(listed(args.tasks)), max(1, args.jobs))
    return 0


def _data_card(args: argparse.Namespace) -> int:
    import json

    from offmarl.datasets.embedded import load, ready

    if ":" not in args.dataset:
        raise UserError(f"{args.dataset}: write task:quality, for example smac/3m:good")
    recipe = find_recipes([args.dataset])[0]
    print(json.dumps(ready(recipe) or load(recipe)[1], indent=1))
    return 0


def _data_check(args: argparse.Namespace) -> int:
    from offmarl.benchmarks.tasks import tasks
    from offmarl.datasets.canonical import read
    from offmarl.experiments.errors import check_name

    task = tasks()[check_name("task", args.task, tasks())]
    try:
        facts = read(args.file, task).statistics()
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    print(f"{args.file}: sound, fits {task.name}; " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    return 0


def _train(args: argparse.Namespace) -> int:
    taught = [r for r in find_recipes([args.task]) if r.behaviours == "trained"]
    if not taught:
        raise UserError(f"{args.task}: its behaviours are scripted, there is nothing to train")
    from importlib import import_module

    from offmarl.datasets import behaviours

    task, out = taught[0].task, args.out or behaviours.path(taught[0].task)
    trainer = import_module(f"offmarl.datasets.train_{task.engine}")
    budget = trainer.Budget(**taught[0].training)
    chosen = trainer.train_behaviours(task, {r.quality: r.target for r in taught}, budget, out)
    for quality, picks in chosen.items():
        print(f"{quality}: " + ", ".join(f"run {r} at {n:,} steps (return {score})" for r, n, score in picks))
    print(f"written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
