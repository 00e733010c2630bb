"""Files and folders that appear complete or not at all, and how they are read."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, draft: Path | None = None) -> Iterator[Path]:
    """A hidden path beside `path` to write to; renamed to `path` at the end, removed after an error.

    It keeps the suffix of `path`. An earlier file is replaced, through a link the file that it names; a folder's place
    must be free when the block ends; what was written is copied into a device or a pipe.
    Name a `draft` only where a lock keeps other writers away.
    """
    stream = path.exists() and not path.is_file() and not path.is_dir()
    place = Path(tempfile.gettempdir(), path.name) if stream else Path(os.path.realpath(path))
    draft = draft or place.with_name(f".{place.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield draft
        if stream:
            with draft.open("rb") as written, path.open("wb") as out:
                shutil.copyfileobj(written, out)
        else:
            os.replace(draft, place)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def read_text(path: Traversable) -> str:
    """A text file, as editors and spreadsheets save it: in UTF-8 or UTF-16, with a mark or without."""
    content = path.read_bytes()
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def read_each(folder: Path, take: Callable[[Path, Any], Any], command: str = "") -> tuple[list[Any], list[str]]:
    """What `take` makes of every JSON file of a folder, and a line for each unreadable one, which `command` writes."""
    found, notes = [], []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            found.append(take(path, json.loads(path.read_bytes())))
        except Exception as error:  # a damaged record raises whatever its missing part does
            reason = f"cannot be read ({type(error).__name__}: {error})"
            notes.append(f"left out: {path} {reason}; `offmarl {command}` writes it again")
    return found, notes


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
