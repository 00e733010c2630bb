"""The public datasets: found in the data folder, converted once, memory-mapped from then on.

The data folder is $OFFMARL_DATA, else `public` in the cache. A dataset lies in it as OG-MARL's archive unpacks
(`omiga/mamujoco/3hopper.vlt/Expert`), or as its makers published it (`omiga/Hopper-v2-3x1-expert.hdf5`); both read the
same. What is converted lies in the cache, named by the source's files and their sizes.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from offmarl.benchmarks.env import cache_dir
from offmarl.benchmarks.tasks import Task, tasks, unavailable
from offmarl.datasets.dataset import Dataset, file_sum
from offmarl.datasets.public.convert import Ends, convert, intact, read, read_card, written
from offmarl.datasets.public.download import Download
from offmarl.datasets.public.layouts import Recording, open_hdf5, open_npy, open_vault
from offmarl.datasets.public.lockfile import verify
from offmarl.datasets.public.sources import sources

FORMAT = 1
QUALITIES = ("good", "medium", "poor", "replay", "expert", "medium-expert", "medium-replay", "random")
HUB = "https://huggingface.co"  # $HF_ENDPOINT names a mirror, as for its own tools
DIFFERENCES = ("engine", "obs", "state")  # of a task, from the embedded one


@dataclass(frozen=True)
class Release:
    """One public dataset. `target` is the published mean return and its standard deviation, None where it is a mix."""

    task: Task
    quality: str
    source: str
    title: str
    licence: str
    page: str
    downloads: tuple[Download, ...]
    gigabytes: float  # of the download, shared by all qualities of a task
    vault: str
    original: str
    ends: Ends
    target: tuple[float, float] | None
    mix: Mapping[str, float] | None  # instead of files: shares of the task's other datasets

    def paths(self) -> list[Path]:
        """Where the dataset is looked for."""
        places = [self.vault, *([self.original] if self.original else [])]
        return [data_dir() / self.source / place for place in places]

    def found(self) -> Path | None:
        """The first of these that is there."""
        return next((path for path in self.paths() if path.exists()), None)

    def parts(self) -> list[tuple["Release", float]]:
        """The datasets that this one is made of: (dataset, share of its episodes)."""
        if not self.mix:
            return [(self, 1.0)]
        return [(catalogue(self.source)[self.task.name, quality], share) for quality, share in self.mix.items()]

    def absent(self) -> str:
        """Why the data are not here and what to do; empty where they are."""
        if all(part.found() for part, _ in self.parts()):
            return ""
        return f"no data at {self.paths()[0].parent}: {self._get()} ({self.gigabytes} GB)"

    def missing(self) -> str:
        """Why nothing can be trained on it and what to do; empty where all is here."""
        reasons, prey = [self.absent()], self.task.roster.get("weights")
        if prey and not Path(prey).expanduser().exists():
            reasons.append(f"OMAR's prey is missing: {self._get()}, or put it at {prey}")
        return "; ".join(filter(None, [*reasons, unavailable(self.task)]))

    def _get(self) -> str:
        return f"`offmarl data get --source {self.source} --tasks {self.task.name}`"

    def state(self) -> str:
        """Where it stands, in a few words."""
        if self.absent():
            return f"not here, {self.gigabytes} GB to download"
        size = sum(file.stat().st_size for part, _ in self.parts() for file in files(part.found()))
        return f"here ({size / 1e9:.2f} GB), converted on first use"

    def key(self) -> str:
        """Eight hex digits of what decides the content: the files' names and sizes, and how they are read."""
        facts: list[Any] = [FORMAT, self.task.agents, self.task.obs, self.task.state, self.task.limit, self.ends]
        for part, share in self.parts():
            path = part.found()
            facts += [
                share,
                [] if path is None else [(str(f.relative_to(path)), f.stat().st_size) for f in files(path)],
            ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]

    def place(self) -> Path:
        """Where the converted arrays are kept."""
        return cache_dir() / "data" / f"{self.task.name.replace('/', '-')}-{self.quality}-{self.source}-{self.key()}"

    def card(self) -> dict[str, Any] | None:
        """The card of the converted dataset, whose arrays are not looked at; None where there is none."""
        return read_card(self.place())

    def ready(self) -> dict[str, Any] | None:
        """The card of the converted dataset; None when it must be converted."""
        return intact(self.place())

    @property
    def work(self) -> int:
        """Rows to convert, of all columns together."""
        return sum(one.length * len(written(one)) for one in self._openable())

    def disk(self) -> int:
        """Bytes of the arrays: four each number, a row more for every ten (episodes are longer)."""
        task = self.task
        row = 4 * (task.agents * (task.obs + task.actions + 1) + task.state) + 16
        return int(1.1 * row * sum(one.length for one in self._openable()))

    def _openable(self) -> list[Recording]:
        """What can be read; whatever is wrong with it is said when it is converted."""
        try:
            return [one for one, _ in self.recordings()]
        except ValueError:
            return []

    def recordings(self) -> list[tuple[Recording, float]]:
        """What is read, and the share of its episodes."""
        return [(one, share) for part, share in self.parts() for one in part.open()]

    def load(self, progress: Callable[[int], object] = lambda _: None) -> tuple[Dataset, dict[str, Any]]:
        """The dataset and its card, converted now if it has not been.

        Raises:
            ValueError: naming file, key and row of a fault, or what is missing.
        """
        card = self.ready()
        if card is None:
            card = self.convert(progress)
        return read(self.place()), card

    def convert(self, progress: Callable[[int], object] = lambda _: None) -> dict[str, Any]:
        """Convert the files anew; `progress` is told rows."""
        facts = {
            "dataset": f"{self.task.name}:{self.quality}",
            "source": self.source,
            "licence": self.licence,
            "origin": self.page,
            "published_mean": self.target and self.target[0],
            "published_std": self.target and self.target[1],
            "mix": self.mix,
            "files": {str(part.found()): folder_sum(part.found()) for part, _ in self.parts()},
        }
        return convert(self.recordings(), self.task, self.ends, self.place(), facts, progress)

    def wanted(self) -> list[Download]:
        """What is still to be downloaded."""
        prey = self.task.roster.get("weights")
        lacks = {True: bool(self.absent()), False: bool(prey) and not Path(prey).expanduser().exists()}
        return [download for download in self.downloads if lacks[download.unpack]]

    def changed(self) -> list[str]:
        """Files behind the dataset that are not what was once downloaded, a line each."""
        paths = [path for part, _ in self.parts() if (path := part.found())]
        return verify(data_dir(), [path.relative_to(data_dir()).as_posix() for path in paths])

    def open(self) -> list[Recording]:
        """The recordings behind the dataset."""
        path = self.found()
        if path is None:
            raise ValueError(f"{self.task.name}:{self.quality}: {self.absent()}")
        if path.suffix == ".hdf5":
            return open_hdf5(path)
        return open_vault(path) if (path / "metadata.json").exists() else open_npy(path, self.task.agents)


