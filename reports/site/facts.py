"""Facts of several runs in words."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from offmarl.reports.records.schema import Record
from offmarl.reports.site.charts import finite


def part(record: Record, key: str) -> dict[str, Any]:
    """A part of a record that should be a mapping; empty where it is not."""
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A value that should be a list; empty where it is not."""
    return value if isinstance(value, list) else []


def listed(values: Iterable[Any]) -> str:
    """The different values in words, in their order."""
    return "; ".join(dict.fromkeys(_text(value) for value in values if value is not None and value != ""))


def counts(values: Iterable[Any]) -> str:
    """The range of some whole numbers."""
    numbers = sorted({int(value) for value in finite(values)})
    return " to ".join(f"{number:,}" for number in dict.fromkeys(numbers[:1] + numbers[-1:]))


def together(found: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Facts of several runs as one: the different values of each, or the range of numbers with a fraction."""
    values: dict[str, list[Any]] = {}
    for facts in found:
        for key, value in facts.items():
            values.setdefault(str(key), []).append(value)
    return {key.replace("_", " "): _range(some) for key, some in values.items()}


def as_json(value: Any) -> str:
    """A setting as text."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _text(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return "; ".join(map(_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(own)}" for name, own in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _range(values: list[Any]) -> str:
    if not all(isinstance(value, float) for value in values):
        return listed(values)
    return " to ".join(dict.fromkeys(f"{end(values):,.4g}" for end in (min, max)))
