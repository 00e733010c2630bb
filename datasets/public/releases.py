"""The public datasets: found in the data folder, converted once, memory-mapped from then on.

The data folder is $OFFMARL_DATA, else `public` in the cache. A dataset is there as OG-MARL's archive unpacks
(`omiga/mamujoco/3hopper.vlt/Expert`), or as its makers published it (`omiga/Hopper-v2-3x1-expert.hdf5`); both read the
same. Converted datasets are in the cache, named by the source's files and their sizes.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from offmarl.benchmarks.env import cache_dir
from offmarl.benchmarks.tasks import Task, tasks, unavailable
from offmarl.benchmarks.yaml_files import FileError, unknown
from offmarl.datasets.cache import Entry, Progress, no_progress
from offmarl.datasets.dataset import file_sum
from offmarl.datasets.public.convert import convert, converted_columns
from offmarl.datasets.public.download import Download, verify
from offmarl.datasets.public.episodes import cut_off
from offmarl.datasets.public.layouts import Recording, files_read, open_hdf5, open_npy, open_vault
from offmarl.datasets.public.sources import PublicTask, Source, sources

FORMAT = 3
DIFFERENCES = ("engine", "obs", "state")  # of a task, from the embedded one


@dataclass(frozen=True)
class Release(Entry):
    """One public dataset."""

    source: str
    publisher: Source
    facts: PublicTask  # shared by all qualities of a task

    @property
    def downloads(self) -> list[Download]:
        """The task's archive, and OMAR's prey where the task has one."""
        archive, publisher = self.facts.archive, self.publisher
        into, path = f"{self.source}/{archive.split('/')[0]}", publisher.path.format(archive=archive)
        prey = Download(
            f"{self.source}/prey/simple_{self.task.short}.pt", url=publisher.prey.format(short=self.task.short)
        )
        return [Download(into, publisher.repo, path, publisher.revision), *([prey] if self._prey() else [])]

    def paths(self) -> list[Path]:
        """Where the dataset is searched for: as OG-MARL's archive unpacks, and as its makers published it."""
        places = [f"{self.facts.archive}.vlt/{self.quality.title()}", self.facts.original.format(quality=self.quality)]
        return [data_dir() / self.source / place for place in filter(None, places)]

    def found(self) -> Path | None:
        """The first of these that is there, with what its layout begins with: an empty folder is none."""
        return next(filter(has_data, self.paths()), None)

    def parts(self) -> list[tuple["Release", float]]:
        """The datasets that this one is made of: (dataset, share of its episodes)."""
        if not self.mix:
            return [(self, 1.0)]
        return [(catalogue(self.source)[self.task.name, quality], share) for quality, share in self.mix.items()]

    def _here(self) -> list[Path]:
        """The files or folders of its parts that are there."""
        return [path for part, _ in self.parts() if (path := part.found())]

    def data_missing(self) -> str:
        """Why the data are not here and what to do; empty where they are."""
        if len(self._here()) == len(self.parts()):
            return ""
        return f"no data at {self.paths()[0].parent}: `{self._get()}` ({self.facts.gigabytes} GB)"

    def unavailable(self) -> str:
        """Why nothing can be trained on it and what to do; empty where it can."""
        prey = f"OMAR's prey is missing: `{self._get()}`, or put it at {self._prey()}" if self._prey_missing() else ""
        return "; ".join(filter(None, [self.data_missing(), prey, unavailable(self.task)]))

    def _get(self) -> str:
        return f"offmarl data get --source {self.source} --tasks {self.task.name}"

    def data_fault(self) -> str:
        """What is wrong with the files that are here, told by opening them; empty where they are sound or missing.

        Reads the first and the last row of every column, and compares the sizes of files with those downloaded.
        """
        try:
            for line in self.changed_files(sums=False):
                return line
            for one in (one for part, _ in self.parts() if part.found() for one in part.open()):
                for column in one.columns.values():
                    column.read(0, 1)
                    column.read(one.length - 1, one.length)
        except ValueError as error:
            return str(error)
        return ""

    def prey_fault(self) -> str:
        """The same of the prey, if it is the downloaded one."""
        if not self._prey() or self._prey_missing() or os.environ.get("OFFMARL_PREY"):
            return ""
        from offmarl.benchmarks.mpe import load_prey

        try:
            load_prey(self.task.short, self._prey())
        except ValueError as error:
            return str(error)
        return ""

    def _prey(self) -> str:
        return self.task.roster.get("weights", "")

    def _prey_missing(self) -> bool:
        return bool(self._prey()) and not Path(self._prey()).expanduser().exists()

    def state(self) -> str:
        """Whether the data are here and sound, in a few words, and the command that mends them."""
        if self.data_missing():
            return f"not here, {self.facts.gigabytes} GB to download"
        if fault := self.data_fault() or self.prey_fault():
            return f"damaged: {fault}; `{self._get()}` downloads it again"
        size = sum(file.stat().st_size for path in self._here() for file in files_read(path))
        return f"here ({size / 1e9:.2f} GB), converted on first use"

    def key(self) -> str:
        """Eight hex digits of what decides the content: the files' names and sizes, and how they are read."""
        facts: list[Any] = [FORMAT, self.task.agents, self.task.obs, self.task.state, self.task.limit, self.facts.ends]
        for part, share in self.parts():
            path = part.found()
            sizes = [(str(file.relative_to(path)), file.stat().st_size) for file in files_read(path)] if path else []
            facts += [share, sizes]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]

    def place(self) -> Path:
        """The folder of the converted arrays."""
        return cache_dir() / "data" / f"{self.task.name.replace('/', '-')}-{self.quality}-{self.source}-{self.key()}"

    @property
    def work(self) -> int:
        """Rows to convert, of all columns together."""
        return sum(one.length * len(converted_columns(one)) for one in self._readable())

    def disk(self) -> int:
        """Bytes of the arrays: four each number, a row more for every ten (episodes are longer)."""
        task = self.task
        row = 4 * (task.agents * (task.obs + task.actions + 1) + task.state) + 16
        return int(1.1 * row * sum(one.length for one in self._readable()))

    def _readable(self) -> list[Recording]:
        """The recordings; none if one is damaged, which `make` reports."""
        try:
            return [one for one, _ in self.recordings()]
        except ValueError:
            return []

    def recordings(self) -> list[tuple[Recording, float]]:
        """What is converted, and the share of its episodes."""
        return [(one, share) for part, share in self.parts() for one in part.open()]

    def make(self, progress: Progress = no_progress) -> dict[str, Any]:
        """Convert the files anew; `progress` is called with numbers of rows.

        Raises ValueError naming file, key and row of a fault, or what is missing, and what to do.
        """
        if reason := self.data_missing():
            raise ValueError(f"{self.task.name}:{self.quality}: {reason}")
        try:
            return self._convert(progress)
        except ValueError as error:
            raise ValueError(f"{error}; `{self._get()} --again` downloads it again") from error

    def _convert(self, progress: Progress) -> dict[str, Any]:
        facts = {
            "dataset": f"{self.task.name}:{self.quality}",
            "source": self.source,
            "licence": self.publisher.licence,
            "origin": self.publisher.page,
            "published_mean": self.target and self.target[0],
            "published_std": self.target and self.target[1],
            "mix": self.mix,
            "files": {str(part.found()): folder_sum(part.found()) for part, _ in self.parts()},
        }
        card = convert(self.recordings(), self.task, self.facts.ends, self.place(), facts, progress)
        for line in cut_off(card):
            print(f"{card['dataset']} ({self.source}): {line}", file=sys.stderr)
        return card

    def to_download(self) -> list[Download]:
        """What is still to be downloaded: what is missing or damaged."""
        data = bool(self.data_missing() or self.data_fault())
        prey = bool(self._prey_missing() or self.prey_fault())
        return [download for download in self.downloads if (data if download.unpack else prey)]

    def changed_files(self, sums: bool = True) -> list[str]:
        """Files behind the dataset that are not as they were downloaded, a line each; without `sums` by their sizes."""
        places = [path.relative_to(data_dir()).as_posix() for path in self._here()]
        return verify(data_dir(), places, sums) if places else []

    def open(self) -> list[Recording]:
        """The recordings behind the dataset."""
        path = self.found()
        if path is None:
            raise ValueError(f"{self.task.name}:{self.quality}: {self.data_missing()}")
        if path.suffix == ".hdf5":
            return open_hdf5(path)
        return open_vault(path) if (path / "metadata.json").exists() else open_npy(path, self.task.agents)


