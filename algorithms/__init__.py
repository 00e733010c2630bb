"""Methods, one file each. A new file in this folder is a new method; nothing else has to change.

Methods may also be in files named by OFFMARL_ALGORITHMS (separated as in PATH; `--method-file FILE` adds one), and in
installed packages, as modules named by entry points of the group `offmarl.algorithms`.
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
    """A file or entry point has no usable method; the message says where and why."""

    in_a_line = True  # the command line prints the message without a traceback


@cache
def registry() -> dict[str, type[Algorithm]]:
    """All methods by name: of this folder, of OFFMARL_ALGORITHMS and of entry points.

    Raises:
        MethodError: if two methods have one name, or a method from elsewhere cannot be used.
    """
    found: dict[str, type[Algorithm]] = {}
    for place, module in _modules():
        where = module.__name__ if place == __name__ else place
        methods = [item for item in vars(module).values() if _is_method(item, module)]
        if not methods and place != __name__:
            raise MethodError(f"{where}: has no subclass of Algorithm with a name")
        for method in methods:
            _check(where, method)
            if method.name in found:
                raise MethodError(f"{where}: the name '{method.name}' is taken by {found[method.name].__module__}")
            found[method.name] = method
    return found


def _check(where: str, method: type[Algorithm]) -> None:
    """Check a method's name, and that no class attribute or function is missing."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(method.name)):
        raise MethodError(f"{where}: the name '{method.name}' must have small letters, digits and underscores only")
    missing = [fact for fact in ("title", "paper", "source_code", "actions") if not hasattr(method, fact)]
    if missing := [*missing, *sorted(getattr(method, "__abstractmethods__", ()))]:
        raise MethodError(f"{where}: {method.name}: missing {', '.join(missing)}")


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """The modules that may have methods, each with the place that messages name."""
    for module in pkgutil.iter_modules(__path__):
        yield __name__, _imported(f"algorithms/{module.name}.py", f"{__name__}.{module.name}")
    for path in filter(None, os.environ.get(PATHS, "").split(os.pathsep)):
        yield path, _import_file(path)
    for entry in entry_points(group=GROUP):
        try:
            module = entry.load()
        except (Exception, SystemExit) as error:
            raise MethodError(f"entry point {entry.value}: cannot be imported ({_first_line(error)})") from error
        yield f"entry point {entry.value}", module


def _imported(where: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise MethodError(f"{where}: cannot be imported ({_first_line(error)})") from error


def _import_file(name: str) -> ModuleType:
    """Import a file by its path."""
    path = Path(name)
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]  # two folders may have files of one name
    spec = importlib.util.spec_from_file_location(f"{__name__}.elsewhere_{folder}.{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise MethodError(f"{name}: is not a Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise MethodError(f"{name}: cannot be imported ({_first_line(error)})") from error
    return module


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _is_method(item: object, module: ModuleType) -> bool:
    """Whether `item` is a method that this module defines: a subclass of Algorithm with a name."""
    own = isinstance(item, type) and issubclass(item, Algorithm) and item.__module__ == module.__name__
    return own and getattr(item, "name", None) is not None
