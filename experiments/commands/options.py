"""Options that several commands share: how they are declared, read and checked."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offmarl.experiments.errors import UserError, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from offmarl.experiments.grid.jobs import Job, Request
    from offmarl.experiments.training.machine import Host

TASKS = "comma-separated tasks or datasets: smac/3m,smac/8m:good"
REPEATABLE = {"action": "append", "default": []}
SUITES = "smac, continuous, om2p, coordination, frontier, all, the family of tasks of your own (--task), or a file.yaml"
SOURCES = "data and simulator: embedded (default), own (yours), or public data: og_marl, omiga, omar"
MOST_SEEDS = 10_000  # of a command
MOST_PROCESSES = 8  # by default, of work that takes up to 2 GB of memory each


def _python_file(name: str) -> str:
    if not name.endswith(".py"):
        raise argparse.ArgumentTypeError(f"{name}: write a file.py; --tasks chooses tasks by their names")
    return name


SHARED: dict[str, dict[str, Any]] = {  # by name, as argparse declares them
    "--suite": {"help": SUITES},
    "--profile": {"default": "quick", "help": "how much work: smoke, quick, standard or paper (default: %(default)s)"},
    "--source": {"help": SOURCES},
    "--algorithms": {"help": "comma-separated methods (default: those of the suite)"},
    "--method-file": {"help": "a file with a method of your own; repeatable", "metavar": "FILE", **REPEATABLE},
    "--algorithm": {"help": argparse.SUPPRESS, "action": "append", "dest": "method_file"},  # its old name
    "--task": {
        "help": "a file.py with a task of your own; repeatable",
        **{"dest": "task_file", "type": _python_file, "metavar": "FILE", **REPEATABLE},
    },
    "--tasks": {"help": f"{TASKS} (default: all)"},
    "--seeds": {"help": "0-5 or 0,2,4, up to 4294967295 (default: the profile's)"},
    "--data-fraction": {
        "help": "train on this share of every dataset's episodes, added to the variant's name: 0.1 (default: 1, all)",
        **{"type": float, "default": 1.0, "metavar": "SHARE"},
    },
    "--variant": {"help": "paper, released, tuned, or several: released+tuned (default: the profile's)"},
    "--set": {"help": "change a setting; repeatable", "metavar": "METHOD.KEY=VALUE", **REPEATABLE},
    "--jobs": {"help": "jobs that train at once; 1 runs without Ray (default: cores)", "type": int},
    "--device": {"help": "cpu, cuda or auto: cuda where there is one (default)", "default": "auto"},
    "--tf32": {"help": "on CUDA, multiply in TF32: faster, ten bits of mantissa", "action": "store_true"},
    "--matmul": {
        "help": "on a CPU, the library of matrix products: mkl, onednn or auto: onednn where it is faster (default)",
        **{"default": "auto", "metavar": "LIBRARY"},
    },
    "--threads": {"help": "CPU threads of each job (default: 1)", "type": int, "default": 1},
    "--eager": {"help": "on CUDA, use no CUDA graphs: slower, same numbers", "action": "store_true"},
    "--dry-run": {"help": "print what would run, the estimated time and disk, and stop", "action": "store_true"},
    "--again": {"help": "retrain finished runs whose method or task has changed since", "action": "store_true"},
    "--results": {"help": "results directory (default: results)", "type": Path, "default": Path("results")},
}
METHOD_FILE = ("--method-file", "--algorithm")
DEVICE = ("--device", "--tf32", "--matmul")
HOST = (*DEVICE, "--threads", "--eager")
TRAINING = ("--jobs", *HOST)


def declare(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Declare shared options, with these changes of what argparse is told."""
    for name in names:
        parser.add_argument(name, **SHARED[name] | changes)


def examples(*lines: tuple[str, str]) -> str:
    """The end of a command's help: pairs of an example and what it does."""
    width = max((len(call) for call, text in lines if text), default=0)
    return "examples:\n" + "\n".join(f"  offmarl {call:{width}}  {text}".rstrip() for call, text in lines)


def subcommand(commands, name: str, text: str, function, *shown: tuple[str, str]) -> argparse.ArgumentParser:
    """A subcommand, such as `data list`, with its own examples."""
    formatter = argparse.RawDescriptionHelpFormatter
    sub = commands.add_parser(name, help=text, description=text, epilog=examples(*shown), formatter_class=formatter)
    sub.set_defaults(command=function)
    return sub


