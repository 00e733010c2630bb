"""Where there is no environment: how far policies agree with the actions of episodes that they were not trained on."""

import math

from offmarl.reports.tables import markdown as markdown_tables
from offmarl.reports.tables.table import Table, by_dataset

CAPTION = (
    "Trained without an environment, so nothing was played. Agreement with the data's actions in held-out episodes, "
    "mean over seeds: the share of equal actions, or where they are continuous the RMS distance. A policy that differs "
    "from the data may be the better one, so nothing is ranked."
)


def markdown(table: Table) -> str | None:
    """A row for every dataset, a column for every method; None where everything was played."""
    methods = {row.algorithm: row.title for row in table.rows if not math.isnan(row.agreement)}
    if not methods:
        return None
    rows = []
    for cells in by_dataset(row for row in table.rows if row.play == table.plays[0] and not row.is_average):
        found = {row.algorithm: row.agreement for row in cells if not math.isnan(row.agreement)}
        if found:
            numbers = [f"{found[method]:.3f}" if method in found else "–" for method in methods]
            rows.append([cells[0].label, *numbers])
    head = ["dataset", *map(markdown_tables.escape, methods.values())]
    return markdown_tables.table(head, rows, numbers=True) + f"\n\n{CAPTION}\n"
