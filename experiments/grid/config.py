"""A method's settings: defaults, profile, suite, variant and command line, layer on layer."""

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid.suite import ALL, expand, load_suite, profiles, suite_names  # noqa: F401 - a part of the grid


def parse_overrides(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`mac_flow.alpha=1.0` or `all.batch_size=128` -> settings by method.

    Raises:
        UserError: when one does not have that form, or names no method.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"([\w-]+)\.(\w+)=(.*)", text)
        if not match:
            raise UserError(f"--set {text}: write METHOD.SETTING=VALUE, for example mac_flow.alpha=1.0")
        method, key, value = match.groups()
        check_name("algorithm", method, [*registry(), "all"])
        try:
            found.setdefault(method, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {text}: the value cannot be read") from error
    return found


def resolve(
    method: type[Algorithm], variant: str, common: Sequence[Mapping[str, Any]], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The method's full config: its defaults, then `common`, the variant, and the command line.

    Settings for all methods reach those that have them. A variant may join several: quick+without_igm.
    """
    names = {f.name for f in dataclasses.fields(method.Config)}
    shared = [*common, overrides.get("all", {})]
    for key in overrides.get("all", {}):
        known = {f.name for m in registry().values() for f in dataclasses.fields(m.Config)}
        check_name("setting", key, sorted(known))
    layers: list[Mapping[str, Any]] = [{k: v for k, v in layer.items() if k in names} for layer in shared]
    layers[-1:-1] = [method.variants.get(name, {}) for name in variant.split("+")]
    layers.append(overrides.get(method.name, {}))
    config = dataclasses.asdict(method.Config())
    for layer in layers:
        for key, value in layer.items():
            check_name(f"setting of {method.name}", key, sorted(names))
            config[key] = value
    config = {key: _checked(method, key, value) for key, value in config.items()}
    try:
        method.Config(**config)
    except ValueError as error:
        raise UserError(f"{method.name}: {error}") from error
    return config


def _checked(method: type[Algorithm], key: str, value: Any) -> Any:
    """The value as the field's type, or a clear refusal."""
    field = next(f for f in dataclasses.fields(method.Config) if f.name == key)
    kind = typing.get_type_hints(method.Config)[key]
    place = f"{method.name}.{key}={value}"
    choices = field.metadata.get("choices")
    if choices:
        check_name(f"value of {method.name}.{key}:", str(value), choices)
    if typing.get_origin(kind) is tuple:
        return _checked_list(place, value, whole=typing.get_args(kind)[0] is int)
    if kind is float and isinstance(value, str):  # YAML reads 1e-4 as a string
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected = kind if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else object
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise UserError(f"{place}: write a value of type {expected.__name__}, as {field.default!r}")
    return value


def _checked_list(place: str, value: Any, whole: bool) -> tuple:
    """The value as a tuple of positive integers (`whole`) or of numbers, or a clear refusal."""
    items = value if isinstance(value, (list, tuple)) else []
    if whole and items and all(type(v) is int and v > 0 for v in items):
        return tuple(items)
    if not whole and items and all(type(v) in (int, float) for v in items):
        return tuple(map(float, items))
    what = "positive integers, for example [256,256]" if whole else "numbers, for example [-5.0]"
    raise UserError(f"{place}: write a list of {what}")


def config_from(method: type[Algorithm], stored: Mapping[str, Any]) -> Any:
    """A method's Config from settings as JSON and YAML hold them, with lists for tuples."""
    return method.Config(**{key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()})
