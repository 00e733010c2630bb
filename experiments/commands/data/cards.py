"""`offmarl data card` and `data compare`: what is known of a dataset, and of two beside each other."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import (
    MOST_PROCESSES,
    data_source,
    declare,
    find_entries,
    new_file,
    processes_of,
    writable,
)
from offmarl.experiments.errors import UserError
from offmarl.reports.records.files import replacing

if TYPE_CHECKING:
    from offmarl.datasets.catalogue import Entry
    from offmarl.datasets.check import Finding
    from offmarl.datasets.dataset import Dataset

FROM = "embedded (default), tuning, og_marl, omiga, omar, or own: your own data (default with --task)"


def card_options(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare both among the actions of `offmarl data`."""
    text = "write cards of datasets: facts, measures, a histogram of returns, and what the site shows of them"
    every = ("data card", "every dataset that is here; the site of these results shows them")
    one = add("card", text, _card, ("data card smac/3m:good", "into results/cards"), every)
    text = "smac/3m:good (default: all of the source that are here)"
    one.add_argument("datasets", nargs="*", metavar="DATASET", help=text)
    one.add_argument("--source", help=FROM)
    declare(one, "--task")
    text = "folder (default: results/cards), or a .tar.xz of numbers, which keeps the cards that are in it"
    one.add_argument("--out", type=Path, default=Path("results/cards"), help=text)
    text = f"datasets at once, each of which may take 2 GB of memory (default: cores, at most {MOST_PROCESSES})"
    declare(one, "--jobs", help=text)

    text = "set the measures of two datasets beside each other, and what they have in common"
    one = add("compare", text, _compare, ("data compare smac/3m:good smac/3m:poor", "a minute or two the first time"))
    one.add_argument("datasets", nargs=2, metavar="DATASET", help="smac/3m:good")
    one.add_argument("--source", help=FROM)
    declare(one, "--task")


def findings(entry: "Entry", source: str) -> "list[Finding]":
    """The findings on a dataset, alone and compared with the others of its task."""
    from offmarl.datasets.check import Finding, inspect_dataset, shared_episodes

    try:
        data, card = entry.load()
        found = [Finding(False, line) for line in entry.changed_files()]
    except (ValueError, OSError) as error:
        return [Finding(False, str(error))]
    found += inspect_dataset(data, card)
    return found + [shared_episodes(data, other.load()[0], other.quality) for other in _siblings(entry, source)]


