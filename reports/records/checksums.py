"""The SHA-256 sums of a run's files, which lie beside them: whether a run is still what was written."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

SUMS = "SHA256SUMS"  # `sha256sum --check` reads it, too
RECORD = "run.json"
WRITTEN = {RECORD, "curves.parquet", "checkpoint.pt"}


def sums(folder: Path, names: Iterable[str]) -> str:
    """A line for each file: its sum and its name."""
    lines = []
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def summed(folder: Path) -> bool:
    """Whether a run has sums; older ones have none."""
    return (folder / SUMS).exists()


def faults(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """What is wrong with files of a run that has sums, a line each; by default with all that are its own."""
    lines = (folder / SUMS).read_bytes().decode("ascii", "replace").splitlines(keepends=True)
    there = {path.name for path in folder.iterdir() if path.is_file()}
    own = {line[66:].rstrip("\n") for line in lines} | there & WRITTEN  # whatever else lies there is not the run's
    return [
        f"{name}: does not match its sum in {SUMS}, or is missing"
        for name in sorted(own if names is None else names)
        if name not in there or sums(folder, [name]) not in lines
    ]
