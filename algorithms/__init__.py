"""Methods, one file each. A new file here is a new method: nothing else needs to know.

Methods may also lie elsewhere: in files that OFFMARL_ALGORITHMS names (joined as in PATH; `--algorithm FILE` adds one),
and in installed packages, as entry points of the group `offmarl.algorithms` that name a module.
"""

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from offmarl.algorithms.parts.algorithm import Algorithm

PATHS, GROUP = "OFFMARL_ALGORITHMS", "offmarl.algorithms"


class MethodError(TypeError):
    """What was named as a method is none; the message says which file and why."""

    in_a_line = True  # for the command line: say no more than the message


@cache
def registry() -> dict[str, type[Algorithm]]:
    """Every method by name: of this folder, of named files, of installed packages.

    Raises:
        MethodError: when two files claim one name, or one from elsewhere cannot be used.
    """
    found: dict[str, type[Algorithm]] = {}
    for place, module in _modules():
        where = place if place != __name__ else module.__name__
        own = [item for item in vars(module).values() if _is_method(item, module)]
        if not own and place != __name__:
            raise MethodError(f"{where}: holds no subclass of Algorithm that has a name")
        for method in own:
            if method.name in found:
                raise MethodError(f"{where}: the name '{method.name}' is taken by {found[method.name].__module__}")
            found[method.name] = _whole(where, method)
    return found


def _whole(where: str, method: type[Algorithm]) -> type[Algorithm]:
    """The method, if it has all that the harness asks of one."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(method.name)):
        raise MethodError(f"{where}: '{method.name}' is no name: small letters, digits and underscores, as my_method")
    facts = [fact for fact in ("title", "paper", "source_code", "actions") if not hasattr(method, fact)]
    if missing := [*facts, *sorted(getattr(method, "__abstractmethods__", ()))]:
        raise MethodError(f"{where}: {method.name} lacks {', '.join(missing)}")
    return method


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """Where methods may be, and what was imported from there."""
    for module in pkgutil.iter_modules(__path__):
        yield __name__, importlib.import_module(f"{__name__}.{module.name}")
    for path in filter(None, os.environ.get(PATHS, "").split(os.pathsep)):
        yield path, _imported(path, Path(path))
    for entry in entry_points(group=GROUP):
        try:
            module = entry.load()
        except (Exception, SystemExit) as error:
            raise MethodError(f"entry point {entry.value}: cannot be imported ({_told(error)})") from error
        yield f"entry point {entry.value}", module


def _imported(place: str, path: Path) -> ModuleType:
    """A module of a file that lies anywhere."""
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]  # files of one name in two folders
    spec = importlib.util.spec_from_file_location(f"{__name__}.elsewhere_{folder}.{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise MethodError(f"{place}: is not a Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise MethodError(f"{place}: cannot be imported ({_told(error)})") from error
    return module


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _is_method(item: object, module: ModuleType) -> bool:
    """Whether it is a concrete method that this module defines."""
    mine = isinstance(item, type) and issubclass(item, Algorithm) and item.__module__ == module.__name__
    return mine and getattr(item, "name", None) is not None
