"""YAML files, the package's and the user's, checked by pydantic models."""

import difflib
from collections.abc import Collection, Iterable
from functools import cache
from importlib import resources
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")


BY_FILE = {  # what may be the user's own, which a name alone does not find
    "task": "of a task of your own, name the file: --task FILE",
    "suite": "of a task of your own, name the file: --task FILE",
    "algorithm": "of a method of your own, name the file: --method-file FILE",
}


class FileError(ValueError):
    """A file has an unknown key or a wrong value: file, key and reason in one line."""

    in_a_line = True  # for the command line: say no more than the message

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


class Strict(BaseModel):
    """A part of a file: unknown keys are errors, values are not converted, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


def known_name(what: str, known: Collection[str]) -> AfterValidator:
    """For `Annotated[str, known_name("quality", QUALITIES)]`: refuses other names, and suggests the nearest."""

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(unknown(what, name, known))
        return name

    return AfterValidator(check)


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """`unknown task 'smac/3n': did you mean 'smac/3m'? known: ...`."""
    by_file = f"; {BY_FILE[what]}" if what in BY_FILE else ""
    return f"unknown {what} '{name}': {nearest(name, known)}known: {', '.join(known) or 'none'}{by_file}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? ` for the nearest known name, empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.3)
    return f"did you mean '{near[0]}'? " if near else ""


class _Loader(yaml.SafeLoader):
    """YAML's own loader takes the last of two values of one key; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key '{key.value}' stands there twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


@cache
def packaged(kind: Any, package: str, *path: str) -> Any:
    """A file of a package (offmarl.experiments.grid, suites, smac.yaml) as `parse` gives it, read once."""
    return parse(kind, "/".join(path), resources.files(package).joinpath(*path).read_bytes())


def parse(kind: type[T], place: str, text: str | bytes) -> T:
    """Text, or bytes in UTF-8 or UTF-16, as a model or type such as `dict[str, Model]`; `place` names it in messages.

    Raises FileError naming file, key and reason; for an unknown key the nearest known one.
    """
    try:
        found = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise FileError(f"{place}{where}: is not YAML ({getattr(error, 'problem', None) or 'unreadable'})") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise FileError(f"{place}: write a mapping of names")
    return validated(kind, place, found)


def validated(kind: type[T], place: str, found: dict[str, Any]) -> T:
    """Values as a model or type. Raises FileError as `parse`."""
    try:
        return TypeAdapter(kind).validate_python(found)
    except ValidationError as error:
        raise FileError(f"{place}: {_message(kind, error)}") from error


def _message(kind: Any, error: ValidationError) -> str:
    """The first fault in words; a misspelt key comes before a key that is missing because of it."""
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    *parents, key = [str(part) for part in fault["loc"] if part != "[key]"] or [""]
    where = ".".join(parents)
    if fault["type"] == "extra_forbidden":
        known = _known(kind, fault["loc"][:-1])
        inside = f" in {where}" if where else ""
        return f"unknown key '{key}'{inside}: {nearest(key, known)}known: {', '.join(known)}"
    if fault["type"] == "missing":
        return f"{where + ': ' if where else ''}lacks {key}"
    words = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return ": ".join(filter(None, [".".join(filter(None, [where, key])), words[:1].lower() + words[1:]]))


def _known(kind: Any, path: tuple[Any, ...]) -> list[str]:
    """The keys of the model at a place of a file."""
    for part in (None, *path):
        if part is not None and isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
            kind = kind.model_fields[part].annotation
        elif part is not None:
            kind = getattr(kind, "__args__", (kind,))[-1]
    while not (isinstance(kind, type) and issubclass(kind, BaseModel)) and getattr(kind, "__args__", ()):
        kind = next((arg for arg in reversed(kind.__args__) if arg is not type(None)), None)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
