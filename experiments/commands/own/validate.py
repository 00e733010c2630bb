"""`offmarl validate`: hold a method or task of your own to its contract."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from offmarl.experiments.commands.options import examples, register_files
from offmarl.experiments.errors import UserError, check_name

if TYPE_CHECKING:
    from offmarl.benchmarks.tasks import Task

CONTRACT = ("test_settings.py", "test_training.py", "test_acting.py", "test_graphs.py")  # of offmarl.contract
STRANGE = 0.5  # of the features: so many do not leave the range of random play by chance
SMOKE_RUNS = {"continuous": ("continuous", "mpe/spread:medium"), "discrete": ("smac", "smac/3m:medium")}


def validate_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `offmarl validate`."""
    parser.epilog = examples(
        ("validate my_method.py", "a file"),
        ("validate mac_flow", "a method by name"),
        ("validate my_task.py", "a task, and its data"),
        ("validate rware/tiny-2ag", "a task that comes with offmarl as a file"),
    )
    parser.add_argument("name", help="a file or name of a method or of a task")
    parser.add_argument("--keep", type=Path, help="keep the smoke run in this results directory (default: delete it)")
    parser.set_defaults(command=_validate)


def _validate(args: argparse.Namespace) -> int:
    from offmarl import algorithms
    from offmarl.algorithms import registry
    from offmarl.benchmarks.own import house

    if args.name in house():
        return _validate_tasks([args.name])
    if args.name.endswith(".py") and "OwnTask" in _text_of(args.name):
        return _validate_tasks(_registered(args.name))
    if find_spec("pytest") is None:
        raise UserError("validate: pytest is missing; install it with: pip install 'offmarl[test]'")
    is_file, before = args.name.endswith(".py"), set(registry())
    register_files(algorithms, [args.name] if is_file else [])  # by absolute paths, which the tests' process needs
    if is_file:
        chosen = sorted(set(registry()) - before) or [Path(args.name).stem]
    else:
        chosen = [check_name("algorithm", args.name, registry())]
    passed = [_passes_contract(name) for name in chosen]
    if not all(passed):
        return 1
    for name in chosen:
        _smoke_run(name, args.keep)
    return 0


def _text_of(file: str) -> str:
    """What a file says; nothing where it cannot be read, which its registry tells."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _registered(file: str) -> list[str]:
    """The tasks of a file."""
    from offmarl.benchmarks import own

    register_files(own, [file])
    return [name for name, task in own.registry().items() if task.file == Path(file).resolve()]


def _validate_tasks(names: list[str]) -> int:
    """Examine tasks and their data, and print a line for each finding; 1 where one is not sound."""
    from offmarl.benchmarks.own import find
    from offmarl.benchmarks.tasks import tasks

    wrong = 0
    for name in names:
        print(f"{find(name).title} ({name})")
        for sound, text in _task_findings(tasks()[name]):
            print(f"{'✓' if sound else '✗'} {text}")
            wrong += not sound
    return 1 if wrong else 0


def _task_findings(task: "Task") -> Iterator[tuple[bool, str]]:
    """Findings on a task, and on its datasets that are here."""
    import numpy as np

    from offmarl.benchmarks.own.contract import examine
    from offmarl.datasets.own import SOURCE, catalogue, strange_features
    from offmarl.experiments.commands.data.cards import findings

    played = []
    for sound, text, episodes in examine(task):
        played += [episode.obs for episode in episodes]
        yield sound, text
    for (name, quality), entry in catalogue().items():
        if name != task.name or entry.data_missing():
            continue
        for sound, text in findings(entry, SOURCE):
            yield sound, f"{quality}: {text}"
        if played and entry.card():
            strange = strange_features(entry.load()[0], np.concatenate(played))
            text = f"{strange} of {task.obs} features are outside what the task shows"
            doubt = strange > STRANGE * task.obs
            yield not doubt, f"{quality}: {text}" + (": another version, order or scale?" if doubt else "")


def _passes_contract(name: str) -> bool:
    """Run the contract tests on a method without the user's pytest settings, print a line each; whether all passed."""
    with tempfile.TemporaryDirectory(prefix="offmarl-validate-") as scratch:
        report, settings = Path(scratch) / "report.xml", Path(scratch) / "pytest.ini"
        settings.write_text("[pytest]\naddopts = --import-mode=importlib\n")
        folder = str(resources.files("offmarl.contract"))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += [f"-c={settings}", f"--rootdir={scratch}", f"--confcutdir={folder}"]
        command += [os.path.join(folder, file) for file in CONTRACT]
        variables = {**os.environ, "OFFMARL_METHOD": name, "OMP_NUM_THREADS": "1"}
        variables |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
        done = subprocess.run(command, cwd=scratch, env=variables, capture_output=True, text=True)
        if done.returncode not in (0, 1) or not report.exists():
            last = " ".join((done.stdout + done.stderr).strip().splitlines()[-1:])
            raise UserError(f"validate {name}: the contract tests did not run ({last})")
        results = _read_report(report)
    for test, (count, failures) in results.items():
        print("\n    ".join([f"{'✗' if failures else '✓'} {test} ({count})", *failures[:3]]))
    return not any(failures for _, failures in results.values())


