"""How long work still takes, and how durations are written."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import mean

Pace = Mapping[tuple[str, str], float]  # seconds per step, by method and task


def time_left(left: Iterable[tuple[str, str, float]], pace: Pace) -> tuple[float, list[str]]:
    """Seconds for the steps that are left (triples of method, task and steps), and the methods that cannot be counted.

    A task without a pace counts as the mean of its method's others; a method without any says nothing of its time, for
    methods differ by a factor of a hundred.
    """
    known = defaultdict(list)
    for (method, _), seconds in pace.items():
        known[method].append(seconds)
    left = [row for row in left if row[2]]
    counted = sum(
        steps * pace.get((method, task), mean(known[method])) for method, task, steps in left if method in known
    )
    return counted, list(dict.fromkeys(method for method, _, _ in left if method not in known))


def left_in_words(seconds: float, untimed: int) -> str:
    """The time left of methods with a pace, and how many have none yet: 5 min plus 2 methods not timed yet."""
    if not untimed:
        return duration(seconds)
    methods = f"{untimed} method{'s' if untimed > 1 else ''} not timed yet"
    return f"{duration(seconds)} plus {methods}" if seconds else f"unknown ({methods})"


def duration(seconds: float) -> str:
    """In words: none, less than a minute, 5 min, 2 h 5 min, 1,234 h."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if seconds < 60:
        return "less than a minute" if seconds else "none"
    if hours >= 100:
        return f"{hours:,} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
