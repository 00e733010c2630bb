"""Writes what README.md and reports/RESULTS.md show of the reference results.

    .venv/bin/python tests/tools/documents.py           # after the archives in reports/reference/ have changed
    .venv/bin/python tests/tools/documents.py --check   # name the documents that say something else; exit code 1

A block stands between `<!-- reference: KIND SUITE DATASET… -->` and `<!-- end -->`. The kinds: `table`, all datasets of
a suite on which every method has all its seeds; `rows`, some of these datasets, without notes; `claims`, the paper's
claims judged; `count`, which datasets there are.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from offmarl.datasets.catalogue import EMBEDDED
from offmarl.experiments.commands.report import suite_facts
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.suite import REFERENCE, load_suite
from offmarl.experiments.store.archive import shipped, unpacked
from offmarl.reports.records.reader import Records
from offmarl.reports.tables import claims, writers
from offmarl.reports.tables.build import build
from offmarl.reports.tables.table import Table, by_dataset

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "reports/RESULTS.md")
BLOCK = re.compile(r"(<!-- reference: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


class Reference:
    """The reference results as blocks of Markdown."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.of = cache(self._of)

    def _of(self, suite: str) -> Table:
        """A suite's table, from the runs of the datasets on which no method lacks a seed."""
        datasets = {(row.task, row.quality) for row in _complete(self._table(suite, self.records)).rows}
        runs = {
            run_id: record
            for run_id, record in self.records.by_run.items()
            if record and (record["cell"]["task"], record["cell"]["quality"]) in datasets
        }
        return self._table(suite, replace(self.records, by_run=runs))

    def _table(self, suite: str, records: Records) -> Table:
        facts, unavailable, elsewhere = suite_facts(suite, EMBEDDED)
        return build(records, facts, suite, REFERENCE, EMBEDDED, unavailable, elsewhere)

    def block(self, kind: str, suite: str, *datasets: str) -> str:
        """The text of a block. Raises ValueError for a kind or a dataset that there is not."""
        table = self.of(suite)
        if kind == "claims":
            verdicts = claims.judge(table, suite_facts(suite, EMBEDDED)[0])
            return "\n\n".join(claims.markdown(table, verdicts).split("\n\n")[1:])
        complete = _complete(table)
        if kind == "count":
            return self._count(complete, suite)
        if kind == "table":
            return "\n\n".join(writers.markdown(complete).split("\n\n")[1:])
        if kind == "rows":
            return writers.markdown(_chosen(complete, datasets)).split("\n\n")[1] + "\n"
        raise ValueError(f"{kind}: write table, rows, claims or count")

    def _count(self, table: Table, suite: str) -> str:
        """How many datasets there are, and which are not."""
        wanted = {f"{task}:{q}" for task, qualities in load_suite(suite).qualities.items() for q in qualities}
        there = {f"{row.task}:{row.quality}" for row in table.rows if not row.is_average}
        missing = sorted(wanted - there)
        text = f"{len(there)} of {len(wanted)} datasets"
        return text + (f"; not run yet: {', '.join(missing)}." if missing else ".") + "\n"


def _complete(table: Table) -> Table:
    """Its datasets and averages on which every method has all its seeds."""
    kept = [rows for rows in by_dataset(table.rows) if all(row.counts and row.status == "done" for row in rows)]
    return replace(table, rows=[row for rows in kept for row in rows])


def _chosen(table: Table, datasets: Iterable[str]) -> Table:
    """Its rows of some datasets in the play that has the standing, without notes about columns."""
    rows = [row for row in table.rows if row.play == table.plays[0] and f"{row.task}:{row.quality}" in datasets]
    if lacking := sorted(set(datasets) - {f"{row.task}:{row.quality}" for row in rows}):
        raise ValueError(f"{lacking[0]}: is not complete in the reference results")
    return replace(table, rows=rows, column_notes=[])


def generated(text: str, reference: Reference) -> str:
    """A document with its blocks written anew."""
    return BLOCK.sub(lambda found: found[1] + reference.block(*found[2].split()) + found[4], text)


def main() -> int:
    """Write the documents, or compare them; returns the exit code."""
    different = []
    with unpacked(*shipped()) as folder:
        reference = Reference(Records.read(folder, why_stale))
        for path in (ROOT / name for name in DOCUMENTS):
            text = path.read_text(encoding="utf-8")
            if (new := generated(text, reference)) != text:
                different.append(path.name)
                if "--check" not in sys.argv[1:]:
                    path.write_text(new, encoding="utf-8")
    print(", ".join(different) or "nothing", "differs" if "--check" in sys.argv[1:] else "written")
    return int(bool(different) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
