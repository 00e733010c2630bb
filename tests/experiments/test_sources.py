"""What must not stand in the sources of the harness."""

import ast
from pathlib import Path

import pytest

from offmarl.algorithms import registry

ROOT = Path(__file__).parents[2]
FOLDERS = ("algorithms", "benchmarks", "datasets", "experiments", "reports")
SOURCES = sorted(path for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("*.py"))
PACKAGE = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in FOLDERS]


def folder(path):
    """The top-level folder that a file belongs to."""
    return path.relative_to(ROOT).parts[0]


METHODS = {Path(__import__(cls.__module__, fromlist=["x"]).__file__).name for cls in registry().values()}


def label(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Every module that a file imports, and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, node.lineno


def test_there_are_sources_to_look_at():
    assert {folder(path) for path in PACKAGE} == set(FOLDERS)
    assert len(METHODS) == len(registry()) >= 4


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_no_file_imports_our_folders_by_their_bare_names(path):
    bare = [f"line {line}: {name}" for name, line in imports(path) if name.split(".")[0] in FOLDERS]
    assert bare == []


@pytest.mark.parametrize(
    "path",
    [p for p in PACKAGE if folder(p) != "reports" and not (p.parent.name == "algorithms" and p.name in METHODS)],
    ids=label,
)
def test_the_harness_names_no_method(path):
    words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert {word for word in words if isinstance(word, str)} & set(registry()) == set()


@pytest.mark.parametrize("path", PACKAGE, ids=label)
def test_nothing_that_is_read_can_run_code(path):
    """No pickles: torch.load takes weights only, np.load refuses objects, pickle itself is not imported."""
    assert not {"pickle", "joblib", "dill"} & {name for name, _ in imports(path)}
    for node in ast.walk(ast.parse(path.read_text())):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in ("torch.load", "np.load"):
            word, safe = ("weights_only", True) if called == "torch.load" else ("allow_pickle", False)
            told = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == word}
            assert told == {word: safe}, f"line {node.lineno}"
