"""The command `offmarl watch`: what a stored policy does on its evaluation episodes, or what is in the data."""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from offmarl.experiments.commands import options
from offmarl.experiments.errors import UserError, check_name

if TYPE_CHECKING:
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.replay import Stored
    from offmarl.reports.records.replay import Replay

ENDINGS = (".html", ".gif", ".mp4", ".replay")


def watch_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = options.examples(
        ("watch RUN_ID", "its worst, median and best evaluation episode, as a page"),
        ("watch smac/3m:poor bc --beside mac_flow --reference", "two that ship, on the same starts; else your newest"),
        ("watch RUN_ID --episode 7 --out seven.gif", "one episode as a moving picture"),
        ("watch --data smac/3m:poor", "episodes of a dataset: lowest, median and highest return"),
    )
    text = "a run's name in <results>/runs, a dataset (task:quality) with METHOD, or a file.replay"
    parser.add_argument("what", nargs="?", metavar="RUN", help=text)
    parser.add_argument("method", nargs="?", metavar="METHOD", help="the method that learnt from the dataset")
    parser.add_argument("--beside", metavar="METHOD", help="another method, on the same starts")
    parser.add_argument("--data", metavar="DATASET", help="show recorded episodes of a dataset instead")
    parser.add_argument("--source", help="of the dataset (default: embedded, or what its runs have)")
    text = "the episode's number (default: those of the lowest, the median and the highest return)"
    parser.add_argument("--episode", type=int, help=text)
    parser.add_argument("--seed", type=int, help="of the run (default: the lowest one)")
    parser.add_argument("--play", help="own: with the method's own noise; zero: without (default: the first evaluated)")
    text = "an .html page, or of one episode a .gif, .mp4 or .replay (default: a page in <results>/replays)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    text = "show the policies that ship with offmarl; the first of the reference results' seeds, on some datasets"
    parser.add_argument("--reference", action="store_true", help=text)
    options.declare(parser, *options.METHOD_FILE, "--task", "--results")
    parser.set_defaults(command=_watch)


def _watch(args: argparse.Namespace) -> int:
    if args.out and args.out.suffix not in ENDINGS:
        raise UserError(f"--out {args.out}: write a name that ends in {', '.join(ENDINGS)}")
    if args.out and args.out.suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise UserError(f"--out {args.out}: imageio's ffmpeg is missing; .venv/bin/pip install imageio-ffmpeg")
    if (args.data is None) == (args.what is None):
        raise UserError("name a run, a dataset and a method, or --data with a dataset")
    if args.data is not None:
        name, scenes = _of_data(args)
    elif args.what.endswith(".replay"):
        if given := _given(args, "method", "beside", "source", "episode", "seed", "play"):
            raise UserError(f"{given}: a .replay is one episode of one run; leave it out")
        from offmarl.reports.records.replay import read

        try:
            scenes = {Path(args.what).name: [read(Path(args.what))]}
        except OSError as error:
            raise UserError(f"{args.what}: cannot be read ({error.strerror})") from error
        name = Path(args.what).stem
    else:
        with _store(args) as store:
            name, scenes = _of_runs(args, store)
    _tell(scenes)
    out = args.out or args.results / "replays" / f"{re.sub(r'[^a-zA-Z0-9_.+-]+', '-', name)}.html"
    options.new_file(out)
    _write(out, scenes)
    if args.out is None:
        _keep(args.results / "replays", scenes)
    print(f"written: {out} ({out.stat().st_size / 1000:.0f} KB)")
    return 0


def _given(args: argparse.Namespace, *names: str) -> str:
    """Those of these options that were given, as they are typed."""
    given = [name for name in names if getattr(args, name) is not None]
    return ", ".join(name.upper() if name == "method" else f"--{name}" for name in given)


def _of_data(args: argparse.Namespace) -> "tuple[str, dict[str, list[Replay]]]":
    """Recorded episodes."""
    from offmarl.experiments.training.replay import replay_data

    if ":" not in args.data:
        raise UserError(f"--data {args.data}: must be task:quality, for example smac/3m:good")
    if given := _given(args, "method", "beside", "seed", "play"):
        raise UserError(f"--data: shows what was recorded; leave {given} out")
    (entry,) = options.find_entries([args.data], source := options.data_source(args))
    episodes = None if args.episode is None else {f"episode {args.episode}": args.episode}
    return f"data-{args.data}", {k: [one] for k, one in replay_data(entry, source, episodes).items()}


@contextmanager
def _store(args: argparse.Namespace) -> "Iterator[Store]":
    """The store that is meant: the person's own, or within the block what ships."""
    from offmarl.experiments.store.archive import shipped, unpacked
    from offmarl.experiments.store.store import Store

    with unpacked(*shipped()) if args.reference else nullcontext(args.results) as results:
        yield Store(options.existing(results))


