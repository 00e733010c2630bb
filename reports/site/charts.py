"""Geometry of the site's charts, which its templates draw as inline SVG.

Lengths are pixels, with y downwards. Numbers that are not finite are left out.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

from offmarl.reports.figures.labels import GAPS, nearby
from offmarl.reports.tables.table import Row

Mark = dict[str, Any]
SHOWN = ("mean", "ci_low", "ci_high", "published_mean")  # on the bar of a row
BAR = 120  # its width
PAD = 0.06  # of a scale's range, on either side
BINS = 24
SIZE, LINE = 11.5, 12.0  # of points' names, and the height of a line
FAR = 16  # pixels from a point to its name, from which on a line joins them
NAMED = 16  # more points than these would hide each other's names


class Axis(NamedTuple):
    """From numbers to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a number lies."""
        low, high, value = (math.log(x) for x in (self.low, self.high, value)) if self.log else (*self[:2], value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[Mark]:
        """A few round numbers and where they lie."""
        if self.log:
            wide = self.high / self.low
            subs = (1, 2, 5) if wide < 30 else (1, 3) if wide < 1000 else (1,)
            values = LogLocator(subs=subs).tick_values(self.low, self.high)
        else:
            values = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        inside = [float(value) for value in values if self.low <= value <= self.high]
        places = 0 if self.log else max((len(f"{value:.10g}".partition(".")[2]) for value in inside), default=0)
        texts = [f"{value:g}" if self.log else f"{value:,.{places}f}".replace("-", "−") for value in inside]
        return [{"at": self.at(value), "text": text} for value, text in zip(inside, texts)]


class Places(NamedTuple):
    """Names at even distances, from end to end."""

    names: Sequence[str]
    start: float
    end: float

    def at(self, k: int) -> float:
        """Where the k-th one lies."""
        return round(self.start + k * (self.end - self.start) / max(1, len(self.names) - 1), 1)

    def ticks(self) -> list[Mark]:
        """Each name and where it lies."""
        return [{"at": self.at(k), "text": name} for k, name in enumerate(self.names)]


def finite(values: Iterable[Any]) -> list[float]:
    """Those that are numbers."""
    return [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]


def spread(values: Iterable[Any], pad: float = PAD) -> tuple[float, float]:
    """A range that holds all the numbers, with some room; (0, 1) for none."""
    numbers = finite(values) or [0.0, 1.0]
    low, high = min(numbers), max(numbers)
    room = (high - low) * pad or max(abs(high), 1.0) * pad
    return low - room, high + room


def reach(rows: Iterable[Row]) -> tuple[float, float]:
    """The range of some rows of the table: ours with its interval, and the published number."""
    return spread(getattr(row, key) for row in rows for key in SHOWN)


def bar(row: Row, ends: tuple[float, float]) -> dict[str, float]:
    """Where a row's mean, interval and published number lie on a bar; no key for a missing one."""
    axis = Axis(*ends, 4, BAR - 4)
    return {key: axis.at(value) for key in SHOWN for value in finite([getattr(row, key)])}


def scatter(points: Sequence[Mark]) -> Mark:
    """Mean by milliseconds (log axis), each point with a place for its name; intervals where there are any."""
    width, height = 470, 300
    low, high = min(p["latency_ms"] for p in points) / 1.5, max(p["latency_ms"] for p in points) * 1.8
    x = Axis(low, high, 56, width - 10, log=True)
    y = Axis(*spread((p[key] for p in points for key in ("mean", "ci_low", "ci_high")), 0.1), height - 40, 10)
    marks: list[Mark] = [
        {"title": p["title"], "x": x.at(p["latency_ms"]), "y": y.at(p["mean"])}
        | {key: y.at(p[key]) for key in ("ci_low", "ci_high") if finite([p[key]])}
        for p in points
    ]
    _place_names(marks, width, height)
    return {"width": width, "height": height, "x": x, "y": y, "marks": marks}


def text_width(text: str) -> float:
    """The width of a name in DejaVu Sans, which is wider than what most browsers take."""
    return TextToPath().get_text_width_height_descent(text, FontProperties(family="DejaVu Sans", size=SIZE), False)[0]


def _place_names(marks: Sequence[Mark], width: int, height: int) -> None:
    """Give each point a place for its name, beside the others and their intervals, and a line to one far away."""
    halves = [np.array([text_width(mark["title"]), LINE]) / 2 for mark in marks]
    bars = [Bbox([(m["x"] - 1, m["ci_high"]), (m["x"] + 1, m["ci_low"])]) for m in marks if "ci_low" in m]
    frame = Bbox.from_extents(56, 4, width - 4, height - 42)
    points = np.array([(mark["x"], mark["y"]) for mark in marks])
    for mark, box in zip(marks, nearby(points, halves, bars, frame, (*GAPS, 2 * GAPS[-1]))):
        mark |= {"name_x": round(box.x0 + box.width / 2, 1), "name_y": round(box.y1 - 2, 1)}
        edge = np.clip((mark["x"], mark["y"]), box.min, box.max)
        if math.dist(edge, (mark["x"], mark["y"])) > FAR:
            mark["line"] = [round(float(place), 1) for place in edge]


