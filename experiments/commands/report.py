"""What a report takes from the suites beside the store, and the report on the terminal."""

from pathlib import Path
from typing import Any

from offmarl.experiments.grid import jobs as grid
from offmarl.reports.report import write


def suite_facts(name: str, source: str) -> tuple[dict[str, Any], dict[str, str], set[str]]:
    """A suite, the reasons why methods or datasets of it are not available here, and the methods of all suites."""
    suite = grid.load_suite(name)
    elsewhere = {method for other in grid.suite_names() for method in grid.load_suite(other)["algorithms"]}
    return suite, grid.unavailable(suite) | grid.lacking(suite, source), elsewhere


def print_report(name: str, profile: str, source: str, results: Path) -> None:
    """Write a suite's report, and print its table."""
    suite, absent, elsewhere = suite_facts(name, source)
    out = write(results, name, suite, profile, source, absent, elsewhere)
    print(out["text"])
    for note in out["notes"]:
        print(note)
    print("\nwritten: " + ", ".join(str(path) for path in out["paths"]))
