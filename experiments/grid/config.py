"""A method's settings: its defaults, then profile, suite, variant and command line, each layer over those before."""

import contextlib
import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.experiments.errors import UserError, check_name

Overrides = Mapping[str, Mapping[str, Any]]  # settings by method; "all" for every method that has them


def parse_overrides(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`mac_flow.alpha=1.0` or `all.batch_size=128` -> settings by method.

    Raises:
        UserError: when a text has another form, or names no method.
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
    method: type[Algorithm], variant: str, common: Sequence[Mapping[str, Any]], overrides: Overrides
) -> BaseConfig:
    """The method's config: its defaults, then `common`, the variant, and the overrides.

    Settings for all methods reach those that have them. A variant may join several: quick+without_igm.

    Raises:
        UserError: for an unknown setting, or a value that it cannot have.
    """
    names = {f.name for f in dataclasses.fields(method.Config)}
    for_all = overrides.get("all", {})
    for key in for_all:
        check_name("setting", key, sorted({f.name for m in registry().values() for f in dataclasses.fields(m.Config)}))
    *common, for_all = ({k: v for k, v in layer.items() if k in names} for layer in (*common, for_all))
    variants = [method.variants.get(name, {}) for name in variant.split("+")]
    config = dataclasses.asdict(method.Config())
    for layer in (*common, *variants, for_all, overrides.get(method.name, {})):
        for key, value in layer.items():
            check_name(f"setting of {method.name}", key, sorted(names))
            config[key] = value
    config = {key: _checked(method, key, value) for key, value in config.items()}
    try:
        return method.Config(**config)
    except ValueError as error:
        raise UserError(f"{method.name}: {error}") from error


def _checked(method: type[Algorithm], key: str, value: Any) -> Any:
    """The value as the field's type, or a clear refusal."""
    field, kind = _fields(method.Config)[key]
    place = f"{method.name}.{key}={value}"
    if choices := field.metadata.get("choices"):
        check_name(f"value of {method.name}.{key}:", str(value), choices)
    if typing.get_origin(kind) is tuple:
        return _checked_list(place, value, whole=typing.get_args(kind)[0] is int)
    if kind is float and isinstance(value, str):  # YAML reads 1e-4 as a string
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and type(value) is int:
        value = float(value)
    expected = kind if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else object
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise UserError(f"{place}: write a value of type {expected.__name__}, as {field.default!r}")
    return value


@functools.cache
def _fields(config: type) -> dict[str, tuple[dataclasses.Field, Any]]:
    """The fields of a Config and their types."""
    types_ = typing.get_type_hints(config)
    return {field.name: (field, types_[field.name]) for field in dataclasses.fields(config)}


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