def register(args: argparse.Namespace) -> None:
    """Register the methods and tasks of the user's files that a command names, for what it starts as well.

    Where it names tasks and no suite, their family is the suite.
    Raises MethodError or TaskError for a file that has none, and says why; UserError where no suite is meant.
    """
    if getattr(args, "method_file", None):
        from offmarl import algorithms

        register_files(algorithms, args.method_file)
    if files := [name for name in getattr(args, "task_file", ()) if name.endswith(".py")]:
        from offmarl.benchmarks import own
        from offmarl.benchmarks.tasks import tasks

        register_files(own, files)
        tasks()
    if getattr(args, "suite", "") is None:
        from offmarl.experiments.grid.suite import own_suites

        if len(known := own_suites()) != 1:
            raise UserError(f"--suite: name one: {', '.join(known) or SUITES}")
        args.suite = known[0]
    if getattr(args, "suite", "").endswith((".yaml", ".yml")):
        from offmarl.experiments.grid.suite import add_file, load_suite
        from offmarl.reports.published.numbers import FACTS

        args.suite = add_file(Path(args.suite))
        if published := load_suite(args.suite).published:
            check_name("published table", published, FACTS)


def strangers(records: "Iterable[Mapping[str, Any] | None]") -> list[str]:
    """A line for each task of stored runs that no file here has, which says how to name it."""
    from offmarl.benchmarks.tasks import tasks

    names = {record["cell"]["task"] for record in records if record} - tasks().keys()
    return [f"{name}: a task that is not known here; name its file: --task FILE" for name in sorted(names)]


def register_files(home: Any, paths: "Iterable[str]") -> None:
    """Register these files' methods or tasks, here and in processes started from here.

    `home` is the package whose registry they are for. Raises its error for a file without one.
    """
    named = [*filter(None, os.environ.get(home.PATHS, "").split(os.pathsep)), *paths]
    os.environ[home.PATHS] = os.pathsep.join(dict.fromkeys(str(Path(path).resolve()) for path in named))
    home.registry.cache_clear()
    home.registry()


def source_of(suite: str, asked: str | None = None) -> str:
    """The source that is asked for; else that of a suite: the user's own if all its tasks are, or the embedded one."""
    from offmarl.benchmarks import own
    from offmarl.datasets.catalogue import EMBEDDED, OWN
    from offmarl.experiments.grid.suite import expand, load_suite

    mine = own.registry().keys()
    return asked or (OWN if mine and all(load_suite(s).qualities.keys() <= mine for s in expand(suite)) else EMBEDDED)


def selection_options(parser: argparse.ArgumentParser, profile: str, tasks: str) -> None:
    """The suite, and what is chosen and changed of it, with this profile as the default; help names that of `tasks`."""
    declare(parser, "--suite")
    declare(parser, "--profile", default=profile)
    declare(parser, "--algorithms", *METHOD_FILE, "--task")
    declare(parser, "--tasks", help=f"{TASKS} (default: {tasks})")
    declare(parser, "--variant", "--set", "--results")


def data_source(args: argparse.Namespace) -> str:
    """The source that is asked for; else the embedded one, or the user's own where he names a file."""
    return args.source or ("own" if args.task_file else "embedded")


def request_of(args: argparse.Namespace, **others: Any) -> "Request":
    """What `selection_options` ask for; `others` are parts of the request that they do not decide."""
    from offmarl.experiments.grid.config import parse_overrides
    from offmarl.experiments.grid.jobs import Request
    from offmarl.experiments.grid.suite import expand, load_suite

    asked: dict[str, Any] = {name: getattr(args, name) for name in ("suite", "profile", "variant")}
    asked |= {name: listed(getattr(args, name)) for name in ("algorithms", "tasks")}
    asked["overrides"] = parse_overrides(args.set)
    request: dict[str, Any] = {**asked, **others}
    if asked["overrides"]:
        methods = asked["algorithms"] or [name for suite in expand(args.suite) for name in load_suite(suite).algorithms]
        for name, own in asked["overrides"].items():
            if name not in (*methods, "all"):
                line = "this method is not among those that run; name it in --algorithms"
                raise UserError(f"--set {name}.{next(iter(own))}: {line}")
    request["source"] = source_of(request["suite"], request.get("source"))
    return Request(**request)


def matmul_of(args: argparse.Namespace, device: str, threads: int, jobs: "Iterable[Job]") -> str:
    """The library that multiplies in all jobs of a command, by --matmul; measured on their networks if by `auto`.

    Raises UserError for an unknown one, one that rounds here, or one asked for on CUDA.
    """
    from offmarl.experiments.training import matmul

    if args.matmul not in (*matmul.LIBRARIES, "auto"):
        raise UserError(f"--matmul {args.matmul}: write mkl, onednn or auto")
    if args.matmul != "auto":
        if device.startswith("cuda"):
            raise UserError(f"--matmul {args.matmul}: chooses a library of the CPU; leave it out on CUDA")
        matmul.check(args.matmul)
        return args.matmul
    if device.startswith("cuda") or getattr(args, "deterministic", False):
        return matmul.MKL
    return matmul.choose(matmul.shapes_of(jobs), threads)


