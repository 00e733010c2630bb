"""Files and folders that appear complete or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
