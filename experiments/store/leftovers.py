"""Remove what killed processes have left in a results store.

A process may be killed between any two steps on disk. No run is lost or counted twice by that, but files stay:

    work/<job>.lock                       of a holder that has died, or of a job whose runs are all done
    work/<run id>+<seeds>.pt              the checkpoint of a job whose runs are all done
    work/<run id>+<seeds>.draft           a checkpoint that was being written
    work/<run id>+<seeds>.seeds           the list of seeds, where it is too long for a file's name
    runs/.<run id>.old                    a run that was being replaced: put back if its place is empty
    <folder>/.<name>.<8 hex digits>       anything else that was being written
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from offmarl.experiments.store.lock import STALE_SECONDS, finished, lock_files, now, remove, running
from offmarl.reports.records import files

CHECKPOINT = re.compile(
    r"(?P<job>.+)\.s\d+(?P<hash>\.[0-9a-f]{8})\+((?P<seeds>\d+(,\d+)*)|\d+~[0-9a-f]{8})\.(pt|draft|seeds)"
)
OLD_RUN = re.compile(r"\.(?P<run_id>(?P<job>.+)\.s\d+(?P<hash>\.[0-9a-f]{8}))\.old")
# The name of every file or folder that appears by renaming, before it does.
DRAFT = re.compile(r"\.(.+\.[0-9a-f]{8}(\.(?!old$)\w+)?|clock\.\w{8})")
FOLDERS = ("runs", "work", "grids", "measurements/*", "reports/*", "tensorboard")


def clear_leftovers(results: Path) -> None:
    """Remove what killed processes have left; what a living one is writing stays. What may not be removed stays too."""
    for path in lock_files(results):
        with contextlib.suppress(OSError):
            remove(path)
    busy = running(results)
    for path, job, seeds in checkpoints(results):
        if job not in busy and (path.suffix == ".draft" or finished(results, job, seeds)):
            _delete(path)
    for path in (results / "runs").glob(".*.old"):
        if (found := OLD_RUN.fullmatch(path.name)) and found["job"] + found["hash"] not in busy:
            if (place := path.with_name(found["run_id"])).exists():
                _delete(path)
            else:
                with contextlib.suppress(OSError):
                    os.rename(path, place)
    for path in _drafts(results):
        _delete(path)


def checkpoints(results: Path) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    """The checkpoints of jobs in progress, drafts too, with their job and the seeds that train together."""
    for path in sorted((results / "work").glob("*+*")):
        if found := CHECKPOINT.fullmatch(path.name):
            yield path, found["job"] + found["hash"], _listed(found["seeds"] or _read(path.with_suffix(".seeds")))


def write_seeds(checkpoint: Path, seeds: Sequence[int]) -> None:
    """Write the seeds beside a checkpoint whose name has no room for them."""
    if not checkpoint.stem.endswith(f"+{(listed := ','.join(map(str, seeds)))}"):
        files.write_text(checkpoint.with_suffix(".seeds"), listed)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text(encoding="utf-8")
    return ""


def _listed(seeds: str) -> tuple[int, ...]:
    """The seeds of a list; none where it is lost or damaged."""
    return tuple(map(int, seeds.split(","))) if re.fullmatch(r"\d+(,\d+)*", seeds) else ()


def _drafts(results: Path) -> Iterator[Path]:
    """The drafts of writers that have not written for STALE_SECONDS, and so are dead."""
    for folder in (folder for pattern in FOLDERS for folder in results.glob(pattern) if folder.is_dir()):
        drafts = [path for path in folder.glob(".*.*") if DRAFT.fullmatch(path.name)]
        time = now(folder) if drafts else 0.0
        for path in drafts:
            # A copied file has the modification time of its original, so the time of change is what tells.
            with contextlib.suppress(OSError):
                if time - max(part.lstat().st_ctime for part in (path, *path.glob("*"))) > STALE_SECONDS:
                    yield path


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
