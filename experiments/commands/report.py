"""The command `offmarl report`: a suite's tables and figures, or the leaderboard site, from the store."""

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import (
    METHOD_FILE,
    SOURCES,
    declare,
    examples,
    existing,
    source_of,
    strangers,
    writable,
)
from offmarl.experiments.errors import UserError, check_name

if TYPE_CHECKING:
    from offmarl.reports.records.reader import Records


def report_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(
        ("report --suite smac", "Table 1 again"),
        ("report --suite continuous --profile paper", "of another profile"),
        ("report --suite all --site site", "the leaderboard, a folder of pages"),
        ("report --suite smac --reference", "the results that ship with offmarl, and yours beside them"),
    )
    declare(parser, "--suite", *METHOD_FILE, "--task")
    parser.add_argument("--profile", help="smoke, quick (default; for a site: all that ran), standard or paper")
    parser.add_argument("--source", help=f"{SOURCES} (for a site: all that ran)")
    declare(parser, "--results")
    parser.add_argument("--site", type=Path, metavar="DIR", help="write the leaderboard, a folder of pages, instead")
    text = "show the results that ship with offmarl, and yours of the same profile beside them"
    parser.add_argument("--reference", action="store_true", help=text)
    parser.set_defaults(command=_report)


def _report(args: argparse.Namespace) -> int:
    from offmarl.datasets import catalogue
    from offmarl.experiments.grid.suite import REFERENCE, expand, profiles
    from offmarl.experiments.store.archive import CARDS, shipped, unpacked

    suites = expand(args.suite)
    if args.profile is not None:
        check_name("profile", args.profile, profiles())
    if args.source is not None:
        check_name("source", args.source, catalogue.SOURCES)
    profile = args.profile or (REFERENCE if args.reference else None)
    with unpacked(*shipped()) if args.reference else nullcontext() as reference:
        records = _with_reference(args.results, reference) if reference else _read(existing(args.results))
        if args.site:
            cards = [root / CARDS for root in (reference, args.results) if root]
            return write_site(records, args.site, suites, profile, args.source, cards)
        for suite in suites:
            print_report(records, suite, profile or "quick", source_of(suite, args.source))
    return 0


def _read(results: Path) -> "Records":
    from offmarl.experiments.grid.code import why_stale
    from offmarl.reports.records.reader import Records

    return Records.read(results, why_stale)


def _with_reference(results: Path, reference: Path) -> "Records":
    """The runs of the reference and those of a results directory; their reports go to <results>/reference/."""
    results = writable(results)
    return _read(results).beside(_read(reference), root=results / "reference")


def suite_facts(name: str, source: str) -> tuple[dict[str, Any], dict[str, str], dict[str, set[str]]]:
    """A suite, the reasons why methods or datasets of it are not available here, and `elsewhere` as in `build`."""
    from offmarl.experiments.grid import jobs as grid
    from offmarl.experiments.grid import tuned
    from offmarl.experiments.grid.suite import FILES, load_suite, profiles, suite_names

    suite, elsewhere, on_boards = load_suite(name), {}, {}
    asked = {profile.variant for profile in profiles().values()}
    for title, other in ((title, load_suite(title)) for title in suite_names()):
        if other.base == name:
            on_boards |= {method: title for method in other.algorithms if method not in suite.algorithms}
            continue
        shared = other.qualities.keys() & suite.qualities.keys()
        for method in other.algorithms:
            trained, own = ({each.variant(method, variant) for variant in asked} for each in (other, suite))
            elsewhere.setdefault(method, set()).update(trained - own if shared else ())
    reasons = grid.unavailable_methods(suite) | grid.unavailable_datasets(suite, source)
    facts = suite.model_dump(exclude_unset=True) | {"profile_notes": {n: p.note for n, p in profiles().items()}}
    facts |= {"untuned": tuned.untuned(name, suite), "on_boards": on_boards, "called": str(FILES.get(name, name))}
    return facts, reasons, elsewhere


def print_report(records: "Records", name: str, profile: str, source: str) -> None:
    """Write a suite's report, and print its table."""
    from offmarl.reports.report import write

    suite, unavailable, elsewhere = suite_facts(name, source)
    out = write(records, name, suite, profile, source, unavailable, elsewhere)
    print(out["text"])
    for note in out["notes"]:
        print(note)
    print("\nwritten: " + ", ".join(str(path) for path in out["paths"]))


def write_site(
    records: "Records",
    folder: Path,
    suites: Sequence[str],
    profile: str | None,
    source: str | None,
    cards: Sequence[Path],
) -> int:
    """Write the site, with the datasets' cards in some folders, the last one's first; return the exit code.

    Raises UserError for a folder of other things, or one not writable.
    """
    from offmarl.datasets.catalogue import EMBEDDED
    from offmarl.experiments.grid import tuned
    from offmarl.experiments.studies import tuning
    from offmarl.reports.site import build as site
    from offmarl.reports.site.boards import Suite

    known = {}
    for name in suites:
        suite, _, elsewhere = suite_facts(name, EMBEDDED)
        known[name] = Suite(
            suite, lambda source, name=name: suite_facts(name, source)[1], elsewhere, paper_settings(name)
        )
    try:
        out = site.write(records, folder, known, profile, source, tuning.listing(tuned.choices()), cards)
    except ValueError as error:
        raise UserError(f"--site {folder}: {error}") from error
    except OSError as error:
        raise UserError(f"--site {folder}: cannot be written ({error.strerror}); choose another folder") from error
    for note in [*out["notes"], *(f"left out: {line}" for line in strangers(records.by_run.values()))]:
        print(note)
    print(f"written: {out['pages']} pages; open {out['index']}")
    return 0


def paper_settings(suite: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Task and method to the settings and the protocol of the paper profile, as a run would store them."""
    from offmarl.experiments.grid.jobs import Request, jobs

    found = {}
    for job in jobs(Request(suite, profile="paper")):
        settings = job.settings["config"] | job.settings["protocol"]
        found[job.task, job.algorithm] = json.loads(json.dumps(settings, default=str))
    return found
