"""Which code made a run: sums over the source of its method and of its simulator.

A sum ignores comments, docstrings and layout, and is the same for every version of Python. A run whose code reads
otherwise today is stale: its number may not be what the same command would give now.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from offmarl import algorithms, benchmarks
from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.tasks import ENGINES, Task, tasks
from offmarl.experiments.store.store import WITH_RESULT, Record, Store

OWN = {package.__name__: Path(package.__path__[0]) for package in (algorithms, benchmarks)}
NOT_FOLLOWED = {"offmarl.benchmarks.tasks"}  # a task's own entry counts instead


def code_sums(algorithm: str, task: str) -> dict[str, str]:
    """The sums of a method (its file and the files of ours or of its folder that it imports) and of a task.

    All methods are read at the first call, so that a file edited while a grid trains is not taken for what trained.
    Raises KeyError for an unknown method or task.
    """
    sums = {name: _method_sum(method) for name, method in registry().items()}
    return {"method": sums[algorithm], "task": _task_sum(tasks()[task])}


def why_stale(record: Mapping[str, Any]) -> str | None:
    """Why a stored run, or a measurement, is stale; None where it is not, or has no sums, or its method is unknown."""
    stored, cell = record.get("code_sums") or {}, record.get("cell", record)
    if cell["algorithm"] not in registry() or cell["task"] not in tasks():
        return None
    today = code_sums(cell["algorithm"], cell["task"])
    changed = [part for part in today if stored.get(part, today[part]) != today[part]]
    return f"the code of its {' and its '.join(changed)} has changed since" if changed else None


def treat_stale(store: Store, runs: dict[str, Record], again: bool) -> int:
    """Say how many of these runs were made by other code, set them aside if `again`; returns how many stay."""
    stale = [run_id for run_id, record in runs.items() if record["status"] in WITH_RESULT and why_stale(record)]
    if not stale:
        return 0
    found = f"{len(stale)} finished runs were made by other code of their method or task (stale)"
    if not again:
        print(f"offmarl: {found}; --again trains them anew", file=sys.stderr)
        return len(stale)
    for run_id in stale:
        with suppress(FileNotFoundError):  # another driver was first
            store.set_aside(run_id, "stale")
        del runs[run_id]
    print(f"offmarl: {found}; moved to {store.root / 'stale'}, training them anew", file=sys.stderr)
    return 0


@cache
def _method_sum(method: type[Algorithm]) -> str:
    file = getattr(sys.modules.get(method.__module__), "__file__", None)
    return _sum(_sources(Path(file))) if file else ""


@cache
def _task_sum(task: Task) -> str:
    entry = {key: value for key, value in asdict(task).items() if key != "note"}
    return _sum([json.dumps(entry, sort_keys=True), *_adapter_sources(task.engine)])


@cache
def _adapter_sources(engine: str) -> list[str]:
    module = ENGINES[engine].adapter.split(":")[0]
    return _sources(OWN[benchmarks.__name__].joinpath(*module.split(".")).with_suffix(".py"))


def _sum(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _sources(first: Path) -> list[str]:
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
    return any(file.is_relative_to(folder) for folder in OWN.values())


def _places(path: Path, module: str) -> list[Path]:
    """Where a module would be, without a suffix: among ours, or in the package or folder of the importing file."""
    for package, folder in OWN.items():
        if module == package or module.startswith(package + "."):
            parts = module.removeprefix(package).split(".")[1:]
            return [] if module in NOT_FOLLOWED else [folder.joinpath(*parts)]
    top = path.parent
    while (top / "__init__.py").is_file() and (top.parent / "__init__.py").is_file():
        top = top.parent
    places = (above.joinpath(*module.split(".")) for above in path.parents)
    return [place for place in places if top in (place, *place.parents)]