def _card(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from offmarl.experiments.launch.prepare_data import prepare
    from offmarl.experiments.store.archive import SUFFIX

    source = data_source(args)
    named = _entries(args.datasets, source)
    entries = named or [entry for entry in find_entries(None, source) if entry.card()]
    if not entries:
        raise UserError(f"there is no dataset of {source} here; name one, and it is made")
    jobs, alone = processes_of(args), len(entries) == 1
    if not alone and (
        failures := prepare(entries, source, jobs)
    ):  # all first: a card compares with those that are here
        raise UserError("; ".join(failures))
    quiet = True if alone else None
    with (
        _place(args.out) as folder,
        tqdm(total=len(entries), desc="measuring", unit="dataset", leave=False, disable=quiet) as bar,
    ):
        for text, stem in _written(entries, source, folder, min(jobs, len(entries))):
            into = f"{args.out}: {stem}" if args.out.name.endswith(SUFFIX) else f"{folder / stem}.md, .png, .json"
            bar.write((text if alone else "") + f"written: {into}")
            bar.update()
    return 0


def _written(entries: "list[Entry]", source: str, folder: Path, jobs: int) -> Iterator[tuple[str, str]]:
    """Write the cards, some at a time; text and stem of each when it is done.

    Raises UserError for a dataset that cannot be made, and where a process died.
    """
    if jobs == 1:
        yield from (_write(entry, source, folder) for entry in entries)
        return
    from concurrent.futures import as_completed

    from offmarl.experiments.processes import processes

    with processes(jobs) as pool:
        work = [pool.submit(_write_named, f"{e.task.name}:{e.quality}", source, folder) for e in _by_turns(entries)]
        yield from (done.result() for done in as_completed(work))


def _by_turns(entries: "list[Entry]") -> "list[Entry]":
    """One of every task, then the next of every task: what two of a task have in common is seldom measured by both."""
    tasks = [entry.task.name for entry in entries]
    return [entries[k] for k in sorted(range(len(entries)), key=lambda k: tasks[:k].count(tasks[k]))]


def _write_named(name: str, source: str, folder: Path) -> tuple[str, str]:
    """`_write`, in a process of its own."""
    return _write(find_entries([name], source)[0], source, folder)


@contextmanager
def _place(out: Path) -> Iterator[Path]:
    """The folder to write cards into: `out`, or one that is packed into `out` at the end, with what was in it."""
    from offmarl.experiments.store.archive import CARDS, SUFFIX, pack_cards, unpacked

    if not out.name.endswith(SUFFIX):
        yield writable(out, "--out")
        return
    new_file(out)
    before = [out] if out.exists() else []
    with unpacked(*before) as results:
        yield results / CARDS
        with replacing(out) as draft:
            pack_cards(results / CARDS, draft)


def _write(entry: "Entry", source: str, folder: Path) -> tuple[str, str]:
    """Write a dataset's card; its text, and the stem of its files."""
    import torch

    from offmarl.datasets.measures.measure import VERSION, measures, relations, shown
    from offmarl.reports import card as page
    from offmarl.reports.measures import related

    torch.set_num_threads(1)  # for small networks no slower; and the same numbers by any number of jobs
    data, card = _loaded(entry)
    stem = f"{entry.task.name}-{entry.quality}-{source}".replace("/", "-")
    checked = [("" if sound else "**Doubtful:** ") + text for sound, text in findings(entry, source)]
    others = {other.quality: relations(entry, data, other) for other in _siblings(entry, source)}
    facts = {key: card[key] for key in ("dataset", "source", "sha256")} | {"measures": measures(entry, data, card)}
    facts |= {"relations": others, "pictures": shown(entry, data, card), "key": entry.key(), "version": VERSION}
    told = [related(relation, entry.quality, other) for other, relation in others.items()]
    shared = {key: text for found in told for key, text in found.items()}
    text = page.markdown(card, checked, f"{stem}.png", facts["measures"], shared)
    (folder / f"{stem}.md").write_text(text, encoding="utf-8")
    (folder / f"{stem}.json").write_text(json.dumps(facts), encoding="utf-8")
    page.histogram(data.returns(), card).savefig(folder / f"{stem}.png", dpi=160)
    return text, stem


def _compare(args: argparse.Namespace) -> int:
    from offmarl.datasets.measures.measure import measures, relations
    from offmarl.reports.measures import described, related
    from offmarl.reports.tables.markdown import table

    one, other = _entries(args.datasets, data_source(args))
    (ours, card), (theirs, their_card) = _loaded(one), _loaded(other)
    columns = described(measures(one, ours, card)), described(measures(other, theirs, their_card))
    print(table(["", *args.datasets], [[name, text, columns[1].get(name, "")] for name, text in columns[0].items()]))
    if one.task == other.task and one.quality != other.quality:
        shared = related(relations(one, ours, other), one.quality, other.quality)
        print("\n" + "\n".join(f"{name}: {text}" for name, text in shared.items()))
    return 0


def _loaded(entry: "Entry") -> "tuple[Dataset, dict[str, Any]]":
    """A dataset and its card. Raises UserError where it cannot be made."""
    try:
        return entry.load()
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _entries(names: list[str], source: str) -> "list[Entry]":
    """The datasets of these names. Raises UserError where one is unknown."""
    for name in names:
        if ":" not in name:
            raise UserError(f"{name}: must be task:quality, for example smac/3m:good")
    return [find_entries([name], source)[0] for name in names]


def _siblings(entry: "Entry", source: str) -> "Iterator[Entry]":
    """The task's other datasets that are in the cache, mixes aside."""
    from offmarl.datasets.catalogue import catalogue

    for (task, quality), other in catalogue(source).items():
        if task == entry.task.name and quality != entry.quality and not (entry.mix or other.mix) and other.card():
            yield other
