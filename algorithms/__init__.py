"""Methods, one file each. A new file in this folder is a new method; nothing else has to change.

Methods may also be in files named by OFFMARL_ALGORITHMS (separated as in PATH; `--method-file FILE` adds one), and in
installed packages, as modules named by entry points of the group `offmarl.algorithms`.
"""

import pkgutil
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from types import ModuleType

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.source import imported, modules_from_elsewhere

PATHS, GROUP = "OFFMARL_ALGORITHMS", "offmarl.algorithms"
SPACES = {"discrete", "continuous"}  # kinds of actions
NAME = r"[a-z][a-z0-9_]*"  # of methods, variants and settings: they stand in the names of folders


class MethodError(TypeError):
    """A file or entry point has no usable method; the message says where and why."""

    in_a_line = True  # the command line prints the message without a traceback


@cache
def registry() -> dict[str, type[Algorithm]]:
    """All methods by name: of this folder, of OFFMARL_ALGORITHMS and of entry points.

    Raises:
        MethodError: if two methods have one name or title, or a method from elsewhere cannot be used.
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
            if "title" not in vars(method):
                method.title = method.name  # tables tell methods apart by it, and would take a variation for its parent
            if taken := next((other for other in found.values() if other.title == method.title), None):
                raise MethodError(
                    f"{where}: {method.name}: the title '{method.title}' is that of {taken.name}; give it its own"
                )
            found[method.name] = method
    return found


def _check(where: str, method: type[Algorithm]) -> None:
    """Check the facts that a method declares, and that no class attribute or function is missing."""
    if not re.fullmatch(NAME, str(method.name)) or method.name == "all":
        raise MethodError(
            f"{where}: the name '{method.name}' must have small letters, digits and underscores only, and not be 'all'"
        )
    missing = [fact for fact in ("title", "paper", "source_code", "actions") if not hasattr(method, fact)]
    if missing := [*missing, *sorted(getattr(method, "__abstractmethods__", ()))]:
        raise MethodError(f"{where}: {method.name}: missing {', '.join(missing)}")
    if not isinstance(method.actions, frozenset) or not SPACES >= method.actions > set():
        raise MethodError(f"{where}: {method.name}: actions: write a frozenset of {' or '.join(sorted(SPACES))}")
    if not isinstance(method.title, str) or not method.title.strip() or len(method.title.splitlines()) > 1:
        raise MethodError(f"{where}: {method.name}: title: write a line of text")
    for fact, kinds, text in (
        ("variants", Mapping, "names, of small letters, digits and underscores, to settings: {'mine': {'alpha': 3.0}}"),
        ("tunes", (list, tuple), "settings to the values to try: {'alpha': (1.0, 3.0)}"),
    ):
        named = getattr(method, fact)
        sound = isinstance(named, Mapping) and all(isinstance(of, kinds) for of in named.values())
        if not sound or not all(re.fullmatch(rf"{NAME}(:({'|'.join(SPACES)}))?", str(key)) for key in named):
            raise MethodError(f"{where}: {method.name}: {fact}: write a dict of {text}")


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """The modules that may have methods, each with the place that messages name."""
    for name in (module.name for module in pkgutil.iter_modules(__path__)):
        load = partial(import_module, f"{__name__}.{name}")
        yield __name__, imported(f"algorithms/{name}.py", load, MethodError)
    yield from modules_from_elsewhere(PATHS, GROUP, MethodError)


def _is_method(item: object, module: ModuleType) -> bool:
    """Whether `item` is a method that this module defines: a subclass of Algorithm with a name."""
    own = isinstance(item, type) and issubclass(item, Algorithm) and item.__module__ == module.__name__
    return own and getattr(item, "name", None) is not None
