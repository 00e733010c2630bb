"""The command line: `offmarl run`, `report`, `status`; the other commands stand in modules of their own."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from offmarl.experiments.commands import data, doctor, exchange, rerun, status, verify
from offmarl.experiments.commands import method as own
from offmarl.experiments.commands import study as experiment
from offmarl.experiments.commands import timing as measuring
from offmarl.experiments.commands.options import (
    EXAMPLES,
    OWN,
    SUITES,
    VARIANT,
    command,
    find_device,
    host_options,
    listed,
    parse_seeds,
    writable,
)
from offmarl.experiments.errors import UserError

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Request

SOURCE = "where data and simulator come from: embedded (default), or og_marl, omiga, omar: the public data"
ROOM = "make room, or choose another directory; the same command continues where it was"
RIGHT = "give yourself the right to write there, or choose another directory"
REMEDIES = {  # of files that cannot be written
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), RIGHT),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 done, 1 something failed, 2 the input was wrong, 3 nothing could run."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault(
        "THP_MEM_ALLOC_ENABLE", "1"
    )  # torch: large tensors on huge pages, else page faults cost a fifth
    args = parser().parse_args(argv)
    try:
        if getattr(args, "algorithm", None):
            own.use(args.algorithm)
        return args.command(args)
    except KeyboardInterrupt:
        print("\noffmarl: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        place = error.filename or getattr(args, "results", "a file")  # a full disk does not say where it is
        print(f"offmarl: {place}: {error.strerror}; {REMEDIES[error.errno]}", file=sys.stderr)
        return 1
    except Exception as error:
        if not getattr(error, "in_a_line", False):
            raise
        print(f"offmarl: {error}", file=sys.stderr)
        return 2


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
    report.add_argument("--profile", help="smoke, quick (default; for a site: all that ran) or paper")
    report.add_argument("--source", help="embedded (default; for a site: all that ran), og_marl, omiga or omar")
    report.add_argument("--results", type=Path, default=Path("results"), help="results directory (default: results)")
    report.add_argument("--site", type=Path, metavar="DIR", help="write the leaderboard, a folder of pages, instead")
    status.add_command(commands)
    data.add_commands(commands)
    measuring.add_commands(commands)
    verify.add_command(commands)
    rerun.add_command(commands)
    doctor.add_command(commands)
    experiment.add_command(commands)
    own.add_commands(commands)
    exchange.add_commands(commands)
    return top


def _run_options(commands) -> None:
    run = command(commands, "run", "train and evaluate the pending cells of a suite, then report", _run)
    run.add_argument("--suite", required=True, help=SUITES)
    run.add_argument("--profile", default="quick", help="how much work: smoke, quick (default) or paper")
    run.add_argument("--source", default="embedded", help=SOURCE)
    run.add_argument("--algorithms", help="comma-separated methods (default: those of the suite)")
    run.add_argument("--algorithm", action="append", default=[], metavar="FILE", help=OWN)
    run.add_argument("--tasks", help="comma-separated tasks or datasets: smac/3m,smac/8m:good (default: all)")
    run.add_argument("--seeds", help="0-5 or 0,2,4 (default: the profile's)")
    run.add_argument("--variant", help=VARIANT)
    run.add_argument(
        "--set", action="append", default=[], metavar="METHOD.KEY=VALUE", help="change a setting; repeatable"
    )
    run.add_argument(
        "--jobs", type=int, default=None, help="trainings side by side; 1 runs without Ray (default: cores)"
    )
    host_options(run)
    run.add_argument(
        "--deterministic", action="store_true", help="the same bits from the same seed on the same machine; slower"
    )
    run.add_argument("--results", type=Path, default=Path("results"), help="results directory (default: results)")
    run.add_argument("--log", default=None, help="write curves there too: tensorboard, or wandb where it is installed")
    run.add_argument("--dry-run", action="store_true", help="print the cells, the estimated time and disk, and stop")


def _run(args: argparse.Namespace) -> int:
    from offmarl.experiments.commands.report import print_report
    from offmarl.experiments.commands.status import note_grid
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.launch.prepare_data import prepare
    from offmarl.experiments.launch.serial import launch, side_by_side
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.machine import Host

    if args.algorithm and args.algorithms is None:
        raise UserError("--algorithm: name what shall run too, for example --algorithms my_method,mac_flow")
    if args.log:
        from offmarl.experiments.commands import loggers as sinks

        sinks.check(args.log)
    if args.deterministic and args.tf32:
        raise UserError("--deterministic and --tf32: TF32 rounds products; leave one of them out")
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
    workers = side_by_side(device, args.threads) if args.jobs is None else args.jobs
    if workers < 1 or args.threads < 1:
        raise UserError("--jobs and --threads: write a number of at least 1")
    if not jobs:
        print("offmarl: nothing to run: no dataset of this selection is available here", file=sys.stderr)
        _print_left_out(request)
        return 3
    host = Host(device, args.threads, args.tf32, args.eager, args.deterministic)
    results = writable(args.results)
    left = grid.pending(jobs, Store(results))
    if args.dry_run:
        from offmarl.experiments.timing.dry_run import describe

        print(describe(jobs, left, host, workers))
        _print_left_out(request)
        return 0
    note_grid(results, request, jobs)
    entries = {(job.task, job.quality): job.entry for job in left}
    for fault in prepare(list(entries.values()), args.source, min(workers, 2)):
        print(f"offmarl: {fault}", file=sys.stderr)  # its jobs will fail, and say so in the table
    failures = launch(left, results, host, workers)
    if args.log:
        sinks.write(args.log, results, [run_id for job in jobs for run_id in job.run_ids()])
    for suite in grid.expand(args.suite):
        print_report(suite, args.profile, args.source, results)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    _print_left_out(request)
    return 1 if failures else 0


def _print_left_out(request: "Request") -> None:
    """What is not there of the selection: each reason once, with the datasets that it keeps out."""
    from offmarl.experiments.grid.jobs import left_out

    by_reason: dict[str, dict[str, list[str]]] = {}
    for name, reason in left_out(request).items():
        task, quality = name.split(":")
        by_reason.setdefault(reason, {}).setdefault(task, []).append(quality)
    for reason, datasets in by_reason.items():
        names = ", ".join(f"{task} ({', '.join(qualities)})" for task, qualities in datasets.items())
        print(f"not available: {names}: {reason}", file=sys.stderr)


def _report(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import SOURCES
    from offmarl.experiments.commands.report import print_report
    from offmarl.experiments.errors import check_name
    from offmarl.experiments.grid import jobs as grid

    suites = grid.expand(args.suite)
    if args.profile is not None:
        check_name("profile", args.profile, grid.profiles())
    if args.source is not None:
        check_name("source", args.source, SOURCES)
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: there is no such directory; `offmarl run` makes it")
    if args.site:
        from offmarl.experiments.commands.site import write_site

        return write_site(args.results, args.site, suites, args.profile, args.source)
    for suite in suites:
        print_report(suite, args.profile or "quick", args.source or "embedded", args.results.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
