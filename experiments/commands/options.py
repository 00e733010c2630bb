"""What the commands' options share: how they are declared, read and refused."""

import argparse
import os
import re
from pathlib import Path

from offmarl.experiments.errors import UserError, check_name

OWN = "a method's file that lies elsewhere; repeatable"
VARIANT = "paper, released, quick, or several: quick+without_igm (default: the profile's)"
SUITES = "smac, continuous, om2p, or all of them"

EXAMPLES = """examples:
  offmarl run --suite smac                              Table 1, quick profile, everything on this machine
  offmarl run --suite continuous                        Table 2; om2p: OM2P's Table 1; all: every suite
  offmarl run --suite smac --profile smoke              two maps in four minutes
  offmarl run --suite smac --profile paper --device cuda --dry-run
  offmarl run --suite smac --tasks smac/3m,smac/8m:good --algorithms bc,mac_flow --seeds 0-5
  offmarl run --suite smac --set mac_flow.alpha=1.0 --set all.batch_size=128
  offmarl run --suite smac --log tensorboard            curves and evaluations for TensorBoard too
  offmarl report --suite smac                           the tables and figures again
  offmarl report --suite all --site site                the leaderboard: pages that open from disk or any host
  offmarl status                                        done, running, failed, pending, and the time left
  offmarl verify                                        are the stored runs, their data and the tables still sound?
  offmarl rerun RUN_ID                                  train a stored run once more: is it the same?
  offmarl run --suite smac --source og_marl             on the public data, in real StarCraft
  offmarl data list                                     every dataset, and whether it is here
  offmarl data get --source omiga --tasks mamujoco/3hopper
  offmarl data check --source omiga                     are the downloaded datasets sound?
  offmarl data check FILE.npz --task mamujoco/3hopper   a dataset file of one's own
  offmarl data card smac/3m:good                        a page and a histogram
  offmarl data record --tasks smac/3m --policy random --out random.npz
  offmarl experiment list                               the papers' other experiments by name
  offmarl experiment fig6,fig7                          figure, table, page and verdict of each; all: every one
  offmarl new my_method                                 the file of a method of your own
  offmarl validate my_method.py                         does it keep the contract? and its card
  offmarl run --suite smac --algorithm my_method.py --algorithms my_method,mac_flow
  offmarl export --format csv --out episodes.csv        every evaluation episode; parquet, marl-eval
  offmarl merge /node1/results /node2/results --results joined
  offmarl doctor                                        what is installed, what is missing, how to get it
  offmarl bench envs --tasks mpe/spread                 steps per second of simulators and recording here
  offmarl bench train --suite smac --tasks smac/3m      seed-steps per second of every method, hours of the table
  offmarl latency --suite smac --tasks smac/3m          milliseconds of a decision, at the papers' sizes
  offmarl soak --minutes 10                             kill trainings at random moments; is anything lost?
  offmarl latency --suite smac --scaling                the same by the number of agents and denoising steps
"""


def command(commands, name: str, text: str, function) -> argparse.ArgumentParser:
    """A subcommand with the examples at the end of its help."""
    sub = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if function:
        sub.set_defaults(command=function)
    return sub


def device_options(options: argparse.ArgumentParser) -> None:
    """On what to compute."""
    options.add_argument("--device", default="auto", help="cpu, cuda or auto: cuda where there is one (default)")
    options.add_argument("--tf32", action="store_true", help="on CUDA, multiply in TF32: faster, ten bits of mantissa")


def host_options(options: argparse.ArgumentParser) -> None:
    """Where and how to train."""
    device_options(options)
    options.add_argument("--threads", type=int, default=1, help="CPU threads of each training (default: 1)")
    options.add_argument(
        "--eager", action="store_true", help="on CUDA, do without captured graphs: slower, same numbers"
    )


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def listed(text: str | None) -> list[str] | None:
    """Comma-separated names; None where nothing is said."""
    return None if text is None else [part for part in text.split(",") if part]


def parse_seeds(text: str | None) -> list[int] | None:
    """`0-5` or `0,2,4` as numbers.

    Raises:
        UserError: for anything else.
    """
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise UserError(f"--seeds {text}: '{part}' is neither a number nor a rising range; write 0-5 or 0,2,4")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(seeds))


def find_device(name: str) -> str:
    """The device that a name means, as torch calls it.

    Raises:
        UserError: for an unknown one, and for one that is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"--device {name}: write cpu, cuda or auto")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch sees no CUDA device here; use --device cpu")
    return name


def writable(results: Path) -> Path:
    """The results directory, made where it is missing.

    Raises:
        UserError: where that cannot be done.
    """
    results = results.expanduser().resolve()
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--results {results}: cannot be made ({error.strerror}); choose another directory") from error
    if not os.access(results, os.W_OK):
        raise UserError(f"--results {results}: is not writable; choose another directory")
    return results


def find_entries(source: str, wanted: list[str] | None) -> list:
    """A source's datasets of tasks, or of task:quality; None means all.

    Raises:
        UserError: for an unknown source, task or quality.
    """
    from offmarl.datasets.catalogue import SOURCES, catalogue
    from offmarl.experiments.grid.jobs import check_datasets

    found = catalogue(check_name("source", source, SOURCES))
    known: dict[str, list[str]] = {}
    for task, quality in found:
        known.setdefault(task, []).append(quality)
    check_datasets(wanted or (), known)
    return [entry for (t, q), entry in found.items() if wanted is None or t in wanted or f"{t}:{q}" in wanted]


def find_recipes(wanted: list[str] | None) -> list:
    """The embedded datasets of tasks, or of task:quality; None means all.

    Raises:
        UserError: for an unknown one.
    """
    return find_entries("embedded", wanted)
