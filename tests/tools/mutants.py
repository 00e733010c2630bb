"""Change one operator or constant of a loss, target, mask or sampler at a time: does a test notice?

    .venv/bin/python tests/tools/mutants.py                              every method and part, and the simulators
    .venv/bin/python tests/tools/mutants.py algorithms/om2p.py           some files
    .venv/bin/python tests/tools/mutants.py --limit 20 algorithms/bc.py  a sample of each

The tests of the files are collected once and run once, to learn which lines each of them reaches and how long it takes.
Then a forked process for each mutant puts the changed code into the functions that are there, and runs the tests that
reach the changed lines, the fastest first, until one fails. JAX does not survive a fork, and games of StarCraft are
processes that import anew: the mutants of these are tried by a new pytest each, on a copy of the simulators' folder.
Tests that compute for more than SLOWEST seconds take no part. `equivalent_mutants.yaml` names the changes that change
nothing, and why; they are left out.
"""

import argparse
import ast
import copy
import gc
import importlib
import inspect
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
import torch
import yaml
from _pytest.runner import runtestprotocol

from offmarl.algorithms import registry

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")  # file: {"function: changed statement": reason}
SLOWEST, HANGS = 2.0, 20  # seconds of computing: of a test that takes part; of a mutant that hangs, and so is noticed
WAITS = 120  # seconds after which a test or a mutant waits for something that does not come
COMPILING = 10  # times as much computing for a test that may compile
PARTS = ("algorithm", "planner", "diffusion", "flow", "gaussian", "normalise", "returns", "mixers", "recurrent", "unet")
SIMULATORS = ("mpe", "mamujoco", "rollout", "smax/starts", "smax/units", "smax/battle", "smax/env", "starcraft/env")

COPIED = ("benchmarks/smax/", "benchmarks/starcraft/")  # tried in copies
QUIET = ("-s", "-qq", "--tb=native", "-Wignore", "-pno:randomly", "-pno:cacheprovider", "-pno:xdist")

OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
OPERATORS |= {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
NAMES = {"amin": "amax", "mean": "sum", "min": "max", "argmax": "argmin", "minimum": "maximum", "any": "all"}
NAMES |= {new: old for old, new in NAMES.items()}
MUTE = (ast.Raise, ast.Assert, ast.JoinedStr)  # words for people
COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.withitem, ast.FunctionDef, ast.Try)


class Mutant(NamedTuple):
    """A changed line of a function."""

    lines: range
    function: str
    text: str  # the statement with the change
    change: str
    tree: ast.Module


def targets() -> list[str]:
    """The files of all methods, what they are made of, and the simulators."""
    methods = dict.fromkeys(Path(inspect.getfile(cls)).resolve() for cls in registry().values())
    own = [str(path.relative_to(ROOT)) for path in methods if path.is_relative_to(ROOT)]
    return [*own, *(f"algorithms/parts/{part}.py" for part in PARTS), *(f"benchmarks/{sim}.py" for sim in SIMULATORS)]


def concerning(file: str) -> list[str]:
    """The tests of a file: those that mirror it; failing that, those that name its module; failing that, the method.

    A room of simulators has tests in common.
    """
    path = Path(file)
    module = "offmarl." + ".".join(path.with_suffix("").parts)
    mirrored, tests = ROOT / "tests" / path.parent, sorted((ROOT / "tests" / path.parts[0]).rglob("test_*.py"))
    if path.parent.parent.name == "benchmarks":
        return [str(test) for test in tests if test.parent == mirrored]
    own = [test for test in tests if test.parent == mirrored and test.stem.startswith(f"test_{path.stem}")]
    for words in (f"{module} import", f'"{path.stem}"'):
        own = own or [test for test in tests if words in test.read_text()]
    return [str(test) for test in own]


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The mutants of one node."""
    other = copy.deepcopy(node)
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        other.op = OPERATORS[type(node.op)]()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert | ast.Not):
        yield other.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        other.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield other
    elif isinstance(node, ast.BoolOp):
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield other
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        other.value = node.value + 1
        yield other
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        other.value = not node.value
        yield other
    elif isinstance(node, ast.Attribute) and node.attr in NAMES and isinstance(node.ctx, ast.Load):
        other.attr = NAMES[node.attr]
        yield other
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "detach":
        yield other.func.value


class Replace(ast.NodeTransformer):
    """Put one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Compare by identity."""
        return self.new if node is self.old else super().visit(node)


def mutants(source: str) -> Iterator[Mutant]:
    """All changes in the bodies of functions."""
    for number, (node, function, statement) in enumerate(_inside(ast.parse(source))):
        for new in changes(node) if function else ():
            tree = ast.parse(source)
            there, _, around = list(_inside(tree))[number]
            new = ast.copy_location(new, there)
            replaced = Replace(there, new)
            if there is around:
                around = new
            tree = ast.fix_missing_locations(replaced.visit(tree))
            lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
            change = f"{ast.unparse(node)[:50]} -> {ast.unparse(new)[:50]}"
            yield Mutant(lines, function, " ".join(ast.unparse(around).split()), change, tree)


def _inside(node: ast.AST, function: str = "", statement: ast.AST | None = None) -> Iterator[tuple]:
    """Every node below, with the outermost function and the statement that it is in."""
    for child in ast.iter_child_nodes(node):
        signature = isinstance(node, ast.FunctionDef) and child not in node.body  # defaults, types and decorators
        if isinstance(child, MUTE) or signature or child is getattr(node, "annotation", None):
            continue
        inner = function or (child.name if isinstance(child, ast.FunctionDef) else "")
        whole = isinstance(child, ast.stmt) and not isinstance(child, COMPOUND)
        within = child if whole or statement is None or isinstance(node, COMPOUND) else statement
        yield child, inner, within
        yield from _inside(child, inner, within)


def codes(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """The code of all functions, by name and first line."""
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield (const.co_qualname, const.co_firstlineno), const
            yield from codes(const)


def live(files: set[str]) -> dict[tuple, list[FunctionType]]:
    """The functions of the files, wherever they are, by file, name and first line."""
    found: dict[tuple, list[FunctionType]] = {}
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename in files:
            code = thing.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(thing)
    return found


def in_a_process(work: Callable[[Callable[[bytes], object]], object]) -> bytes:
    """What work says in a forked process, until it ends, fails or is stopped."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        gc.disable()
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            work(lambda said: os.write(writing, said))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


