"""How long work still takes, and how durations are written."""

import statistics
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

Method = TypeVar("Method", bound=Hashable)  # or whatever else decides the pace of a job


def time_left(left: Iterable[tuple[Method, float]], pace: Mapping[Method, float]) -> float | None:
    """Seconds for the steps that are left, pairs of a method and its steps; None where no pace is known.

    `pace` is in seconds per step; a method without one counts as the mean of the others.
    """
    left = [(method, steps) for method, steps in left if steps]
    if not left:
        return 0.0
    if not pace:
        return None
    usual = statistics.mean(pace.values())
    return sum(steps * pace.get(method, usual) for method, steps in left)


def duration(seconds: float | None) -> str:
    """In words: less than a minute, 5 min, 2 h 5 min, 1,234 h; unknown for None."""
    if seconds is None:
        return "unknown"
    hours, minutes = divmod(round(seconds / 60), 60)
    if seconds < 60:
        return "less than a minute" if seconds else "none"
    if hours >= 100:
        return f"{hours:,} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
