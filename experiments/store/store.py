"""The results store: one directory a run, the only truth about what is done.

    <results>/runs/<run id>/run.json        cell, config, protocol, provenance, every evaluation episode
                            curves.parquet  training metrics by step
                            checkpoint.pt   the trained method
                            <play>-<n>.replay   some episodes of the last evaluation, to be watched
                            SHA256SUMS      of the files above
    <results>/damaged/<run id>.<n>/         runs whose files were damaged; nothing reads them
    <results>/stale/<run id>.<n>/           runs of other code, after `offmarl run --again`; nothing reads them
    <results>/measurements/<kind>/<name>.json   what `offmarl latency` and `offmarl bench train` measured

A run directory appears complete or not at all: it is written under a temporary name and renamed. Reports read these
files and nothing else.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from offmarl.reports.records import checksums, files
from offmarl.reports.records.reader import read_record
from offmarl.reports.records.schema import Record

SCHEMA = 1
WITH_RESULT = ("done", "diverged", "trained")  # the statuses of a run that needs no more training
LONGEST = 150  # characters of a name, to which others add; file systems take 255 bytes


@dataclass(frozen=True)
class Group:
    """What the seeds of a training share: dataset (task, quality, source) x algorithm x variant, at a profile."""

    task: str
    quality: str
    source: str
    algorithm: str
    variant: str
    profile: str


@dataclass(frozen=True)
class Cell(Group):
    """One run of the grid."""

    seed: int

    def run_id(self, config_hash: str) -> str:
        """Directory name: readable, and different as soon as any setting is."""
        task = self.task.replace("/", "-")
        parts = [task, self.quality, self.source, self.algorithm, self.variant, self.profile]
        return f"{bounded('.'.join(parts))}.s{self.seed}.{config_hash}"


def bounded(name: str) -> str:
    """A name that a file may have: a long one keeps its beginning and gets a sum of all of it."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def group_name(seeds: Sequence[int]) -> str:
    """The seeds that train together, for the name of their checkpoint: their list, or their number and a sum of it."""
    listed = ",".join(map(str, seeds))
    if len(listed) <= LONGEST // 3:
        return listed
    return f"{len(seeds)}~{hashlib.sha256(listed.encode()).hexdigest()[:8]}"


def config_hash(settings: dict[str, Any]) -> str:
    """Eight hex digits of the settings that decide a result (config and protocol)."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Store:
    """The runs under one results directory."""

    def __init__(self, results: Path | str):
        self.root = Path(results).expanduser().resolve()
        self.runs = self.root / "runs"

    def status(self, run_id: str) -> str:
        """`done`, `failed`, `diverged` or `pending`. A run with a damaged file is set aside: pending again."""
        record = self.read(run_id, all_files=True)
        return record["status"] if record else "pending"

    def read(self, run_id: str, all_files: bool = False) -> Record | None:
        """The record of a run, or None where it is missing. If it, or any of `all_files`, is damaged: set aside."""
        for _ in range(2):  # one that is being replaced at this moment is complete the second time
            record = self.peek(run_id, all_files)
            if record is not None or not (self.runs / run_id).is_dir():
                return record
        with contextlib.suppress(OSError):  # a store that cannot be written, or another process was first
            self.set_aside(run_id, "damaged")
        return None

    def peek(self, run_id: str, all_files: bool = False) -> Record | None:
        """The record of a run, or None where it, or any of `all_files`, is missing or damaged; nothing is moved."""
        folder = self.runs / run_id
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not (all_files and checksums.has_sums(folder) and checksums.faults(folder)):
                return read_record(folder)
        return None

    def weights(self, run_id: str) -> str:
        """The checksum of a run's networks; empty where it has none."""
        return checksums.stored_sum(self.runs / run_id, checksums.POLICY)

    def run_ids(self) -> list[str]:
        """All runs of the store, damaged ones too."""
        return sorted(path.name for path in self.runs.glob("[!.]*") if path.is_dir())

    def set_aside(self, run_id: str, folder: str) -> None:
        """Move a run to `damaged/` or `stale/`, for a person to inspect; its cell is pending again."""
        aside = self.root / folder
        aside.mkdir(exist_ok=True)
        n = next(n for n in itertools.count(1) if not (aside / f"{run_id}.{n}").exists())
        os.replace(self.runs / run_id, aside / f"{run_id}.{n}")

    def write(
        self,
        cell: Cell,
        record: dict[str, Any],
        curves: pd.DataFrame | None = None,
        checkpoint: bytes | None = None,
        replays: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Store one run that has ended, with its replays by name; an earlier directory of the same id is replaced."""
        with self._drafting(record["run_id"]) as draft:
            (draft / "run.json").write_text(json.dumps({"schema": SCHEMA, "cell": asdict(cell), **record}, indent=1))
            if curves is not None:
                curves.to_parquet(draft / "curves.parquet", index=False)
            if checkpoint is not None:
                (draft / checksums.POLICY).write_bytes(checkpoint)
            for name, content in (replays or {}).items():
                (draft / name).write_bytes(content)
            (draft / checksums.SUMS).write_text(checksums.sums(draft, os.listdir(draft)))
        return self.runs / record["run_id"]

    def take(self, folder: Path) -> None:
        """Copy a run from the folder of another store; one of the same id is replaced."""
        with self._drafting(folder.name) as draft:
            shutil.copytree(folder, draft, dirs_exist_ok=True)

    @contextlib.contextmanager
    def _drafting(self, run_id: str) -> Iterator[Path]:
        """A hidden folder to write a run to, which takes the run's place at the end and is removed after an error."""
        place = self.runs / run_id
        draft = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
        draft.mkdir(parents=True)
        try:
            yield draft
            self._replace(place, draft)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def _replace(self, place: Path, draft: Path) -> None:
        """Put a new run in the place of an old one; killed here, `clear_leftovers` puts the old one back."""
        old = place.with_name(f".{place.name}.old")
        while True:
            if place.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(place, old)
            try:
                os.replace(draft, place)
                break
            except OSError:
                if not place.exists():  # else another process has just put one there
                    raise
        shutil.rmtree(old, ignore_errors=True)

    def write_measurement(self, kind: str, name: str, record: dict[str, Any]) -> Path:
        """Store a measurement; an earlier one of the same name is replaced."""
        place = self.root / "measurements" / kind / (bounded(re.sub(r"[^\w.+-]+", "-", name)) + ".json")
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(place, json.dumps({"schema": SCHEMA, **record}, indent=1))
        return place