def curve(seeds: dict[int, list[tuple[int, float]]], data: float) -> Mark:
    """Mean returns by step: a line per seed, given as (step, mean), their mean, and the mean of the data."""
    width, height = 660, 260
    steps: dict[int, list[float]] = {}
    for points in seeds.values():
        for step, mean in points:
            steps.setdefault(step, []).append(mean)
    x = Axis(0, max([*steps, 1]) * 1.02, 64, width - 10)
    y = Axis(*spread([data, *(mean for means in steps.values() for mean in means)], 0.1), height - 40, 10)
    lines = [[(x.at(step), y.at(mean)) for step, mean in sorted(points)] for points in seeds.values()]
    middle = [(x.at(step), y.at(sum(steps[step]) / len(steps[step]))) for step in sorted(steps)]
    level = y.at(data) if finite([data]) else None
    return {"width": width, "height": height, "x": x, "y": y, "lines": lines, "middle": middle, "data": level}


def histogram(values: Sequence[float], ends: tuple[float, float], data: float) -> Mark:
    """Bars of equal bins over a range, the tallest of full height, and where the mean of the data lies."""
    counts, _ = np.histogram(values, BINS, ends)
    return bars(counts.tolist(), ends, data)


def bars(counts: Sequence[int], ends: tuple[float, float], data: float, width: int = 230, height: int = 70) -> Mark:
    """The same of counts in equal bins."""
    x, tall, wide = Axis(*ends, 0, width), height / max(*counts, 1), width / len(counts)
    marks = [{"x": round(k * wide, 1), "height": round(n * tall, 1)} for k, n in enumerate(counts) if n]
    level = x.at(data) if finite([data]) and ends[0] <= data <= ends[1] and ends[0] < ends[1] else None
    return {"width": width, "height": height, "bars": marks, "wide": round(wide - 1, 1), "data": level}


def heat(counts: Sequence[Sequence[int]], x: Axis, y: Axis) -> list[Mark]:
    """The cells of a heat map that are not empty, the first row at the start of y; the root of a count is its depth."""
    most = max((max(row) for row in counts), default=0) or 1
    wide, tall = (x.end - x.start) / len(counts[0]), (y.end - y.start) / len(counts)
    return [
        {"x": round(x.start + k * wide, 1), "y": round(min(y.start + j * tall, y.start + (j + 1) * tall), 1)}
        | {"wide": round(wide, 1), "tall": round(abs(tall), 1), "depth": round(0.12 + 0.88 * math.sqrt(n / most), 2)}
        for j, row in enumerate(counts)
        for k, n in enumerate(row)
        if n
    ]


def stack(shares: Sequence[Sequence[float]], width: int = 230, height: int = 70) -> Mark:
    """Columns of shares on top of each other, the first kind at the bottom."""
    wide, marks = width / len(shares), []
    for k, column in enumerate(shares):
        below = 0.0
        for kind, share in enumerate(column):
            below += share
            if share:
                marks.append({"kind": kind, "x": round(k * wide, 1), "y": round((1 - below) * height, 1)})
                marks[-1]["height"] = round(share * height, 1)
    return {"width": width, "height": height, "wide": round(wide - 1, 1), "bars": marks}


def cloud(points: Sequence[tuple[str, float, float]]) -> Mark:
    """Points by two numbers, where the second one is 0, and places for names where these are no more than NAMED."""
    width, height = 470, 300
    x = Axis(*spread((across for _, across, _ in points), 0.08), 64, width - 10)
    y = Axis(*spread([0.0, *(up for *_, up in points)], 0.1), height - 40, 10)
    marks: list[Mark] = [{"title": title, "x": x.at(across), "y": y.at(up)} for title, across, up in points]
    if len(marks) <= NAMED:
        _place_names(marks, width, height)
    return {"width": width, "height": height, "x": x, "y": y, "marks": marks, "zero": y.at(0.0)}


def by_budget(budgets: Sequence[str], lines: Sequence[tuple[str, Sequence[float]]]) -> Mark:
    """A line for each title, of a number at every budget; budgets lie at even distances."""
    width, height = 470, 300
    x = Places(budgets, 64, width - 14)
    y = Axis(*spread(value for _, values in lines for value in values), height - 40, 10)
    drawn = [{"title": title, "points": [(x.at(k), y.at(v)) for k, v in enumerate(values)]} for title, values in lines]
    return {"width": width, "height": height, "x": x, "y": y, "lines": drawn}
