"""The command `offmarl doctor`: what is installed, which version, what is missing, and how to get it.

It has to work where things are broken: every check imports what it needs, and one that fails becomes a warning.
"""

import argparse
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata, util
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from offmarl.benchmarks.source import first_line
from offmarl.datasets.public.sources import sources
from offmarl.experiments.commands.options import examples
from offmarl.experiments.launch.workers import core_count

EMBEDDED = "embedded"
MARKS = {"ok": "ok", "missing": "--", "warning": "!!"}
LEAST_GB = 10  # of free disk
CUDA = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126 (or as the driver asks)"
Found = tuple[str, str, str]  # the last three of an Item


class Item(NamedTuple):
    """One line: `state` is ok, missing or warning; `fix` says what to do, if there is anything."""

    section: str
    name: str
    state: str
    found: str
    fix: str


def doctor_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(("doctor", "packages, hardware, StarCraft, data, caches"))
    parser.set_defaults(command=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    items = examine()
    width = max(len(item.name) for item in items)
    for section, group in groupby(items, lambda item: item.section):
        print(section)
        for item in group:
            print(f"  {MARKS[item.state]}  {item.name:{width}}  {item.found}")
            if item.fix:
                print(f"{'':{width + 8}}to fix: {item.fix}")
    return 0 if next(item for item in items if item.name == EMBEDDED).state == "ok" else 1


def examine() -> list[Item]:
    """Check everything."""
    required = [text for text in metadata.requires("offmarl") or [] if "extra ==" not in text]
    cache, data = partial(_disk, "OFFMARL_CACHE"), partial(_disk, "OFFMARL_DATA")
    engines = {name: partial(_engine, name) for name in ("smac", "smacv2", "smac_omiga")}
    runnable = {EMBEDDED: partial(_embedded, required)} | {name: partial(_runnable, name) for name in sources()}
    checks: dict[str, dict[str, Callable[[], Found]]] = {
        "Python and packages": {"Python": _python} | {text: partial(_package, text) for text in required},
        "Hardware": {"computer": _computer, "GPU": _gpu, "disk of the cache": cache, "disk of public data": data},
        "Real StarCraft (optional)": engines | {"game and maps": _game},
        "Public data (optional)": {name: partial(_source, name) for name in sources()} | {"OMAR's prey": _prey},
        "Caches": {"datasets": _cached},
        "What can run now": runnable,
    }
    return [_item(section, name, check) for section, named in checks.items() for name, check in named.items()]


def _item(section: str, name: str, check: Callable[[], Found]) -> Item:
    try:
        return Item(section, name, *check())
    except Exception as error:  # whatever a broken installation raises
        fix = "follow the message; first install packages missing above"
        return Item(section, name, "warning", first_line(error), fix)


def _python() -> Found:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return "ok", found, ""
    return "warning", found, "install Python 3.11, 3.12 or 3.13, then PYTHON=/path/to/python3.12 ./run_all.sh doctor"


def _package(requirement: str) -> Found:
    fix = f'pip install "{requirement}", or ./run_all.sh doctor, which sets up the locked versions'
    try:
        found = metadata.version(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    except metadata.PackageNotFoundError:
        return "missing", "missing", fix
    with suppress(ImportError):  # of packaging, which other packages bring along
        from packaging.requirements import Requirement

        if not Requirement(requirement).specifier.contains(found, prereleases=True):
            return "warning", f"{found} does not fit", fix
    return "ok", found, ""


def _computer() -> Found:
    import psutil

    memory = psutil.virtual_memory()
    return "ok", f"{core_count()} cores, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free", ""


def _gpu() -> Found:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        kinds = Counter(f"{card.name} of {card.total_memory / 1e9:.0f} GB" for card in cards)
        return "ok", ", ".join(f"{count} x {kind}" for kind, count in kinds.items()), ""
    if shutil.which("nvidia-smi") is None:
        return "ok", "none; CPU", ""
    return "warning", f"nvidia-smi is here, but torch {torch.__version__} sees no CUDA", CUDA


def _disk(variable: str) -> Found:
    from offmarl.benchmarks.env import cache_dir
    from offmarl.datasets.public.releases import data_dir

    path = (data_dir if variable == "OFFMARL_DATA" else cache_dir)().absolute()
    free = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free / 1e9
    found = f"{free:.1f} GB free at {path} ({'' if os.environ.get(variable) else 'default; set '}${variable})"
    return ("ok", found, "") if free >= LEAST_GB else ("warning", found, f"make room, or export {variable}=/more/room")


def _engine(name: str) -> Found:
    from offmarl.benchmarks.starcraft.packages import facts, package_lacks

    fix, spec = "; ".join(package_lacks(name)), util.find_spec("smac") if name == "smac" else None
    if spec and spec.origin and not (Path(spec.origin).parent / "env/starcraft2").is_dir():
        version = next((found.version for found in metadata.distributions(name="smac")), "of no known version")
        fix = fix if "pip uninstall" in fix else f"pip uninstall -y smac; then: {fix}"
        return "warning", f"this `smac` {version} is AutoML's optimiser, not StarCraft", fix
    found = ", ".join(f"{package} {version}" for package, version in facts(name).items())
    return "missing" if fix else "ok", found or "missing", fix


def _game() -> Found:
    from offmarl.benchmarks.starcraft.packages import PACKAGES, facts, game_lacks, home

    build, maps = facts("smac").get("starcraft"), len([*home().glob("Maps/SMAC_Maps/*.SC2Map")])
    lacks = dict.fromkeys(lack for engine in PACKAGES for lack in game_lacks(engine))
    chosen = "" if os.environ.get("SC2PATH") else "default; set "
    found = f"{build or 'no Versions/Base*'}, {maps} maps in {home()} ({chosen}$SC2PATH)"
    return ("missing" if lacks else "ok"), found, "; ".join(lacks)


def _source(name: str) -> Found:
    from offmarl.datasets.public.layouts import files_read
    from offmarl.datasets.public.releases import catalogue

    entries = list(catalogue(name).values())
    missing = [entry for entry in entries if entry.data_missing() or entry.data_fault()]
    damaged = [entry for entry in missing if not entry.data_missing()]
    paths = {path for entry in entries for part, _ in entry.parts() if (path := part.found())}
    size = sum(file.stat().st_size for path in paths for file in files_read(path)) / 1e9
    left = sum({entry.task.name: entry.facts.gigabytes for entry in missing}.values())
    found = f"{len(entries) - len(missing)} of {len(entries)} datasets, {size:.2f} GB"
    found += f", {len(damaged)} damaged (data list)" if damaged else ""
    return ("missing", found, f"offmarl data get --source {name}  # {left:.2f} GB") if missing else ("ok", found, "")


def _prey() -> Found:
    from offmarl.benchmarks.mpe import load_prey
    from offmarl.datasets.public.releases import catalogue

    entries = [entry for name in sources() for entry in catalogue(name).values() if "prey" in entry.task.roster]
    files = {entry.task: Path(entry.task.roster["weights"]).expanduser() for entry in entries}
    missing = ",".join(task.name for task, file in files.items() if not file.exists())
    if missing and not os.environ.get("OFFMARL_PREY"):
        return "missing", "missing", f"offmarl data get --source omar --tasks {missing}, or set $OFFMARL_PREY"
    return "ok", ", ".join(f"{task.name} {load_prey(task.short, file).name}" for task, file in files.items()), ""


def _cached() -> Found:
    from offmarl.benchmarks.env import cache_dir

    sizes = [file.stat().st_size for file in (cache_dir() / "data").rglob("*") if file.is_file()]
    return "ok", f"{len(sizes)} files, {sum(sizes) / 1e9:.2f} GB in {cache_dir() / 'data'}", ""


def _embedded(required: list[str]) -> Found:
    if missing := [text for text in required if _package(text)[0] == "missing"]:
        return "missing", f"missing: {', '.join(missing)}", ""
    from offmarl.datasets.catalogue import originals

    return "ok", f"ready: {len(originals(EMBEDDED))} datasets, recorded on first use", ""


def _runnable(name: str) -> Found:
    from offmarl.benchmarks.tasks import unavailable
    from offmarl.datasets.public.releases import catalogue

    entries = list(catalogue(name).values())
    runs = sum(not (entry.unavailable() or entry.data_fault()) for entry in entries)
    games = sum(bool(unavailable(entry.task)) for entry in entries)
    return "ok" if runs == len(entries) else "missing", f"{runs} of {len(entries)} datasets; {games} need StarCraft", ""
