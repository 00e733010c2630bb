"""Source files: modules from files and packages of the user's, and the form of a file, which sums are made of.

The form is the syntax tree without comments, docstrings and layout, the same for every version of Python. Files of
ours, or of a file's own package or folder, are followed.
"""

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
FOLDERS = {f"offmarl.{name}": Path(__file__).parents[1] / name for name in ("algorithms", "benchmarks")}
# A task's own entry or file counts instead of the first two; pictures change no result.
NOT_FOLLOWED = {f"offmarl.benchmarks.{name}" for name in ("tasks", "own", "frames", "frames.film")}


def first_line(error: BaseException) -> str:
    """The error's type and the first line of its message."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def modules_from_elsewhere(
    variable: str, group: str, fault: Callable[[str], Exception]
) -> Iterator[tuple[str, ModuleType]]:
    """The modules of files that an environment variable names and of entry points, each with its place in messages.

    Raises what `fault` makes of a message, where one cannot be imported.
    """
    for path in filter(None, os.environ.get(variable, "").split(os.pathsep)):
        yield path, _import_file(path, group, fault)
    for entry in entry_points(group=group):
        place = f"entry point {entry.value}"
        yield place, imported(place, entry.load, fault)


def imported(place: str, load: Callable[[], T], fault: Callable[[str], Exception]) -> T:
    """What `load` imports. Raises what `fault` makes of a message that names the place and the reason."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise fault(f"{place}: cannot be imported ({first_line(error)})") from error


def _import_file(name: str, group: str, fault: Callable[[str], Exception]) -> ModuleType:
    """Import a file by its path."""
    path = Path(name)
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]  # two folders may have files of one name
    spec = importlib.util.spec_from_file_location(f"{group}.elsewhere_{folder}.{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise fault(f"{name}: is not a Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    loader = spec.loader
    imported(name, lambda: loader.exec_module(module), fault)
    return module


def sum_of(parts: list[str]) -> str:
    """Twelve hex digits of some parts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def sources(first: Path) -> list[str]:
    """The form of a file and of the files that it uses, sorted by their names."""
    found, left = {}, [first]
    while left:
        path = left.pop()
        if path not in found:
            found[path] = _form(path)
            left += _used(path)
    return [f"{path.name} {found[path]}" for path in sorted(found, key=lambda path: (path.name, found[path]))]


@cache
def _tree(path: Path) -> ast.AST:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # just being edited: what was trained is not what stands there
        return ast.Module([], [])


@cache
def _form(path: Path) -> str:
    return repr(_shape(_tree(path)))


def _shape(node: Any) -> Any:
    """A syntax tree as nested lists without docstrings, and without fields that only some versions of Python have."""
    if isinstance(node, list):
        return [_shape(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _docstring(node):
        fields["body"] = node.body[1:]
    kept = {key: value for key, value in fields.items() if value not in (None, []) and key not in ("ctx", "kind")}
    return [type(node).__name__, *((key, _shape(value)) for key, value in kept.items())]


def _docstring(node: Any) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _used(path: Path) -> Iterator[Path]:
    """The files that a file imports, as far as they are ours or lie in its package or folder. Nothing is imported."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            places = [place for alias in node.names for place in _places(path, alias.name)]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            own = path.parents[node.level - 1]
            bases = [own.joinpath(*module.split("."))] if node.level else _places(path, module)
            places = [place for base in bases for place in (base, *(base / alias.name for alias in node.names))]
        else:
            continue
        yield from (file for place in places if (file := place.with_name(f"{place.name}.py")).is_file())
        yield from (file for place in places if (file := place / "__init__.py").is_file() and not _is_ours(file))


def _is_ours(file: Path) -> bool:
    return any(file.is_relative_to(folder) for folder in FOLDERS.values())


def _places(path: Path, module: str) -> list[Path]:
    """Where a module would be, without a suffix: among ours, or in the package or folder of the importing file."""
    for package, folder in FOLDERS.items():
        if module == package or module.startswith(package + "."):
            parts = module.removeprefix(package).split(".")[1:]
            return [] if module in NOT_FOLLOWED else [folder.joinpath(*parts)]
    top = path.parent
    while (top / "__init__.py").is_file() and (top.parent / "__init__.py").is_file():
        top = top.parent
    places = (above.joinpath(*module.split(".")) for above in path.parents)
    return [place for place in places if top in (place, *place.parents)]
