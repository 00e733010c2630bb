"""What a library raises over a damaged file, told in one line that names the file.

numpy, h5py and tensorstore raise whatever their parsers trip over: RuntimeError, SyntaxError, tokenize's and zlib's
own errors, MemoryError over the size that a header claims. So every error counts, around a library's call and
nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def foreign(where: Path | str, fault: str) -> Iterator[None]:
    """Read a file of somebody else's by a library.

    Raises:
        ValueError: "<where>: <fault> (<the library's own words>)", in one line.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{where}: {fault} ({short(error)})") from error


def short(error: BaseException) -> str:
    """The first words of a library's message; theirs run over many lines."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