def data_dir() -> Path:
    """Where public data lie: $OFFMARL_DATA or `public` in the cache."""
    return Path(os.environ.get("OFFMARL_DATA") or cache_dir() / "public").expanduser().resolve()


def files(path: Path | None) -> list[Path]:
    """A file, or all files of a folder."""
    if path is None:
        return []
    return [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())


def folder_sum(path: Path | None) -> str:
    """SHA-256 of a file; of a folder, that of its files' names and sums."""
    if path is not None and path.is_file():
        return file_sum(path)
    sums = [] if path is None else [(str(f.relative_to(path)), file_sum(f)) for f in files(path)]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def catalogue(source: str) -> dict[tuple[str, str], Release]:
    """Every dataset of a public source by task and quality."""
    return _catalogue(source, os.environ.get("OFFMARL_PREY") or "", data_dir(), os.environ.get("HF_ENDPOINT") or HUB)


@cache
def _catalogue(source: str, prey: str, root: Path, hub: str) -> dict[tuple[str, str], Release]:
    publisher, found = sources()[source], {}
    for name, entry in publisher["tasks"].items():
        task = _task(name, entry, prey or str(root / source / "prey" / f"simple_{tasks()[name].short}.pt"))
        for quality in [q for q in entry if q in QUALITIES]:
            found[name, quality] = _release(source, publisher, task, quality, entry, hub.rstrip("/"))
    return found


def _task(name: str, entry: Mapping[str, Any], prey: str) -> Task:
    """The embedded task with what its real environment, or the data, have otherwise."""
    task = replace(tasks()[name], note="", **{key: entry[key] for key in DIFFERENCES if key in entry})
    roster = task.roster | ({"physics": entry["physics"]} if "physics" in entry else {})
    return replace(task, roster=roster | ({"weights": prey} if "prey" in roster else {}))


def _release(
    source: str, publisher: Mapping[str, Any], task: Task, quality: str, entry: Mapping[str, Any], hub: str
) -> Release:
    archive, how = entry["archive"], entry[quality]
    mixed = isinstance(how, Mapping)
    url, into = publisher["url"].format(archive=archive), f"{source}/{archive.split('/')[0]}"
    mirrors = dict.fromkeys([url.replace(HUB, hub), url])  # the user's own first
    downloads = [Download(tuple(mirrors), into, unpack=True)]
    if "prey" in task.roster:
        url = publisher["prey"].format(short=task.short)
        downloads.append(Download((url,), f"{source}/prey/simple_{task.short}.pt", unpack=False))
    return Release(
        *(task, quality, source, publisher["title"], publisher["licence"], publisher["page"]),
        downloads=tuple(downloads),
        gigabytes=entry["gigabytes"],
        vault=f"{archive}.vlt/{quality.title()}",
        original=entry.get("original", "").format(quality=quality),
        ends=entry["ends"],
        target=None if mixed else tuple(how),
        mix=how if mixed else None,
    )
