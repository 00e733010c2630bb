"""Methods, one file each. A new file here is a new method: nothing else needs to know."""

import importlib
import pkgutil
from functools import cache

from offmarl.algorithms.base import Algorithm


@cache
def registry() -> dict[str, type[Algorithm]]:
    """Every method in this folder by name.

    Raises:
        TypeError: when two files claim one name.
    """
    found: dict[str, type[Algorithm]] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for item in vars(loaded).values():
            if not (isinstance(item, type) and issubclass(item, Algorithm) and item.__module__ == loaded.__name__):
                continue
            name = getattr(item, "name", None)  # None: the abstract base
            if name in found:
                raise TypeError(f"{loaded.__name__}: the name '{name}' is taken by {found[name].__module__}")
            if name is not None:
                found[name] = item
    return found
