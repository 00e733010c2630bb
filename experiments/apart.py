"""Measurements in a process of their own, so that peak memory and settings are theirs alone."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")


class Killed(Exception):
    """The process ended without an answer."""


def apart(function: Callable[..., T], *args: object) -> T:
    """Call a function of a module in a fresh process.

    Raises:
        Killed: when the process is gone, which mostly means that memory ran out.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise Killed("its process was killed (out of memory?)") from error