def _of_runs(args: argparse.Namespace, store: "Store") -> "tuple[str, dict[str, list[Replay]]]":
    """The episodes of a run, those of another method beside them."""
    from offmarl.experiments.training.replay import Stored, replay_run

    runs = [_find(args, store)]
    if args.beside:
        cell = runs[0].record["cell"]
        like = {key: cell[key] for key in ("task", "quality", "source", "profile", "seed")}
        runs.append(Stored(runs[0].store, *_newest(runs[0].store, {**like, "algorithm": args.beside}), runs[0].play))
    chosen = runs[0].chosen() if args.episode is None else {f"episode {args.episode}": args.episode}
    columns = [replay_run(run, list(chosen.values())) for run in runs]
    name = runs[0].run_id + (f"-beside-{args.beside}" if args.beside else "")
    return name, {label: list(replays) for label, replays in zip(chosen, zip(*columns, strict=True))}


def _find(args: argparse.Namespace, store: "Store") -> "Stored":
    """The run that is meant."""
    from offmarl.experiments.training.replay import Stored

    if args.method is None:
        if given := _given(args, "source", "seed"):
            raise UserError(f"{given}: a run already fixes it; to choose by it, name task:quality and a method")
        name = Path(args.what).name  # a folder's name is that of its run
        if ":" in args.what:
            raise UserError(f"{args.what}: name a method, too, or look at --data {args.what}")
        if (record := store.peek(check_name("run", name, store.run_ids()), all_files=True)) is None:
            raise UserError(f"{name}: is damaged; `offmarl run` trains it again")
        return Stored(store, name, record, args.play)
    task, colon, quality = args.what.partition(":")
    if not colon:
        raise UserError(f"{args.what}: must be task:quality, for example smac/3m:good")
    cell = {"task": task, "quality": quality, "source": args.source, "algorithm": args.method, "seed": args.seed}
    return Stored(store, *_newest(store, {key: part for key, part in cell.items() if part is not None}), args.play)


def _newest(store, cell: Mapping[str, object]) -> tuple[str, dict]:
    """The run of a cell: of the settings that finished last, the lowest seed. UserError where there is none."""
    from offmarl.experiments.store.reading import readable

    records = [record for record in readable(store)[0].values() if record["status"] != "failed"]
    for key in ("task", "quality", "source", "algorithm", "profile", "seed"):  # the first part that nothing fits
        if key in cell:
            check_name(f"{key} among the stored runs:", str(cell[key]), {str(r["cell"][key]) for r in records})
            records = [record for record in records if record["cell"][key] == cell[key]]
    last = max(records, key=lambda one: (one["cell"]["source"] == "embedded", one.get("finished") or ""))
    same = [record for record in records if record["run_id"].rsplit(".s", 1)[0] == last["run_id"].rsplit(".s", 1)[0]]
    found = min(same, key=lambda record: record["cell"]["seed"])
    return found["run_id"], found


def _tell(scenes: "Mapping[str, Sequence[Replay]]") -> None:
    for label, replays in scenes.items():
        for head in (replay.header for replay in replays):
            same = {True: "the stored episode", False: f"not the stored episode ({head.stored})", None: ""}[head.same]
            where = f"{head.task}:{head.quality}, episode {head.episode}"
            print(
                f"{label}: {head.title}, {where}: return {head.return_:.5g}, {head.end} {same and f'({same})'}".strip()
            )


def _keep(folder: Path, scenes: "Mapping[str, Sequence[Replay]]") -> None:
    """Beside the page, replays that are the stored or recorded episodes and in no run: the site shows them."""
    from offmarl.reports.records import replay

    for one in (one for replays in scenes.values() for one in replays if one.header.same):
        head = one.header
        name = replay.file_name(head.play or "data", head.episode)
        group = head.run or f"{head.task.replace('/', '-')}.{head.quality}.{head.source}"
        if not (folder.parent / "runs" / group / name).exists():
            (folder / group).mkdir(parents=True, exist_ok=True)
            replay.write(folder / group / name, one)


def _write(out: Path, scenes: "Mapping[str, Sequence[Replay]]") -> None:
    if out.suffix == ".html":
        from offmarl.reports.replays import page

        heads = [replay.header for replay in next(iter(scenes.values()))]
        title = f"{' and '.join(head.title for head in heads)} on {heads[0].task} {heads[0].quality}"
        page.write(out, title, scenes)
        return
    label = "median" if "median" in scenes else next(iter(scenes))
    replays = scenes[label]
    print(f"{out.name} shows: {label}")
    if out.suffix in (".gif", ".mp4"):
        from offmarl.reports.replays import gif

        gif.write(out, replays)
        return
    from offmarl.reports.records import replay

    if len(replays) > 1:
        raise UserError(f"--out {out}: a .replay holds one episode; leave out --beside")
    replay.write(out, replays[0])
