"""The commands about datasets: `offmarl data`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import (
    examples,
    find_entries,
    find_recipes,
    listed,
    method_file_option,
    subcommand,
)
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.launch.workers import core_count

if TYPE_CHECKING:
    from offmarl.datasets.catalogue import Entry
    from offmarl.datasets.check import Finding


def data_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(("data list", "every dataset, and whether it is here"), ("data get --help", "and so on"))
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    _list_options(actions)
    _get_options(actions)
    _check_options(actions)
    _card_options(actions)
    _record_options(actions)
    text = "train the behaviour policies of a task anew"
    train = subcommand(actions, "train-behaviour", text, _train, ("data train-behaviour smac/3m", "minutes to hours"))
    train.add_argument("task", help="smac/3m")
    train.add_argument("--out", type=Path, default=None, help="file to write (default: the package's own)")


def _list_options(actions) -> None:
    shown = ("data list", "every source"), ("data list --source omiga", "one of them")
    parser = subcommand(actions, "list", "list every dataset of every source, and whether it is here", _list, *shown)
    parser.add_argument("--source", help="embedded, og_marl, omiga or omar (default: all)")


def _get_options(actions) -> None:
    text = "download public datasets into $OFFMARL_DATA; resumes where it stopped"
    shown = (
        ("data get --source omiga --tasks mamujoco/3hopper", "one task"),
        ("data get --source omar", "all of it"),
    )
    parser = subcommand(actions, "get", text, _get, *shown)
    parser.add_argument("--source", required=True, help="og_marl, omiga or omar")
    parser.add_argument("--tasks", help="smac/3m,mpe/tag (default: all of the source)")
    parser.add_argument("--jobs", type=int, default=2, help="downloads side by side (default: 2)")


def _check_options(actions) -> None:
    text = "check that datasets are sound: counts, returns, ends, copies, padding"
    shown = (
        ("data check --source omiga", "what was downloaded"),
        ("data check mine.npz --task mamujoco/3hopper", "a file of your own"),
    )
    parser = subcommand(actions, "check", text, _check, *shown)
    parser.add_argument("what", nargs="*", help="smac/3m or smac/3m:good (default: all here), or a file.npz")
    parser.add_argument("--source", default="embedded", help="embedded (default), og_marl, omiga or omar")
    parser.add_argument("--task", help="the task of a file.npz: mamujoco/3hopper")


def _card_options(actions) -> None:
    text = "write a dataset's card: Markdown and a histogram of its returns"
    parser = subcommand(actions, "card", text, _card, ("data card smac/3m:good", "into results/cards"))
    parser.add_argument("dataset", help="smac/3m:good")
    parser.add_argument("--source", default="embedded", help="embedded (default), og_marl, omiga or omar")
    parser.add_argument("--out", type=Path, default=Path("results/cards"), help="folder (default: results/cards)")


def _record_options(actions) -> None:
    shown = (
        ("data record --tasks smac/3m", "the embedded datasets of a task"),
        ("data record --tasks smac/3m --policy random --out random.npz", "random play"),
    )
    text = "record embedded datasets now, or a policy of your choice"
    parser = subcommand(actions, "record", text, _record, *shown)
    parser.add_argument("--tasks", help="smac/3m,smac/8m:good (default: all)")
    parser.add_argument("--jobs", type=int, default=core_count(), help="recordings side by side (default: cores)")
    parser.add_argument("--policy", help="random, or a run's folder (results/runs/...): record it instead, on one task")
    method_file_option(parser)
    parser.add_argument("--episodes", type=int, default=100, help="with --policy (default: 100)")
    parser.add_argument("--out", type=Path, help="with --policy: the file.npz to write")


def _list(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import EMBEDDED, SOURCES, catalogue
    from offmarl.datasets.public.releases import data_dir, sources

    chosen = SOURCES if args.source is None else [check_name("source", args.source, SOURCES)]
    print(f"{'dataset':34} {'source':8} {'published return':>18} {'ours':>18}  state")
    for source in chosen:
        for (task, quality), entry in catalogue(source).items():
            theirs = "{:.2f} ± {:.2f}".format(*entry.target) if entry.target else "a mix"
            card = entry.card()
            ours = f"{card['return_mean']:.2f} ± {card['return_std']:.2f}" if card else ""
            print(f"{task + ':' + quality:34} {source:8} {theirs:>18} {ours:>18}  {_state(entry, card)}")
    for source in chosen:
        if source != EMBEDDED:
            facts = sources()[source]
            print(f"{source}: {facts.title}; {facts.licence}; {facts.page}")
    print(f"public data are looked for in {data_dir()} ($OFFMARL_DATA)")
    return 0


def _state(entry: "Entry", card: dict[str, Any] | None) -> str:
    if card:
        return f"{card['episodes']} episodes, {entry.place()}"
    return entry.state()


def _get(args: argparse.Namespace) -> int:
    from offmarl.datasets.public.download import fetch
    from offmarl.datasets.public.releases import data_dir, sources

    check_name("source", args.source, sources())
    if args.jobs < 1:
        raise UserError("--jobs: write a number of at least 1")
    entries = [entry for entry in find_entries(args.source, listed(args.tasks)) if entry.to_download()]
    wanted = list(dict.fromkeys(download for entry in entries for download in entry.to_download()))
    if not wanted:
        print(f"nothing to download: all of it is in {data_dir() / args.source}")
        return 0
    sizes = {entry.task.name: entry.gigabytes for entry in entries if entry.data_missing()}
    print(f"downloading {len(wanted)} files ({sum(sizes.values()):.2f} GB) into {data_dir()}", file=sys.stderr)
    failures = fetch(wanted, data_dir(), args.jobs)
    for failure in failures:
        print(f"offmarl: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _check(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import EMBEDDED

    if args.task is not None or any(name.endswith(".npz") for name in args.what):
        return _check_file(args)
    found = find_entries(args.source, args.what or None)
    entries = [e for e in found if args.what or e.card() or (args.source != EMBEDDED and not e.data_missing())]
    if not entries:
        print(f"offmarl: nothing to check: no dataset of {args.source} is here", file=sys.stderr)
        return 3
    doubtful = 0
    for entry in entries:
        print(f"{entry.task.name}:{entry.quality} ({args.source})")
        for sound, text in _findings(entry, args.source):
            print(f"  {'  ' if sound else '! '}{text}")
            doubtful += not sound
    print(f"{len(entries)} datasets, {doubtful} doubts")
    return 1 if doubtful else 0


def _findings(entry: "Entry", source: str) -> "list[Finding]":
    """What `datasets.check` finds on a dataset and beside the others of its task."""
    from offmarl.datasets.catalogue import catalogue
    from offmarl.datasets.check import Finding, inspect_dataset, shared_episodes

    try:
        data, card = entry.load()
        found = [Finding(False, line) for line in entry.changed_files()]
    except (ValueError, OSError) as error:
        return [Finding(False, str(error))]
    found += inspect_dataset(data, card)
    for (task, quality), other in catalogue(source).items():
        if task == entry.task.name and quality != entry.quality and not (entry.mix or other.mix) and other.card():
            found.append(shared_episodes(data, other.load()[0], quality))
    return found


def _check_file(args: argparse.Namespace) -> int:
    from offmarl.benchmarks.tasks import tasks
    from offmarl.datasets.dataset import read

    if args.task is None:
        raise UserError(f"{args.what[0]}: say whose data they are, for example --task mamujoco/3hopper")
    task = tasks()[check_name("task", args.task, tasks())]
    for name in args.what:
        try:
            facts = read(Path(name), task).statistics()
        except (OSError, ValueError) as error:
            raise UserError(str(error)) from error
        print(f"{name}: sound, fits {task.name}; " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    return 0


def _card(args: argparse.Namespace) -> int:
    from offmarl.experiments.commands.options import writable
    from offmarl.reports import card as page

    if ":" not in args.dataset:
        raise UserError(f"{args.dataset}: write task:quality, for example smac/3m:good")
    (entry,) = find_entries(args.source, [args.dataset])
    try:
        data, card = entry.load()
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    folder, stem = writable(args.out), f"{args.dataset}-{args.source}".replace("/", "-").replace(":", "-")
    findings = [("" if sound else "**Doubtful:** ") + text for sound, text in _findings(entry, args.source)]
    text = page.markdown(card, findings, f"{stem}.png")
    (folder / f"{stem}.md").write_text(text, encoding="utf-8")
    page.histogram(data.returns(), card).savefig(folder / f"{stem}.png", dpi=160)
    print(text)
    print(f"written: {folder / stem}.md, {folder / stem}.png")
    return 0


def _record(args: argparse.Namespace) -> int:
    if args.policy is not None:
        return _record_policy(args)
    from offmarl.datasets.catalogue import EMBEDDED
    from offmarl.experiments.launch.prepare_data import prepare

    failures = prepare(find_recipes(listed(args.tasks)), EMBEDDED, max(1, args.jobs))
    for failure in failures:
        print(f"offmarl: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _record_policy(args: argparse.Namespace) -> int:
    from offmarl.experiments.commands import record_policy as playing

    names = listed(args.tasks) or []
    if len(names) != 1 or args.out is None or args.out.suffix != ".npz":
        raise UserError("--policy: name one task and a file, for example --tasks smac/3m --out mine.npz")
    task = find_recipes(names)[0].task
    if args.episodes < 1:
        raise UserError(f"--episodes {args.episodes}: write a number of at least 1")
    facts = playing.record_policy(task, args.policy, args.episodes, args.out)
    print(f"written: {args.out}; " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    return 0


def _train(args: argparse.Namespace) -> int:
    taught = [r for r in find_recipes([args.task]) if r.behaviours == "trained"]
    if not taught:
        raise UserError(f"{args.task}: its behaviours are scripted, there is nothing to train")
    from importlib import import_module

    from offmarl.datasets.embedded import actors as behaviours

    task, out = taught[0].task, args.out or behaviours.path(taught[0].task)
    trainer = import_module(f"offmarl.datasets.embedded.train_{task.engine}")
    budget = trainer.Budget(**taught[0].training)
    chosen = trainer.train_behaviours(task, {r.quality: r.target for r in taught}, budget, out)
    for quality, picks in chosen.items():
        print(f"{quality}: " + ", ".join(f"run {r} at {n:,} steps (return {score})" for r, n, score in picks))
    print(f"written: {out}")
    return 0
