"""The report of a suite: every table and figure, written from the store to <results>/reports/<suite>/.

Other sources than the embedded one have folders of their own: <suite>-<source>.
"""

import os
import uuid
from collections.abc import Callable, Collection
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from offmarl.reports.figures import aggregates as aggregate_figures
from offmarl.reports.figures import curves as figures
from offmarl.reports.figures import speed as speed_figures
from offmarl.reports.records.reader import evaluation_curves, load_runs
from offmarl.reports.tables import aggregates, speed, writers
from offmarl.reports.tables import table as tables

EMBEDDED = "embedded"  # the source whose reports bear the suite's name alone
NOTHING = {
    "curves": "no finished runs to show",
    "speed_return": "no finished runs to show",
    "aggregates": "no method has every dataset of a group",
}


def write(
    results: Path | str,
    name: str,
    suite: dict,
    profile: str,
    source: str,
    unavailable: dict[str, str],
    elsewhere: Collection[str] = (),
) -> dict[str, Any]:
    """Writes table.{md,csv,tex,html}, aggregates.{md,csv} and the figures curves, speed_return and aggregates.

    Figures are {png,pdf}; each file appears whole.

    What was measured of the suite's speed stands in inference.{md,csv}, training.{md,csv} and growth.{md,csv}, and in
    the figures inference_time, training_time and growth.

    `unavailable` and `elsewhere` are as in `tables.build`.

    Returns `paths` (of the files written), `text` (the table for the terminal) and `notes` (figures left out).
    A store without runs gives a table of pending cells. ValueError if there is no results directory.
    """
    results = Path(results)
    if not results.is_dir():
        raise ValueError(f"no results directory at {results}; `offmarl run` makes it")
    folder = results / "reports" / (name if source == EMBEDDED else f"{name}-{source}")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = (results, profile, source, suite.get("normalised", ()))
    table = tables.build(results, suite, name, profile, source, unavailable, elsewhere)
    runs = load_runs(*chosen)
    pooled = aggregates.build(runs, table, suite)
    texts = {
        "table.md": writers.markdown(table),
        "table.csv": table.to_csv(index=False),
        "table.tex": writers.latex(table),
        "table.html": writers.page(table),
        "aggregates.md": None if pooled.empty else aggregates.markdown(pooled),
        "aggregates.csv": None if pooled.empty else pooled.to_csv(index=False),
    }
    measured = {"inference": speed.inference(results, suite), "training": speed.training(results, suite)}
    measured["growth"] = speed.growth(results, suite)
    texts |= _speed_texts(measured, suite)
    colour = figures.colours(table)
    drawn = {
        "curves": figures.learning_curves(evaluation_curves(*chosen), table),
        "speed_return": figures.speed_return(runs, table, speed.latest(measured["inference"])),
        "aggregates": aggregate_figures.draw(pooled, colour),
    }
    speeds = {
        "inference_time": speed_figures.inference_time(measured["inference"], colour),
        "training_time": speed_figures.training_time(measured["training"], colour),
        "growth": speed_figures.growth(measured["growth"], colour),
    }
    paths = save(folder, texts, drawn | speeds)
    notes = [f"{stem}: not drawn, {NOTHING[stem]}" for stem, figure in drawn.items() if figure is None]
    return {"paths": paths, "text": writers.plain(table), "notes": notes}


def save(folder: Path, texts: dict[str, str | None], drawn: dict[str, Figure | None]) -> list[Path]:
    """Writes what there is, and removes of an earlier report what is no longer true; the paths written."""
    paths = []
    for file, text in texts.items():
        if text is None:
            (folder / file).unlink(missing_ok=True)
            continue
        whole(folder / file, lambda place, text=text: place.write_text(text, encoding="utf-8"))
        paths.append(folder / file)
    for (stem, figure), kind in product(drawn.items(), ("png", "pdf")):
        path = folder / f"{stem}.{kind}"
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        facts = {"CreationDate": None} if kind == "pdf" else {}  # the same store gives the same bytes
        whole(path, partial(figure.savefig, format=kind, dpi=160, metadata=facts))
        paths.append(path)
    return paths


def _speed_texts(measured: dict[str, list[speed.Row]], suite: dict) -> dict[str, str]:
    """The files of what was measured of speed."""
    texts = {}
    for name, rows in measured.items():
        if not rows:
            continue
        shown = [{key: value for key, value in row.items() if key not in speed.QUIET} for row in rows]
        shown = speed.exponents(rows, suite) if name == "growth" else shown
        texts[f"{name}.csv"] = pd.DataFrame(rows).to_csv(index=False)
        texts[f"{name}.md"] = speed.markdown(f"{suite['title']}: {speed.TITLES[name]}", shown, speed.NOTES[name])
    return texts


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path` and renames it."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
