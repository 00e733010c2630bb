"""Change one operator or constant of a loss, target, mask or sampler at a time: does a test notice?

    .venv/bin/python tests/tools/mutants.py                      every target
    .venv/bin/python tests/tools/mutants.py om2p planner         some of them
    .venv/bin/python tests/tools/mutants.py --limit 20 om2p      a sample of each

A mutant is a module with one change, put into a forked process in the place of the module, where the tests that concern
it run until the first failure. Mutants that no test notices are listed with file, line and change.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
SECONDS = 120  # a mutant whose tests take longer counts as noticed: it hangs
LOSSES = (
    r"losses|.*_loss(es)?|.*target.*|teach|act|sample|search|propose|rate|times|weights|best.*|admissible|mix|decide"
)
TESTS = "tests/algorithms/test_{}.py"
TARGETS: dict[str, tuple[str, str, list[str]]] = {  # name: file, functions, tests
    **{
        name: (f"algorithms/{name}.py", LOSSES, [TESTS.format(name), "tests/algorithms/test_coordination.py"])
        for name in ("bc", "icq", "mabcq", "mac_flow", "macql", "matd3bc", "om2p", "omar", "omiga", "ma_sfbc")
    },
    "planner": (
        "algorithms/parts/planner.py",
        LOSSES + "|plan|known|guided",
        ["tests/algorithms/parts/test_planner.py"],
    ),
    "diffusion": ("algorithms/parts/diffusion.py", ".*", ["tests/algorithms/parts/test_diffusion.py"]),
    "flow": ("algorithms/parts/flow.py", ".*", ["tests/algorithms/parts/test_flow.py"]),
    "gaussian": ("algorithms/parts/gaussian.py", ".*", ["tests/algorithms/parts/test_gaussian.py"]),
    "normalise": ("algorithms/parts/normalise.py", ".*", ["tests/algorithms/parts/test_normalise.py"]),
    "returns": ("algorithms/parts/returns.py", ".*", ["tests/algorithms/parts/test_returns.py"]),
    "mixers": ("algorithms/parts/mixers.py", ".*", ["tests/algorithms/parts/test_mixers.py"]),
    "mpe": ("benchmarks/mpe.py", ".*", ["tests/benchmarks/test_mpe.py", "tests/benchmarks/test_mpe_prey.py"]),
}
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
NAMES = {"amin": "amax", "amax": "amin", "mean": "sum", "sum": "mean", "min": "max", "max": "min", "argmax": "argmin"}


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The mutants of one node."""
    other = copy.deepcopy(node)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        other.op = OPERATORS[type(node.op)]()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert, ast.Not)):
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
        yield node.func.value


class Replace(ast.NodeTransformer):
    """Put one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Compare by identity."""
        return self.new if node is self.old else super().visit(node)


def mutants(source: str, functions: str) -> Iterator[tuple[str, ast.Module]]:
    """What is changed in words, and the module with the change."""
    tree = ast.parse(source)
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        if not re.fullmatch(functions, function.name):
            continue
        body = [node for statement in function.body for node in ast.walk(statement)]
        for node in body:
            for new in changes(node):
                ast.copy_location(new, node)
                words = f"{node.lineno} {function.name}: {ast.unparse(node)[:60]} -> {ast.unparse(new)[:60]}"
                number = body.index(node)
                again = ast.parse(source)
                twin = next(
                    f for f in ast.walk(again) if isinstance(f, ast.FunctionDef) and f.lineno == function.lineno
                )
                there = [n for statement in twin.body for n in ast.walk(statement)][number]
                yield words, ast.fix_missing_locations(Replace(there, copy.deepcopy(new)).visit(again))


def noticed(module: str, mutant: ast.Module, file: str, tests: list[str]) -> bool:
    """Whether a test fails on the mutant, in a process of its own."""
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            exec(compile(mutant, file, "exec"), sys.modules[module].__dict__)
            from offmarl.algorithms import registry

            registry.cache_clear()
        except BaseException:
            os._exit(1)
        plain = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"]
        os._exit(int(pytest.main([*tests, *plain])))
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def examine(name: str, limit: int | None) -> tuple[int, list[str]]:
    """How many mutants of a target there were, and those that no test noticed."""
    file, functions, tests = TARGETS[name]
    tests = [test for test in tests if (ROOT / test).exists()]
    module = "offmarl." + file.removesuffix(".py").replace("/", ".")
    importlib.import_module(module)
    found = list(mutants((ROOT / file).read_text(), functions))
    if limit and limit < len(found):
        found = random.Random(0).sample(found, limit)
    left = [words for words, mutant in tqdm(found, desc=name) if not noticed(module, mutant, str(ROOT / file), tests)]
    return len(found), [f"{file}:{words}" for words in left]


def main() -> int:
    """Print a table and the survivors; exit code 1 where fewer than 95 % are noticed."""
    parser = argparse.ArgumentParser(description="Do tests notice one changed operator or constant?")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--limit", type=int, help="at most so many mutants of each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(ROOT)
    total, survivors = 0, []
    for name in args.names or TARGETS:
        count, left = examine(name, args.limit)
        print(f"| {name} | {count} | {count - len(left)} | {len(left)} |", flush=True)
        total, survivors = total + count, survivors + left
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(survivors))
        print(f"{total - len(survivors)} of {total} noticed ({1 - len(survivors) / max(total, 1):.1%})")
    return int(len(survivors) > 0.05 * total)


if __name__ == "__main__":
    raise SystemExit(main())
