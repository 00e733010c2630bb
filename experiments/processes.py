"""Fresh processes beside this one: they end when it does, and where one is killed, a line says so."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

from offmarl.experiments.errors import UserError


class Killed(UserError):
    """A process ended without a result."""


@contextmanager
def processes(count: int, begin: Callable[..., None] | None = None, *given: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes call `begin(*given)` first, and end when this one is killed, too.

    Raises Killed when one of them died; mostly memory ran out.
    """
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (begin, given)) as pool:
        try:
            # The pool watches a process only from the next result on (CPython), so all give one before the work.
            wait([pool.submit(os.getpid) for _ in range(count)])
            yield pool
        except BrokenProcessPool as error:
            advice = "; --jobs 1 needs less" if count > 1 else ""
            raise Killed(f"a process was killed (out of memory?){advice}") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None] | None, given: tuple) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin:
        begin(*given)


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)
