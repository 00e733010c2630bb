"""The SHA-256 checksums of a run's files, stored beside them: whether a run is still what was written."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

SUMS = "SHA256SUMS"  # `sha256sum --check` reads it, too
RECORD, POLICY = "run.json", "checkpoint.pt"
WRITTEN = {RECORD, "curves.parquet", POLICY}


def sums(folder: Path, names: Iterable[str]) -> str:
    """The content of SHA256SUMS: a line for each file, its checksum and its name."""
    return "".join(sums_of({name: (folder / name).read_bytes()}) for name in sorted(names))


def sums_of(files: Mapping[str, bytes]) -> str:
    """The same of contents by name."""
    return "".join(_line(name, hashlib.sha256(files[name]).hexdigest()) for name in sorted(files))


def has_sums(folder: Path) -> bool:
    """Whether a run has checksums; older ones have none."""
    return (folder / SUMS).exists()


def matches(folder: Path, name: str, content: bytes) -> bool:
    """Whether this content of a file is the one in the checksums of a run that has them."""
    return _line(name, hashlib.sha256(content).hexdigest()) in _stored(folder)


def stored_sum(folder: Path, name: str) -> str:
    """The checksum that a run stored of a file; empty where it has none."""
    found = _stored(folder) if has_sums(folder) else []
    return next((line[:64] for line in found if line[66:].rstrip("\n") == name), "")


def faults(folder: Path) -> list[str]:
    """What is wrong with the files of a run that has checksums, a line each."""
    stored = _stored(folder)
    files = {path.name for path in folder.iterdir() if path.is_file()}
    own = {line[66:].rstrip("\n") for line in stored} | files & WRITTEN  # any other file there is not the run's
    return [
        f"{name}: does not match its checksum in {SUMS}, or is missing"
        for name in sorted(own)
        if name not in files or sums(folder, [name]) not in stored
    ]


def _stored(folder: Path) -> list[str]:
    return (folder / SUMS).read_bytes().decode("ascii", "replace").splitlines(keepends=True)


def _line(name: str, digest: str) -> str:
    return f"{digest}  {name}\n"
