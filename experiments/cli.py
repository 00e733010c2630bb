"""The command line: one table of commands. Only the module of the command that was asked for is imported."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from offmarl.experiments.environment import settle

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
    "data": ("data.actions", "list, download, check, describe and record datasets"),
    "latency": ("timing", "measure decision time, per agent and for the team, with and without CUDA graphs"),
    "bench": ("timing", "measure the speed of simulators and of training on this machine"),
    "verify": ("verify", "check that runs, their data and the tables are still what was measured"),
    "rerun": ("rerun", "train a stored run again and compare returns, curves and weights"),
    "watch": ("watch", "show what a stored policy does on its evaluation episodes, or what is in the data"),
    "play": ("play", "let a stored policy play its task, and print its returns"),
    "doctor": ("doctor", "show what is installed, what is missing, and how to get it"),
    "experiment": ("study", "run an experiment of the papers: figure, table, verdict"),
    "select": ("selection", "estimate the return of the policy chosen after 0 to 100 episodes, from the store"),
    "judge": ("selection", "train methods on one dataset and choose a policy offline, without played returns"),
    "tune": ("study", "choose settings: the same trials of every method, on datasets that are in no table"),
    "new": ("own.new", "write the file of a new method, or task"),
    "validate": ("own.validate", "hold a method or a task to its contract; print its card"),
    "export": ("exchange", "write every evaluation episode of the store into one file"),
    "merge": ("exchange", "join the stores of several machines; conflicting runs are refused"),
}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)  # of a file: as wrong as any other name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 0 done, 1 something failed, 2 the input was wrong, 3 nothing could run."""
    settle()
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser(words).parse_args(words)
    try:
        import_module("offmarl.experiments.commands.options").register(args)
        return args.command(args)
    except KeyboardInterrupt as stop:
        print("\noffmarl: stopped; run the same command again to continue", file=sys.stderr)
        return 128 + next(iter(stop.args), signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno in NO_NAME:
            print(f"offmarl: {error.filename}: {error.strerror}; write another name", file=sys.stderr)
            return 2
        if error.errno not in DISK_FULL + DENIED:
            raise
        place = error.filename or getattr(args, "results", "a file")  # a full disk does not say where it is
        full = "free some space, or choose another directory; then run the same command again"
        advice = full if error.errno in DISK_FULL else "make it writable, or choose another directory"
        print(f"offmarl: {place}: {error.strerror}; {advice}", file=sys.stderr)
        return 1
    except Exception as error:
        if not getattr(error, "in_a_line", False):
            raise
        print(f"offmarl: {error}", file=sys.stderr)
        return 2


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """All commands by name; only the one that `words` begin with gets its options."""
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(prog="offmarl", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=plain)
    version = import_module("importlib.metadata").version("offmarl") if "--version" in words else ""
    top.add_argument("--version", action="version", version=f"offmarl {version}", help="show the version and exit")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, formatter_class=plain)
        if name == chosen:
            getattr(import_module(f"offmarl.experiments.commands.{module}"), f"{name}_options")(command)
    return top


if __name__ == "__main__":
    sys.exit(main())
