"""`offmarl data`: list, download, check and record datasets."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from offmarl.experiments.commands import options
from offmarl.experiments.commands.data.cards import FROM, card_options, findings
from offmarl.experiments.commands.data.derive import derive_options
from offmarl.experiments.commands.data.imports import import_options, one_task
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.launch.workers import core_count

if TYPE_CHECKING:
    from offmarl.datasets.public.releases import Release


RECORDED_HERE = "embedded (default), or tuning: what `offmarl tune` chooses settings on"


def data_options(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    parser.epilog = options.examples(
        ("data list", "every dataset and where it is"), ("data get --help", "examples of an action")
    )
    add = partial(options.subcommand, parser.add_subparsers(title="actions", required=True, metavar="ACTION"))
    all_sources, one_source = ("data list", "all sources"), ("data list --source omiga", "one source")
    one = add("list", "list every dataset of every source and where it is", _list, all_sources, one_source)
    one.add_argument("--source", help="embedded, tuning, og_marl, omiga, omar or own (default: all)")
    options.declare(one, "--task")

    text = "download public datasets that are missing or damaged into $OFFMARL_DATA; resumes what was interrupted"
    one_task = ("data get --source omiga --tasks mamujoco/3hopper", "one task")
    one = add("get", text, _get, one_task, ("data get --source omar", "all tasks of a source"))
    one.add_argument("--source", required=True, help="og_marl, omiga or omar")
    one.add_argument("--tasks", help="smac/3m,mpe/tag (default: all tasks of the source)")
    one.add_argument("--jobs", type=int, default=2, help="parallel downloads (default: 2)")
    one.add_argument("--again", action="store_true", help="download also what is here and looks sound")

    text = "check datasets: counts, returns, episode ends, copies, padding"
    own = ("data check mine.npz --task mamujoco/3hopper", "a file of your own")
    one = add("check", text, _check, ("data check --source omiga", "the datasets of a source that are here"), own)
    one.add_argument("what", nargs="*", help="smac/3m, smac/3m:good (default: all that are here) or a file.npz")
    one.add_argument("--source", help=FROM)
    text = "the task of a file.npz: mamujoco/3hopper; or the file.py of a task of your own: its datasets"
    one.add_argument("--task", action="append", dest="task_file", default=[], help=text)

    import_options(add)
    card_options(add)
    derive_options(add)
    text = "record embedded datasets now, or a policy of your own"
    own = ("data record --tasks smac/3m --policy random --out random.npz", "random play")
    user = ("data record --task my_task.py --policy my_policy.py --out mine.npz", "a script in a task of your own")
    one = add("record", text, _record, ("data record --tasks smac/3m", "the embedded datasets of a task"), own, user)
    one.add_argument("--tasks", help="smac/3m,smac/8m:good (default: all)")
    one.add_argument("--source", default="embedded", help=RECORDED_HERE)
    one.add_argument("--jobs", type=int, default=core_count(), help="parallel recordings (default: number of cores)")
    text = "random, the folder of a run (results/runs/...), or a file.py with a function act(view, rng): record this "
    one.add_argument("--policy", help=text + "policy on one task")
    options.declare(one, *options.METHOD_FILE, "--task")
    text = "with --policy, in discrete tasks: the share of actions replaced by random legal ones (default: 0)"
    one.add_argument("--epsilon", type=float, default=0.0, help=text)
    one.add_argument("--episodes", type=int, default=100, help="with --policy (default: 100)")
    one.add_argument("--out", type=Path, help="with --policy: the file.npz to write")

    text = "train the behaviour policies of a task again"
    one = add("train-behaviour", text, _train, ("data train-behaviour smac/3m", "minutes to hours"))
    one.add_argument("task", help="smac/3m")
    one.add_argument("--source", default="embedded", help=RECORDED_HERE)
    one.add_argument("--out", type=Path, default=None, help="file to write (default: the package's own)")


def _list(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import ALL_SOURCES, catalogue
    from offmarl.datasets.dataset import is_whole
    from offmarl.datasets.derived import Derived
    from offmarl.datasets.public.releases import data_dir, sources

    chosen = ALL_SOURCES if args.source is None else [check_name("source", args.source, ALL_SOURCES)]
    print(f"{'dataset':34} {'source':8} {'published return':>18} {'ours':>18}  state")
    for source in chosen:
        for (task, quality), entry in catalogue(source).items():
            theirs = "{:.2f} ± {:.2f}".format(*entry.target) if entry.target else "a mix" if entry.mix else ""
            theirs = "derived" if isinstance(entry, Derived) else theirs
            card = entry.card()
            ours = f"{card['return_mean']:.2f} ± {card['return_std']:.2f}" if card else ""
            state = f"{card['episodes']} episodes, {entry.place()}" if card else entry.state()
            state += f"; {card['made_from']}" if card and card.get("made_from") else ""
            if card and not all(map(is_whole, entry.checksums(card))):
                again = f"offmarl data check {task}:{quality} --source {source}"
                state = f"damaged: {entry.place()} is not complete; `{again}` makes it again"
            print(f"{task + ':' + quality:34} {source:8} {theirs:>18} {ours:>18}  {state}")
    for source in chosen:
        if facts := sources().get(source):
            print(f"{source}: {facts.title}; {facts.licence}; {facts.page}")
    print(f"public data are in {data_dir()} ($OFFMARL_DATA)")
    return 0


def _get(args: argparse.Namespace) -> int:
    from offmarl.datasets.public.download import fetch
    from offmarl.datasets.public.releases import data_dir, sources

    check_name("source", args.source, sources())
    if args.jobs < 1:
        raise UserError("--jobs: must be at least 1")
    chosen = options.find_entries(options.listed(args.tasks), args.source, derived=False)
    asked = [(entry, entry.downloads if args.again else entry.to_download()) for entry in chosen]
    entries = [entry for entry, downloads in asked if downloads]
    wanted = list(dict.fromkeys(download for _, downloads in asked for download in downloads))
    if not wanted:
        print(f"nothing to download: everything is in {data_dir() / args.source}")
        return 0
    for line in _faults(entries):
        print(f"damaged: {line}; it is downloaded again", file=sys.stderr)
    sizes = {e.task.name: e.facts.gigabytes for e, downloads in asked if any(one.unpack for one in downloads)}
    print(f"downloading {len(wanted)} files ({sum(sizes.values()):.2f} GB) into {data_dir()}", file=sys.stderr)
    return options.exit_code(fetch(wanted, data_dir(), args.jobs) or _faults(entries))


def _faults(entries: "list[Release]") -> list[str]:
    """What is wrong with datasets that are here, a line each."""
    found = [f"{e.task.name}:{e.quality}: {text}" for e in entries for text in (e.data_fault(), e.prey_fault()) if text]
    return list(dict.fromkeys(found))


def _check(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import RECORDED

    if any(not name.endswith(".py") for name in args.task_file) or any(name.endswith(".npz") for name in args.what):
        return _check_file(args.what, args.task_file)
    source = options.data_source(args)
    found = options.find_entries(args.what or None, source)
    entries = [e for e in found if args.what or e.card() or (source not in RECORDED and not e.data_missing())]
    if not entries:
        print(f"offmarl: nothing to check: there is no dataset of {source} here", file=sys.stderr)
        return 3
    doubtful = 0
    for entry in entries:
        print(f"{entry.task.name}:{entry.quality} ({source})")
        for sound, text in findings(entry, source):
            print(f"  {'  ' if sound else '! '}{text}")
            doubtful += not sound
    print(f"{len(entries)} datasets, {doubtful} doubts")
    return 1 if doubtful else 0


def _check_file(files: list[str], names: list[str]) -> int:
    """Check files of arrays against the one task of these names."""
    from offmarl.datasets.dataset import read
    from offmarl.datasets.own import settled

    task = one_task(names, files[0] if files else "data check")
    if not files:
        raise UserError("data check --task: names the task of files; name these, too: mine.npz")
    for name in files:
        try:
            data = read(Path(name), task)
        except (OSError, ValueError) as error:
            raise UserError(str(error)) from error
        try:
            facts = settled(data, task)[0].statistics()
        except ValueError as error:
            raise UserError(f"{name}: {error}") from error
        print(f"{name}: valid data of {task.name}; " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    return 0


def _record(args: argparse.Namespace) -> int:
    if args.policy is not None:
        return _record_policy(args)
    if args.out is not None or args.epsilon:
        raise UserError("--out and --epsilon: go with --policy; recorded datasets are kept in the cache")
    from offmarl.experiments.launch.prepare_data import prepare

    chosen = _recipes(options.listed(args.tasks), args.source)
    return options.exit_code(prepare(chosen, args.source, max(1, args.jobs)))


def _recipes(wanted: list[str] | None, source: str) -> list:
    """The datasets of a source that is recorded here. Raises UserError for another source or an unknown name."""
    from offmarl.datasets.catalogue import RECORDED

    return options.find_entries(wanted, check_name("source", source, RECORDED), derived=False)


def _record_policy(args: argparse.Namespace) -> int:
    from offmarl.benchmarks import own
    from offmarl.benchmarks.tasks import tasks
    from offmarl.experiments.training.policy import record_policy

    names = options.listed(args.tasks) or list(own.registry())
    if len(names) != 1 or args.out is None or args.out.suffix != ".npz":
        raise UserError("--policy: needs one task and a file, for example --tasks smac/3m --out mine.npz")
    task = tasks()[names[0]] if names[0] in own.registry() else options.find_entries(names)[0].task
    if args.episodes < 1:
        raise UserError(f"--episodes {args.episodes}: write a number of at least 1")
    if not 0.0 <= args.epsilon <= 1.0:
        raise UserError(f"--epsilon {args.epsilon}: write a share between 0 and 1")
    options.new_file(args.out)
    facts = record_policy(task, args.policy, args.episodes, args.out, args.epsilon)
    print(f"written: {args.out}; " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    return 0


def _train(args: argparse.Namespace) -> int:
    trained = [r for r in _recipes([args.task], args.source) if r.behaviours == "trained"]
    if not trained:
        raise UserError(f"{args.task}: its behaviours are scripted; there is nothing to train")
    from importlib import import_module

    task, out = trained[0].task, args.out or trained[0].weights()
    options.new_file(out)
    trainer = import_module(f"offmarl.datasets.embedded.train_{task.engine}")
    chosen = trainer.train_behaviours(task, {r.quality: r.target for r in trained}, trained[0].training, out)
    for quality, picks in chosen.items():
        print(f"{quality}: " + ", ".join(f"run {r} at {n:,} steps (return {score})" for r, n, score in picks))
    print(f"written: {out}")
    return 0
