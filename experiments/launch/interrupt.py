"""Ctrl-C and SIGTERM (of batch systems and containers) that take effect at a safe moment."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """A list that the first signal's number fills, instead of raising; the second raises KeyboardInterrupt."""
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt(number)
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield seen
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