class TooSlow(BaseException):
    """A test that takes no part."""


def reach(items: list[pytest.Item], files: set[str], patience: float) -> dict[int, tuple[float, list]]:
    """For every test that passes soon enough, by number: its seconds, and the lines of the files that it reaches."""
    found, lines = {}, set()

    def local(frame, event, _):
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def calls(frame, event, _):
        return local if frame.f_code.co_filename in files else None

    def stop(*_):
        raise TooSlow

    # What is done once: modules that torch imports late would be cut in half by the first test that is too slow.
    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))
    torch.optim.Adam([torch.zeros(1)])
    run(items[0], None)
    before = [signal.signal(number, stop) for number in (signal.SIGVTALRM, signal.SIGALRM)]
    for k, item in enumerate(items):
        lines.clear()
        start = time.process_time()
        sys.settrace(calls)
        signal.setitimer(signal.ITIMER_VIRTUAL, patience * SLOWEST)
        signal.alarm(WAITS)
        passed = run(item, items[k + 1] if k + 1 < len(items) else None)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.alarm(0)
        sys.settrace(None)
        seconds = time.process_time() - start
        if passed and seconds < patience * SLOWEST:
            found[k] = seconds, sorted(lines)
    signal.signal(signal.SIGVTALRM, before[0])
    signal.signal(signal.SIGALRM, before[1])
    return found