def host_of(args: argparse.Namespace, jobs: "Iterable[Job]", **facts: Any) -> "tuple[Host, int]":
    """How all jobs of a command train, and how many at once: by the options of TRAINING, and other fields of the host.

    Raises UserError for options that make no sense here.
    """
    from offmarl.experiments.launch.workers import side_by_side
    from offmarl.experiments.training.machine import Host

    device = find_device(args.device)
    workers = side_by_side(device, args.threads) if args.jobs is None else args.jobs
    if workers < 1 or args.threads < 1:
        raise UserError("--jobs and --threads: write a number of at least 1")
    library = matmul_of(args, device, args.threads, jobs)
    return Host(device, args.threads, args.tf32, args.eager, matmul=library, **facts), workers


def processes_of(args: argparse.Namespace) -> int:
    """How many processes share work that is not training: --jobs, or the cores. Raises UserError for none."""
    from offmarl.experiments.launch.workers import core_count

    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: write a number of at least 1")
    return min(core_count(), MOST_PROCESSES) if args.jobs is None else args.jobs


def exit_code(failures: list[str]) -> int:
    """Say what failed, a line each; 1 where anything did, else 0."""
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def data_share(args: argparse.Namespace) -> float:
    """The share of --data-fraction. Raises UserError for none."""
    if not 0 < args.data_fraction <= 1:
        raise UserError(f"--data-fraction {args.data_fraction:g}: write a share above 0 and at most 1")
    return args.data_fraction


def listed(text: str | None) -> list[str] | None:
    """Comma-separated names; None for None."""
    return None if text is None else [part for part in text.split(",") if part]


def parse_seeds(text: str | None) -> list[int] | None:
    """`0-5` or `0,2,4` as numbers. Raises UserError for anything else, too large a number, or too many."""
    from offmarl.experiments.grid.suite import LARGEST_SEED

    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"0*(\d{1,4000})(?:-0*(\d{1,4000}))?", part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if high < low:
            raise UserError(
                f"--seeds {text[:60]}: '{part[:40]}' is neither a number nor a rising range; write 0-5 or 0,2,4"
            )
        if high > LARGEST_SEED:
            raise UserError(f"--seeds {text[:60]}: '{part[:40]}' is above {LARGEST_SEED:,}, the largest seed")
        if len(seeds) + high - low >= MOST_SEEDS:
            raise UserError(f"--seeds {text[:60]}: more than {MOST_SEEDS:,} seeds; start the rest as a second command")
        seeds += range(low, high + 1)
    return list(dict.fromkeys(seeds))


def find_device(name: str) -> str:
    """The device that a name means, as torch calls it. Raises UserError for an unknown or unavailable device."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"--device {name}: write cpu, cuda or auto")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch sees no CUDA device here; use --device cpu")
    return name


def existing(results: Path, option: str = "--results") -> Path:
    """The results directory that an option names, which must exist. Raises UserError where it does not."""
    if not results.is_dir():
        raise UserError(f"{option} {results}: there is no such directory; `offmarl run` creates it")
    return results.resolve()


def writable(results: Path, option: str = "--results") -> Path:
    """The directory that an option names, created if missing. Raises UserError where it cannot be made or written."""
    results = results.expanduser().resolve()
    try:
        str(results).encode()  # bytes of another encoding, which torch cannot write to
        results.mkdir(parents=True, exist_ok=True)
    except UnicodeEncodeError as error:
        raise UserError(f"{option} {results}: the name is not UTF-8; choose another directory") from error
    except OSError as error:
        reason = f"cannot be created ({error.strerror})"
        raise UserError(f"{option} {results}: {reason}; choose another directory") from error
    if not os.access(results, os.W_OK):
        raise UserError(f"{option} {results}: is not writable; choose another directory")
    return results


def new_file(path: Path, option: str = "--out") -> Path:
    """The file that an option names for writing, whose folder is created. Raises UserError where that cannot be."""
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")
    if not path.exists() or path.is_file():  # a pipe or a device needs no folder of its own
        writable(path.parent, option)
    return path


def find_entries(wanted: list[str] | None, source: str = "embedded", derived: bool = True) -> list:
    """A source's datasets of tasks, or of task:quality; None means all. Raises UserError for an unknown name.

    Without `derived` they are those that are recorded or downloaded.
    """
    from offmarl.datasets.catalogue import ALL_SOURCES, catalogue, originals
    from offmarl.experiments.grid.jobs import select

    found = (catalogue if derived else originals)(check_name("source", source, ALL_SOURCES))
    return [found[pair] for pair in select(found, wanted)]
