"""The command line: one table of commands. Only the module of the command that was asked for is imported."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

DESCRIPTION = "Benchmark harness and leaderboard for offline multi-agent reinforcement learning."
EXAMPLES = """examples:
  offmarl run --suite smac                 train, evaluate and report Table 1 (quick profile)
  offmarl report --suite all --site site   the leaderboard as pages that open from disk
  offmarl status                           done, running, failed, pending, and the time left
  offmarl COMMAND --help                   a command's options and examples
"""
COMMANDS = {  # name: its module in commands/, which has a function <name>_options, and what it does
    "run": ("run", "train and evaluate the pending cells of a suite, then report"),
    "report": ("report", "write the tables and figures of a suite, or the leaderboard site, from the store"),
    "status": ("status", "show what is done, running, failed and pending, and the time left"),
    "data": ("data", "list, download, check, describe and record datasets"),
    "latency": ("timing", "time decisions: per agent, joint, eager and captured"),
    "bench": ("timing", "measure the speed of simulators and of training on this machine"),
    "verify": ("verify", "check that runs, their data and the tables are still what was measured"),
    "rerun": ("rerun", "train a stored run again and compare returns, curves and weights"),
    "doctor": ("doctor", "show what is installed, what is missing, and how to get it"),
    "experiment": ("study", "run an experiment of the papers: figure, table, verdict"),
    "new": ("method", "write the file of a new method"),
    "validate": ("method", "run the contract tests and a smoke run on a method; print its card"),
    "export": ("exchange", "write every evaluation episode of the store into one file"),
    "merge": ("exchange", "join the stores of several machines; conflicting cells are refused"),
}
FULL = "free some space, or choose another directory; the same command continues where it was"
DENIED = "make it writable, or choose another directory"
ADVICE = {  # for files that cannot be written
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FULL),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), DENIED),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 done, 1 something failed, 2 the input was wrong, 3 nothing could run."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large tensors on huge pages, a fifth fewer page faults
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser(words).parse_args(words)
    try:
        if getattr(args, "method_file", None):
            use_method_files(args.method_file)
        return args.command(args)
    except KeyboardInterrupt:
        print("\noffmarl: stopped; the same command continues where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        place = error.filename or getattr(args, "results", "a file")  # a full disk does not say where it is
        print(f"offmarl: {place}: {error.strerror}; {ADVICE[error.errno]}", file=sys.stderr)
        return 1
    except Exception as error:
        if not getattr(error, "in_a_line", False):
            raise
        print(f"offmarl: {error}", file=sys.stderr)
        return 2


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """All commands by name; the one that `words` begin with has its options."""
    top = argparse.ArgumentParser(
        prog="offmarl",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=Version, help="show the version and exit")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == chosen:
            getattr(import_module(f"offmarl.experiments.commands.{module}"), f"{name}_options")(sub)
    return top


class Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None):
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and exit."""
        from importlib.metadata import version

        print(f"offmarl {version('offmarl')}")
        parser.exit()


def use_method_files(paths: Sequence[str]) -> None:
    """Register the methods of these files, in this process and in those that it starts.

    Raises:
        MethodError: when a file holds no method, or its name is taken.
    """
    from offmarl.experiments.commands.method import register_files

    register_files(paths)


if __name__ == "__main__":
    sys.exit(main())