def run(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Whether a test passes."""
    reports = runtestprotocol(item, log=False, nextitem=following)
    return all(not report.failed for report in reports)


def verdicts(file: str, found: list[Mutant | None], tests: list[list[pytest.Item]], functions: dict) -> bytes:
    """For each mutant (None: the file as it is) "+" where a test fails, "-" where all pass, "+" too where it hangs.

    All in one forked process, and in another one from there on where a mutant ends it.
    """

    def work(say: Callable[[bytes], object]) -> None:
        for mutant, items in zip(found[len(said) :], tests[len(said) :]):
            signal.setitimer(signal.ITIMER_VIRTUAL, HANGS)
            signal.alarm(WAITS)
            put_in_place(file, mutant, functions)
            pairs = zip(items, [*items[1:], None])
            say(b"-" if all(run(item, following) for item, following in pairs) else b"+")
            if items:
                items[0].session._setupstate.teardown_exact(None)  # what a failure has left standing

    said = b""
    while len(said) < len(found):
        said += in_a_process(work)
        said += b"+" * (len(said) < len(found))
    return said


def in_a_copy(file: str, mutant: Mutant | None, tests: list[pytest.Item]) -> bytes:
    """The same of one mutant, by tests that import a copy of the file's room with it."""
    room = Path(file).parts[0]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / room, Path(folder, "offmarl", room), ignore=shutil.ignore_patterns("__pycache__"))
        if mutant:
            Path(folder, "offmarl", file).write_text(ast.unparse(mutant.tree))
        command = [sys.executable, "-m", "pytest", "-x", *QUIET, *(test.nodeid for test in tests)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            done = subprocess.run(command, env=os.environ | {"PYTHONPATH": folder}, timeout=5 * WAITS, **quiet)
        except subprocess.TimeoutExpired:
            return b"+"
    return b"+" if done.returncode else b"-"


def put_in_place(file: str, mutant: Mutant | None, functions: dict) -> None:
    """Give the functions of a file the code of a mutant."""
    for name, code in codes(compile(mutant.tree if mutant else Path(file).read_text(), file, "exec")):
        for function in functions.get((file, *name), ()):
            function.__code__ = code


class Examination:
    """Runs within a session of pytest, which has collected the tests."""

    def __init__(self, files: list[str], limit: int | None):
        self.files, self.limit = files, limit
        self.total, self.left = 0, 0
        self.equivalent = yaml.safe_load(EQUIVALENT.read_text()) or {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of running the tests."""
        sources = {file: (ROOT / file).read_text() for file in self.files}  # as imported, whatever is edited meanwhile
        modules = {file: importlib.import_module("offmarl." + file[:-3].replace("/", ".")) for file in self.files}
        paths = {file: str(module.__file__) for file, module in modules.items()}
        self.functions = live(set(paths.values()))
        self.copied = self.files[0].startswith(COPIED)
        tests = [test for test in session.items if self.copied or "battles" not in test.fixturenames]
        found = reach(tests, set(paths.values()), COMPILING if self.copied else 1)  # forked children find all warm
        reached = {tests[k]: (seconds, set(map(tuple, lines))) for k, (seconds, lines) in found.items()}
        print(f"{len(reached)} of {len(session.items)} tests take part", flush=True)
        gc.collect()
        gc.freeze()  # a child that collects garbage would copy all memory
        for file in self.files:
            self.examine(file, sources[file], paths[file], reached)
        return True

    def examine(self, file: str, source: str, path: str, reached: dict) -> None:
        """Try the mutants of a file, and print those that survive and a row of the table."""
        known = self.equivalent.get(file, {})
        every = list(mutants(source))
        found = [m for m in every if not {m.function, f"{m.function}: {m.text}"} & known.keys()]
        equivalent = len(every) - len(found)
        if self.limit and self.limit < len(found):
            found = random.Random(0).sample(found, self.limit)
        tests = []
        for mutant in found:
            lines = {(path, line) for line in mutant.lines}
            there = [item for item in reached if reached[item][1] & lines]
            beside = {item.path for item in there}  # what one test compiled others use
            near = [item for item in reached if item.path in beside and item not in there]
            rest = [item for item in reached if item.path not in beside]
            tests.append(sorted(there, key=lambda item: reached[item][0]) + (near + rest) * self.copied)
        found, tests = [*found, None], [*tests, list(reached)]
        if self.copied:
            said = (ord(in_a_copy(file, m, items)) for m, items in zip(found, tests))
        else:
            said = iter(verdicts(path, found, tests, self.functions))
        left = 0
        for mutant, items, noticed in zip(found, tests, said):
            if mutant and noticed == ord("-"):
                left += 1
                unseen = "" if items else " (no test gets there)"
                where = f"{file}:{mutant.lines[0]} {mutant.function}"
                print(f"{where}: {mutant.text}\n    {mutant.change}{unseen}", flush=True)
            elif not mutant and noticed == ord("+"):
                print(f"{file}: the tests fail on the file as it is")
        count = len(found) - 1
        self.total, self.left = self.total + count, self.left + left
        caught = count - left
        print(f"| {file} | {count} | {caught} | {caught / max(count, 1):.1%} | {equivalent} |", flush=True)


def main() -> int:
    """Print the survivors and a table; exit code 1 where fewer than 95 % are noticed."""
    parser = argparse.ArgumentParser(description="Do tests notice one changed operator or constant?")
    parser.add_argument(
        "files", nargs="*", help="such as algorithms/om2p.py (default: all methods, parts and simulators)"
    )
    parser.add_argument("--limit", type=int, help="at most so many mutants of each file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:  # of what JAX compiles, which all processes share
        os.environ |= {"OFFMARL_TEST_CACHE": folder, "JAX_COMPILATION_CACHE_DIR": folder}
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        return examine(args.files or targets(), args.limit)


def examine(files: list[str], limit: int | None) -> int:
    """Those that are tried in copies come last."""
    status, total, left = 0, 0, 0
    for copied in (False, True):
        if chosen := [file for file in files if file.startswith(COPIED) == copied]:
            tests = dict.fromkeys(test for file in chosen for test in concerning(file))
            examination = Examination(chosen, limit)
            status = status or int(pytest.main([*tests, *QUIET], plugins=[examination]))
            total, left = total + examination.total, left + examination.left
    print(f"{total - left} of {total} noticed ({(total - left) / max(total, 1):.1%})")
    return status or int(left > 0.05 * total)


if __name__ == "__main__":
    raise SystemExit(main())