def _read_report(report: Path) -> dict[str, tuple[int, list[str]]]:
    """From a test's name in words to the number of its cases, and the first line of each failure."""
    results: dict[str, tuple[int, list[str]]] = defaultdict(lambda: (0, []))
    for case in ElementTree.parse(report).iter("testcase"):
        test, _, parameters = case.get("name", "").partition("[")
        if case.find("skipped") is not None:
            continue
        words = test.removeprefix("test_").replace("_", " ")
        count, failures = results[words]
        for failure in [*case.findall("failure"), *case.findall("error")]:
            reason = (failure.get("message") or "failed").splitlines()[0][:200]
            failures.append(f"{parameters.rstrip(']')}: {reason}")
        results[words] = count + 1, failures
    return results


def _smoke_run(name: str, keep: Path | None) -> None:
    """Train the method with the smoke profile on a task for each kind of its actions, and print its card."""
    from offmarl.algorithms import registry
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.launch.serial import train_pending
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.machine import Host

    with tempfile.TemporaryDirectory(prefix="offmarl-validate-") as scratch:
        results = keep.resolve() if keep else Path(scratch)
        runs = [SMOKE_RUNS[kind] for kind in sorted(registry()[name].actions)]
        requests = [grid.Request(suite, "smoke", algorithms=[name], tasks=[data]) for suite, data in runs]
        jobs = [job for request in requests for job in grid.jobs(request)]
        failures, _ = train_pending(jobs, "embedded", store := Store(results), Host(), 1, again=False)
        if failures:
            raise UserError(f"validate {name}: the smoke run failed: {failures[0]}")
        records = [store.read(job.run_ids()[0]) for job in jobs]
    print("\n".join(_card(name, [record for record in records if record])))


def _card(name: str, records: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a method's card: its facts, and what its smoke runs measured."""
    from offmarl.reports.records.schema import OWN, by_play
    from offmarl.reports.tables.table import decimals

    facts = records[0]["algorithm"]
    yield f"\n{facts['title']} ({name})"
    for fact in ("paper", "source_code", "execution"):
        yield f"  {fact.replace('_', ' '):12} {facts[fact]}"
    for record in records:
        cell, returns, time = record["cell"], by_play(record)[OWN][-1]["returns"], record["time"]
        update = 1e3 * time["update_s"] / record["protocol"]["steps"] / time["seeds_together"]
        yield f"  {cell['task']}:{cell['quality']}"
        yield f"    parameters {record['algorithm']['parameters']:,}, network calls {record['algorithm']['nfe']}"
        yield f"    update {update:.2f} ms per seed, joint decision {record['latency']['joint_ms']:.2f} ms"
        means = sum(returns) / len(returns), record["dataset"]["return_mean"]
        own, of_data = (f"{mean:.{decimals(means)}f}" for mean in means)
        yield f"    mean return {own}, of the data {of_data}"
