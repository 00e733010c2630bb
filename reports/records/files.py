"""Files and folders that appear complete or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path


@contextmanager
def replacing(path: Path, draft: Path | None = None) -> Iterator[Path]:
    """A hidden path beside `path` to write to; renamed to `path` at the end, removed after an error.

    It keeps the suffix of `path`. An earlier file is replaced; a folder's place must be free when the block ends.
    Name a `draft` only where a lock keeps other writers away.
    """
    draft = draft or path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def read_text(path: Traversable) -> str:
    """A text file, as editors and spreadsheets save it: in UTF-8 or UTF-16, with a mark or without."""
    content = path.read_bytes()
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
