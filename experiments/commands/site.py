"""The leaderboard site: gives the report what only the harness knows, reasons and the papers' settings."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from offmarl.datasets.catalogue import EMBEDDED, SOURCES
from offmarl.experiments.commands.report import suite_facts
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid import jobs as grid
from offmarl.reports.site import build as site
from offmarl.reports.site.boards import Suite


def write_site(results: Path, folder: Path, suites: Sequence[str], profile: str | None, source: str | None) -> int:
    """Write the site of some suites, say where it is, and return the exit code.

    Raises:
        UserError: where the folder cannot be written or holds something else.
    """
    known = {}
    for name in suites:
        suite, _, elsewhere = suite_facts(name, EMBEDDED)
        known[name] = Suite(suite, partial(_absent, name), elsewhere, paper_settings(name))
    try:
        out = site.write(results, folder, known, profile, source)
    except ValueError as error:
        raise UserError(f"--site {folder}: {error}") from error
    except OSError as error:
        raise UserError(f"--site {folder}: cannot be written ({error.strerror}); choose another folder") from error
    for note in out["notes"]:
        print(note)
    print(f"written: {out['pages']} pages; open {out['index']}")
    return 0


def paper_settings(suite: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Task and method to the settings and the protocol of the paper profile, as a run would store them."""
    jobs = grid.jobs(grid.Request(suite, profile="paper"))
    return {
        (job.task, job.algorithm): json.loads(json.dumps(dict(job.config) | dict(job.protocol), default=str))
        for job in jobs
    }


def _absent(name: str, source: str) -> dict[str, str]:
    """Why methods and datasets are not there; of a source that offmarl does not know, methods only."""
    return suite_facts(name, source)[1] if source in SOURCES else grid.unavailable(grid.load_suite(name))