def has_data(path: Path) -> bool:
    """Whether a file, or the beginning of a vault or of a folder of arrays, is there."""
    return path.is_file() or (path / "metadata.json").exists() or any(path.glob("seed_*_data"))


def data_dir() -> Path:
    """The folder of public data: $OFFMARL_DATA or `public` in the cache."""
    return Path(os.environ.get("OFFMARL_DATA") or cache_dir() / "public").expanduser().resolve()


def folder_sum(path: Path | None) -> str:
    """SHA-256 of a file; of a folder, that of its files' names and sums."""
    if path is not None and path.is_file():
        return file_sum(path)
    sums = [] if path is None else [(str(f.relative_to(path)), file_sum(f)) for f in files_read(path)]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def catalogue(source: str) -> dict[tuple[str, str], Release]:
    """Every dataset of a public source by task and quality.

    Raises FileError when sources.yaml names an unknown task.
    """
    return _catalogue(source, os.environ.get("OFFMARL_PREY") or "", data_dir())


@cache
def _catalogue(source: str, prey: str, root: Path) -> dict[tuple[str, str], Release]:
    publisher, found = sources()[source], {}
    for name, entry in publisher.tasks.items():
        if name not in tasks():
            raise FileError(f"sources.yaml: {unknown('task', name, tasks())}")
        task = _task(name, entry, prey or str(root / source / "prey" / f"simple_{tasks()[name].short}.pt"))
        for quality in (*entry.returns, *entry.mix):
            returns = entry.returns.get(quality)
            target = (returns[0], returns[1]) if returns else None
            found[name, quality] = Release(task, quality, target, entry.mix.get(quality), source, publisher, entry)
    return found


def _task(name: str, entry: PublicTask, prey: str) -> Task:
    """The embedded task, with what differs in its real environment or in the data."""
    differences = {key: value for key in DIFFERENCES if (value := getattr(entry, key)) is not None}
    task = replace(tasks()[name], note="", **differences)
    roster = task.roster | ({"physics": entry.physics} if entry.physics else {})
    return replace(task, roster=roster | ({"weights": prey} if "prey" in roster else {}))
