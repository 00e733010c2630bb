"""Damaged files: whatever a library raises over one becomes one line that names the file.

numpy, h5py and tensorstore raise whatever their parsers meet: RuntimeError, SyntaxError, tokenize's and zlib's own
errors, MemoryError over the size that a header claims. So every error counts, around a library's call and nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def refuse_damaged(where: Path | str, fault: str) -> Iterator[None]:
    """Read a file by a library. Raises ValueError "<where>: <fault> (<the library's message>)", in one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{where}: {fault} ({short_message(error)})") from error


def short_message(error: BaseException) -> str:
    """The first words of a library's message, which may have many lines."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
