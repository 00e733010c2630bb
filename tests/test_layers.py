"""The house: which room may import which, no cycle, few entries in a folder, and no file that outgrows a reader.

Imports follow the data. Each room names the rooms below it that it may use, besides itself; a new arrow is a decision,
to be made here and in the READMEs.
"""

import ast
import tomllib
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("algorithms", "benchmarks", "datasets", "experiments", "reports")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LONGEST_FILE, LONGEST_TEST_FILE, LONGEST_FUNCTION, MOST_ENTRIES = 350, 400, 60, 15
LISTS = {"algorithms", "suites", "weights", "published", "templates"}  # folders that list things of one kind

DATA = {"algorithms.parts.batch", "algorithms.parts.streams", "benchmarks", "datasets"}  # and what data may use
BELOW = {
    "algorithms",
    "benchmarks",
    "datasets",
    "experiments.environment",
    "experiments.errors",
    "experiments.processes",
}
MAY_IMPORT = {
    "benchmarks.source": set(),  # how files and packages of the user's are found, for methods as for tasks
    "algorithms": {"algorithms", "benchmarks.source"},
    "algorithms.parts": {"algorithms.parts"},
    "benchmarks": {"benchmarks"},
    "datasets": DATA,
    "reports.records": set(),
    "reports": {"reports"},
    "experiments.errors": {"benchmarks", "datasets"},
    "experiments.environment": set(),
    "experiments.processes": {"experiments.errors"},
    "experiments.store": {*BELOW, "reports.records"},
    "experiments.grid": {*BELOW, "experiments.store"},
    "experiments.training": {*BELOW, "experiments.store", "experiments.grid", "reports.records"},
    "experiments.timing": {*BELOW, "reports", "experiments.store", "experiments.grid", "experiments.training"},
    "experiments.launch": {*BELOW, "experiments.store", "experiments.grid", "experiments.training"},
}
MAY_IMPORT["experiments.studies"] = {*MAY_IMPORT["experiments.timing"], "experiments.launch"} - {"reports"}
MAY_IMPORT["experiments.commands"] = {
    *MAY_IMPORT["experiments.studies"],
    *("reports", "experiments.timing", "experiments.studies"),
}
MAY_IMPORT["experiments.api"] = {*MAY_IMPORT["experiments.commands"], "experiments.commands"}
MAY_IMPORT["experiments.cli"] = {"experiments.commands", "experiments.environment", "experiments.errors"}


def name_of(path):
    """The module of a file, without the leading package: experiments.grid.jobs."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imports(path):
    """The modules of ours that a file imports, wherever in it, but for what only type checkers read."""
    tree = ast.parse(path.read_text())
    unread = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("offmarl.") for alias in node.names if alias.name.startswith("offmarl.")
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("offmarl."):
            base = node.module.removeprefix("offmarl.")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


GRAPH = {name: sorted(set(imports(path)) - {name}) for name, path in MODULES.items()}


def within(module, rooms):
    """Whether a module lies in one of some rooms."""
    return any(module == room or module.startswith(room + ".") for room in rooms)


def room_of(module):
    """The narrowest room of MAY_IMPORT that a module lies in; None for the package files that hold a docstring."""
    return max((room for room in MAY_IMPORT if within(module, [room])), key=len, default=None)


def test_the_graph_is_that_of_the_package():
    assert "experiments.grid.jobs" in GRAPH["experiments.training.run"]
    assert {name.split(".")[0] for name in GRAPH} == set(FOLDERS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_follow_the_layers(module):
    room = room_of(module)
    if room is None:
        assert GRAPH[module] == []
        return
    strangers = [other for other in GRAPH[module] if not within(other, {room, *MAY_IMPORT[room]})]
    assert strangers == [], f"{room} may import {', '.join(sorted(MAY_IMPORT[room])) or 'itself alone'}"


def test_no_import_runs_in_a_circle():
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_room_is_below_another_that_is_below_it():
    rooms = defaultdict(set)
    for module, used in GRAPH.items():
        rooms[room_of(module)] |= {room_of(other) for other in used} - {room_of(module), None}
    rooms["algorithms"].discard("algorithms.parts")  # a part lies inside it
    list(TopologicalSorter({room: used for room, used in rooms.items() if room}).static_order())


def test_no_folder_has_more_entries_than_a_reader_can_hold():
    entries = defaultdict(set)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if not path.name.startswith(("__", ".", "README")) and "__pycache__" not in path.parts:
                entries[path.parent].add(path.name)
    crowded = {str(f.relative_to(ROOT)): len(found) for f, found in entries.items() if len(found) > MOST_ENTRIES}
    assert {name: n for name, n in crowded.items() if name.split("/")[-1] not in LISTS} == {}


def test_no_file_stands_beside_a_folder_of_its_name():
    assert [str(path) for path in FILES if path.with_suffix("").is_dir()] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_files_and_functions_stay_short(module):
    text = MODULES[module].read_text()
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


def test_files_of_tests_stay_short():
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_TEST_FILE} == {}


def test_the_wheel_holds_every_package():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in FILES}
    assert set(setuptools["packages"]) == {f"offmarl.{'.'.join(f.parts)}" for f in folders} | {"offmarl.contract"}
    assert setuptools["package-dir"] == {"offmarl": ".", "offmarl.contract": "tests/contract"}
