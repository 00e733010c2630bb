"""The report of a suite: every table and figure, written from its records to <results>/reports/<suite>/.

Other sources than the embedded one have folders of their own: <suite>-<source>.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from offmarl.reports.figures import aggregates as aggregate_figures
from offmarl.reports.figures import curves as figures
from offmarl.reports.figures import speed as speed_figures
from offmarl.reports.records.files import replacing, write_text
from offmarl.reports.records.reader import Records
from offmarl.reports.tables import aggregates, claims, held_out, speed, writers
from offmarl.reports.tables.build import build

EMBEDDED = "embedded"  # the source whose folder is named after the suite alone
NOTHING = {
    "curves": "no finished runs to show",
    "speed_return": "no finished runs to show",
    "aggregates": "no method has every dataset of a group",
}


def write(
    records: Records,
    name: str,
    suite: dict,
    profile: str,
    source: str,
    unavailable: dict[str, str],
    elsewhere: Mapping[str, Collection[str]] = {},
) -> dict[str, Any]:
    """Writes the files that the README lists; `unavailable` and `elsewhere` are as in `build`.

    Returns `paths` (of the files written), `text` (the table for the terminal) and `notes` (figures not drawn, verdicts
    on the paper's claims).
    A store without runs gives a table of pending cells.
    """
    folder = records.root / "reports" / (name if source == EMBEDDED else f"{name}-{source}")
    folder.mkdir(parents=True, exist_ok=True)
    table = build(records, suite, name, profile, source, unavailable, elsewhere)
    pooled, verdicts = aggregates.build(table, suite), claims.judge(table, suite)
    agreement = held_out.markdown(table)
    texts = {
        "held_out.md": agreement,
        "table.md": writers.markdown(table),
        "table.csv": table.frame().to_csv(index=False),
        "table.tex": writers.latex(table),
        "table.html": None,  # earlier versions wrote it; the site has the table
        "claims.md": claims.markdown(table, verdicts) if verdicts else None,
        "claims.csv": pd.DataFrame(verdicts).to_csv(index=False) if verdicts else None,
        "aggregates.md": aggregates.markdown(pooled) if pooled.rows else None,
        "aggregates.csv": pooled.frame().to_csv(index=False) if pooled.rows else None,
    }
    inference, training = speed.inference(records.root, suite), speed.training(records.root, suite)
    growth = speed.growth(records.root, suite)
    stale = speed.stale(records.root, suite, records.why_stale)
    for kind, rows in {"inference": inference, "training": training, "growth": growth}.items():
        texts |= speed.texts(kind, rows, suite, stale.get(kind, ""))
    colour = figures.colours(table)
    measured = speed.latest(inference)
    drawn = {
        "curves": figures.learning_curves(table),
        "speed_return": figures.speed_return(table, measured),
        "aggregates": aggregate_figures.draw(pooled, colour),
    }
    speeds = {
        "speed_return_tasks": figures.speed_return(table, measured, by="task"),
        "inference_time": speed_figures.inference_time(inference, colour),
        "training_time": speed_figures.training_time(training, colour),
        "growth": speed_figures.growth(growth, colour),
    }
    paths = save(folder, texts, drawn | speeds)
    notes = [f"{stem}: not drawn, {NOTHING[stem]}" for stem, figure in drawn.items() if figure is None]
    notes += [f"{verdict.claim}: {verdict.outcome} (at {profile})" for verdict in verdicts]
    return {"paths": paths, "text": "\n".join(filter(None, [writers.plain(table), agreement])), "notes": notes}


def save(folder: Path, texts: dict[str, str | None], drawn: dict[str, Figure | None]) -> list[Path]:
    """Writes the files that have content, and removes the others of an earlier report; the paths written."""
    content: dict[str, str | Figure | None] = {**texts}
    content |= {f"{stem}.{kind}": figure for stem, figure in drawn.items() for kind in ("png", "pdf")}
    for name, found in content.items():
        if isinstance(found, str):
            write_text(folder / name, found)
        elif found is not None:
            facts = {"CreationDate": None} if name.endswith("pdf") else {}  # the same store gives the same bytes
            with replacing(folder / name) as draft:
                found.savefig(draft, dpi=160, metadata=facts)
        else:
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name, found in content.items() if found is not None]
