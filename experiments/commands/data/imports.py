"""`offmarl data import`: data of the user's own, brought beside a task's other datasets."""

import argparse
from collections.abc import Callable
from pathlib import Path

from offmarl.experiments.errors import UserError, check_name

TASK = "smac/3m, or the file.py of a task of your own"


def import_options(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare it among the actions of `offmarl data`."""
    text = "import your own data: npz, HDF5, Minari or a vault, checked and converted as public data are"
    one = add(
        "import",
        text,
        _import,
        ("data import mine --task my_task.py episodes.hdf5", "then: offmarl run --task my_task.py"),
        ("data import mine --task smac/3m --keys obs=s,ends=done run.npz", "arrays under other names"),
        ("data import mine --task my_task.py --replace recordings/", "all files of a folder, in place of the former"),
    )
    one.add_argument("name", help="what the dataset is called: smac/3m:NAME")
    one.add_argument("paths", nargs="+", type=Path, metavar="FILE", help="files of one layout, or folders of them")
    one.add_argument("--task", action="append", dest="task_file", default=[], required=True, help=TASK)
    text = "the files' names of obs, state, legal, actions, rewards, ends (true ends), timeouts, next_obs, next_state, "
    one.add_argument("--keys", default="", metavar="OURS=THEIRS,…", help=text + "next_legal, where they are not found")
    text = "last: a flagged row is a transition; delimiter: a final observation only; limit: no flags, all full length"
    text += "; detect: last or delimiter, judged from the rows (default)"
    one.add_argument("--ends", default="detect", help=text)
    text = "trust that every end is flagged; otherwise episodes are also cut where states jump to a new start"
    one.add_argument("--trust-flags", action="store_true", help=text)
    one.add_argument("--replace", action="store_true", help="in place of an imported dataset of this name")


def _import(args: argparse.Namespace) -> int:
    from typing import get_args

    from offmarl.datasets.imported.importing import import_files
    from offmarl.datasets.public.sources import Ends

    check_name("--ends", args.ends, get_args(Ends))
    task = one_task(args.task_file, f"data import {args.name}")
    pairs = [part.partition("=") for part in args.keys.split(",") if part]
    for ours, _, theirs in pairs:
        if not (ours and theirs):
            raise UserError(f"--keys {args.keys}: write pairs such as obs=observations,ends=done")
    keys = {ours: theirs for ours, _, theirs in pairs}
    if twice := [str(path) for k, path in enumerate(args.paths) if path.resolve() in map(Path.resolve, args.paths[:k])]:
        raise UserError(f"{twice[0]}: is named twice; its episodes would count twice")
    try:
        told = import_files(args.name, task, args.paths, keys, args.ends, args.trust_flags, args.replace)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    print(
        f"imported: {task.name}:{args.name} (source own): {told['episodes']:,} episodes, {told['transitions']:,} "
        f"transitions, return {told['return_mean']:.4g} ± {told['return_std']:.3g}"
    )
    for line in told["settled"]:
        print(f"  {line}")
    return 0


def one_task(names: list[str], what: str):
    """The one task that is meant, by its name or a registered file.py. Raises UserError where it is not one."""
    from offmarl.benchmarks import own
    from offmarl.benchmarks.tasks import tasks

    named = [name for name in names if not name.endswith(".py")] or list(own.registry())
    if len(named) != 1:
        raise UserError(f"{what}: name the one task of the data, for example --task mamujoco/3hopper")
    return tasks()[check_name("task", named[0], tasks())]
