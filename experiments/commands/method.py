"""A method of one's own: `offmarl new` writes its file, `offmarl validate` tells whether it keeps the contract."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from offmarl.experiments.commands.options import examples
from offmarl.experiments.errors import UserError, check_name

TESTS = Path(__file__).parents[2] / "tests" / "algorithms"
CONTRACT = ("test_settings.py", "test_contract.py", "test_acting.py", "test_graphs.py")
PLACES = {"continuous": ("continuous", "mpe/spread:medium"), "discrete": ("smac", "smac/3m:medium")}


def new_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(("new my_method", "here"), ("new my_method --dir algorithms", "in a checkout"))
    parser.add_argument("name", help="as the command line will call it: my_method")
    parser.add_argument("--dir", type=Path, default=Path(), help="where to (default: here; algorithms/ in a checkout)")
    parser.set_defaults(command=_new)


def validate_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(("validate my_method.py", "a file"), ("validate mac_flow", "a method by name"))
    parser.set_defaults(command=_validate)
    parser.add_argument("name", help="a method's name, or its file")
    parser.add_argument("--keep", type=Path, help="results directory of the smoke run (default: none is kept)")


def register_files(paths: Sequence[str]) -> None:
    """Let these files be methods, in this process and in those that it starts.

    Raises:
        MethodError: when one is none, or its name is taken.
    """
    from offmarl.algorithms import PATHS, registry

    named = [*filter(None, os.environ.get(PATHS, "").split(os.pathsep)), *paths]
    os.environ[PATHS] = os.pathsep.join(dict.fromkeys(str(Path(path).resolve()) for path in named))
    registry.cache_clear()
    registry()


def _new(args: argparse.Namespace) -> int:
    from offmarl.algorithms import registry

    place = args.dir / f"{args.name}.py"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        raise UserError(f"new {args.name}: write a name of small letters, digits and underscores, as my_method")
    if args.name in registry():
        raise UserError(f"new {args.name}: there is a method of this name; choose another")
    if not args.dir.is_dir():
        raise UserError(f"--dir {args.dir}: there is no such directory")
    words = args.name.split("_")
    text = resources.files("offmarl.experiments.commands").joinpath("template.py").read_text()
    text = text.replace('"template"', f'"{args.name}"').replace("Template", "".join(map(str.capitalize, words)))
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(text.replace("TITLE", " ".join(map(str.capitalize, words))))
    except FileExistsError as error:
        raise UserError(f"new {args.name}: {place} is there already; it was left alone") from error
    print(f"written: {place}\nnext: offmarl validate {place}")
    return 0


def _validate(args: argparse.Namespace) -> int:
    from offmarl.algorithms import registry

    if args.name.endswith(".py"):
        before = set(registry())
        register_files([args.name])
        chosen = sorted(set(registry()) - before) or [Path(args.name).stem]
    else:
        chosen = [check_name("algorithm", args.name, registry())]
    if not TESTS.is_dir():
        raise UserError("validate: the contract tests are part of the repository; run it from a clone")
    if not all([_contract(name) for name in chosen]):  # noqa: C419 - all of them, though one fails
        return 1
    for name in chosen:
        _smoke(name, args.keep)
    return 0


def _contract(name: str) -> bool:
    """Run the tests on one method, print a line for each, and tell whether all passed."""
    with tempfile.TemporaryDirectory(prefix="offmarl-validate-") as scratch:
        report = Path(scratch) / "report.xml"
        files = [str(TESTS / file) for file in CONTRACT]
        words = [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        surroundings = {**os.environ, "OFFMARL_METHOD": name, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=TESTS.parents[1], env=surroundings, capture_output=True, text=True)
        if done.returncode not in (0, 1) or not report.exists():
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            reason = f"the contract tests did not run ({' '.join(last)}); `./run_all.sh validate` sets them up"
            raise UserError(f"validate {name}: {reason}")
        checks = _checks(report)
    for text, (count, faults) in checks.items():
        print(f"{'✗' if faults else '✓'} {text} ({count})" + "".join(f"\n    {fault}" for fault in faults[:3]))
    return not any(faults for _, faults in checks.values())


def _checks(report: Path) -> dict[str, tuple[int, list[str]]]:
    """Every test in words, to the number of its cases and the first line of each that failed."""
    found: dict[str, tuple[int, list[str]]] = defaultdict(lambda: (0, []))
    for case in ElementTree.parse(report).iter("testcase"):
        text = case.get("name", "").partition("[")[0].removeprefix("test_").replace("_", " ")
        if case.find("skipped") is not None:
            continue
        count, faults = found[text]
        for fault in [*case.findall("failure"), *case.findall("error")]:
            where = case.get("name", "").partition("[")[2].rstrip("]")
            faults.append(f"{where}: {(fault.get('message') or 'failed').splitlines()[0][:200]}")
        found[text] = count + 1, faults
    return found


def _smoke(name: str, keep: Path | None) -> None:
    """Train the method at smoke in every space that it plays in, and print its card."""
    from offmarl.algorithms import registry
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.launch.prepare_data import prepare
    from offmarl.experiments.launch.serial import launch
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.machine import Host

    with tempfile.TemporaryDirectory(prefix="offmarl-validate-") as scratch:
        results = keep.resolve() if keep else Path(scratch)
        places = [PLACES[space] for space in sorted(registry()[name].actions)]
        requests = [grid.Request(suite, "smoke", algorithms=[name], tasks=[data]) for suite, data in places]
        jobs = [job for request in requests for job in grid.jobs(request)]
        prepare([job.entry for job in jobs], "embedded", 1)
        for failure in launch(grid.pending(jobs, Store(results)), results, Host(), 1):
            raise UserError(f"validate {name}: the smoke run failed: {failure}")
        records = [Store(results).read(job.run_ids()[0]) for job in jobs]
    print("\n".join(_card(name, [record for record in records if record])))


def _card(name: str, records: list[dict[str, Any]]) -> Iterator[str]:
    """What there is to know of a method, from its runs."""
    facts = records[0]["algorithm"]
    yield f"\n{facts['title']} ({name})"
    for word in ("paper", "source_code", "execution"):
        yield f"  {word.replace('_', ' '):12} {facts[word]}"
    for record in records:
        cell, last, time = record["cell"], record["evaluations"][-1], record["time"]
        yield f"  {cell['task']}:{cell['quality']}"
        yield f"    parameters {record['algorithm']['parameters']:,}, network calls {record['algorithm']['nfe']}"
        update = 1e3 * time["update_s"] / record["protocol"]["steps"] / time["seeds_together"]
        yield f"    an update {update:.2f} ms a seed, a joint decision {record['latency']['joint_ms']:.2f} ms"
        data = record["dataset"]["return_mean"]
        yield f"    return at smoke {sum(last['returns']) / len(last['returns']):.1f}, the data's {data:.1f}"
