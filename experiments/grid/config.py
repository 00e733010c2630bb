"""A method's settings: its defaults, then profile, suite, variant and command line, each layer over those before."""

import contextlib
import dataclasses
import functools
import math
import re
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.experiments.errors import UserError, check_name

RANGES = {  # of settings that every method has
    "learning_rate": (0.0, math.inf),
    "adam_epsilon": (0.0, 1.0),
    "discount": (0.0, 1.0),
    "polyak": (0.0, 1.0),
    "decay_steps": (0, math.inf),
    "max_grad_norm": (0.0, math.inf),
}
Overrides = Mapping[str, Mapping[str, Any]]  # settings by method; "all" for every method that has them


def parse_overrides(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`mac_flow.alpha=1.0` or `all.batch_size=128` -> settings by method. Raises UserError for anything else."""
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
    method: type[Algorithm], variant: str, space: str, common: Sequence[Mapping[str, Any]], *overrides: Overrides
) -> BaseConfig:
    """The method's config for discrete or continuous actions: its defaults, then `common`, variant and overrides.

    Settings for all methods reach those that have them; a method's may be for one kind of actions (macql:discrete). A
    variant may join several: quick+without_igm. The later overrides win.
    Raises UserError for an unknown setting, or a value that it cannot have.
    """
    names = setting_names(method)
    layers = [_of_method(layer, names) for layer in common]
    layers += [method.variant(name, space) for name in variant.split("+")]
    for one in overrides:
        for key in one.get("all", {}):
            check_name("setting", key, every_setting())
        layers.append(of_method(one, method, space))
    config = dataclasses.asdict(method.Config())
    for layer in layers:
        for key, value in layer.items():
            check_name(f"setting of {method.name}", key, names)
            config[key] = value
    config = {key: _checked(method, key, value) for key, value in config.items()}
    try:
        return method.Config(**config)
    except ValueError as error:
        raise UserError(f"{method.name}: {error}") from error


def setting_names(method: type[Algorithm]) -> list[str]:
    """The settings that a method has."""
    return sorted(field.name for field in dataclasses.fields(method.Config))


def every_setting() -> list[str]:
    """The settings that any method has."""
    return sorted({name for method in registry().values() for name in setting_names(method)})


def of_method(overrides: Overrides, method: type[Algorithm], space: str) -> dict[str, Any]:
    """What overrides say of a method with discrete or continuous actions; what is said of itself wins."""
    found = _of_method(overrides.get("all", {}), setting_names(method))
    for name in (method.name, f"{method.name}:{space}"):
        found |= overrides.get(name, {})
    return found


def _of_method(layer: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Those of the settings for all methods that a method has."""
    return {key: value for key, value in layer.items() if key in names}


def _checked(method: type[Algorithm], key: str, value: Any) -> Any:
    """The value as the field's type, or a clear refusal."""
    field, kind, adapter = _fields(method.Config)[key]
    if choices := field.metadata.get("choices"):
        check_name(f"value of {method.name}.{key}:", str(value), choices)
    is_list = typing.get_origin(kind) is tuple
    whole = is_list and typing.get_args(kind)[0] is int
    given = tuple(value) if is_list and isinstance(value, list) else value
    with contextlib.suppress(ValueError):
        if kind is float and isinstance(value, str):  # YAML reads 1e-4 as a string
            given = float(value)
        checked = adapter.validate_python(given)
        values = checked if is_list else [checked]
        if values and not (whole and min(values) < 1) and not any(_outside(key, one) for one in values):
            return checked
    what = f"a value of type {getattr(kind, '__name__', kind)}, as {field.default!r}"
    if is_list:
        what = f"a list of {'positive integers, for example [256,256]' if whole else 'numbers, for example [-5.0]'}"
    elif key in RANGES and isinstance(value, (int, float)):
        low, high = RANGES[key]
        what = f"a number of at least {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
    raise UserError(f"{method.name}.{key}={value}: write {what}")


def _outside(key: str, value: Any) -> bool:
    """Whether a number is none, or not within the range of a setting that has one."""
    low, high = RANGES.get(key, (-math.inf, math.inf))
    return isinstance(value, (int, float)) and not low <= value <= high


@functools.cache
def _fields(config: type) -> dict[str, tuple[dataclasses.Field, Any, TypeAdapter]]:
    """The fields of a Config, their types, and what checks these."""
    types = typing.get_type_hints(config)
    rules = ConfigDict(strict=True, arbitrary_types_allowed=True)
    return {f.name: (f, types[f.name], TypeAdapter(types[f.name], config=rules)) for f in dataclasses.fields(config)}


def config_from(method: type[Algorithm], stored: Mapping[str, Any]) -> Any:
    """A method's Config from stored settings: lists are tuples; older ones' noise of evaluation is no setting."""
    settings = {key: value for key, value in stored.items() if key != "eval_noise"}
    return method.Config(**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
