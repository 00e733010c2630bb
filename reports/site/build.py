"""The leaderboard as a folder of static pages, made from the store alone.

It opens from disk and loads nothing from elsewhere. The templates, the style and the script are in templates/; Jinja
escapes whatever it puts into a page. An earlier site is replaced as a whole, by a folder written beside it.
"""

import csv
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from offmarl.reports import studies
from offmarl.reports.figures.style import paint
from offmarl.reports.records.files import read_each, replacing
from offmarl.reports.records.reader import Records
from offmarl.reports.replays import page as player
from offmarl.reports.selection.board import EVERYONE
from offmarl.reports.site import boards as site_boards
from offmarl.reports.site import cards as site_cards
from offmarl.reports.site import charts as site_charts
from offmarl.reports.site import pages as site_pages
from offmarl.reports.site import replays as site_replays
from offmarl.reports.site import selection as site_selection
from offmarl.reports.site.boards import Board, Suite

MARKER = "offmarl-site.json"
MADE = {"made by": "offmarl report --site", "layout": 1}
FOLDERS = ("methods", "datasets", "cells", "watch", "tables", "experiments")
TUNING, PREDICTIONS, SELECTION = "tuning.html", "predictions.html", "selection.html"
PLAYER = ("player.css", "player.js")
PAGES = ("index.html", TUNING, PREDICTIONS, SELECTION)
OURS = {MARKER, *PAGES, "site.css", "site.js", *PLAYER, *FOLDERS}  # what a new site replaces


def write(
    records: Records,
    folder: Path | str,
    suites: Mapping[str, Suite],
    profile: str | None = None,
    source: str | None = None,
    tuned: Sequence[Mapping[str, Any]] = (),
    cards: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write the site of some suites into a folder; None: every profile and source that the store has.
    `tuned` has what was chosen by tuning, as `tables.tuning` takes it; `cards` are folders of the datasets' cards, by
    default that in the store.

    Returns `index` (its path), `pages` (their number) and `notes` (what it could not read). Files in the folder that
    are no part of a site stay. Raises ValueError where the folder holds something other than an earlier site.
    """
    folder = Path(folder).expanduser().resolve()
    for old in folder.parent.glob(f".{folder.name}.????????.old"):  # of a process that was killed as it replaced a site
        _put_back(old, folder)
    check(folder)
    boards = site_boards.collect(records, suites, profile, source)
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    try:
        with replacing(folder) as draft:
            for name in FOLDERS:
                (draft / name).mkdir(parents=True)
            home = records.home or records.root
            experiments, notes = _experiments(home, draft)
            missing = sorted(suites.keys() - {board.name for board in boards})
            replays, unread = site_replays.kept(home, records.name_of)
            shown, left_out = site_cards.kept(*(cards or [home / "cards"]))
            selected, undrawn = site_selection.kept(home)
            pages = _fill(draft, boards, experiments, missing, tuned, replays, shown, selected)
            (draft / MARKER).write_text(json.dumps(MADE) + "\n", encoding="utf-8")
            if folder.exists():
                os.replace(folder, old)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise
    if old.exists():
        _put_back(old, folder)
    return {"index": folder / "index.html", "pages": pages, "notes": notes + unread + left_out + undrawn}


def check(folder: Path) -> None:
    """Raises a ValueError for a place that a site may not replace."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise ValueError(f"{folder} holds something other than an earlier site; name an empty or a new folder")


def _put_back(old: Path, folder: Path) -> None:
    """Keeps of an old site what no newer one replaces: all of it, or the files that are no part of a site."""
    if not folder.exists():
        os.replace(old, folder)
        return
    for entry in [entry for entry in old.iterdir() if entry.name not in OURS]:
        os.replace(entry, folder / entry.name)
    shutil.rmtree(old)


def _fill(
    draft: Path,
    boards: Sequence[Board],
    experiments: Sequence[dict],
    missing: Sequence[str],
    tuned: Sequence[Mapping],
    replays: site_replays.Replays,
    shown: Mapping[str, dict[str, Any]],
    selected: Sequence[dict[str, Any]],
) -> int:
    """Writes every page, styles and scripts; the number of pages. `missing` are the suites without runs.

    `shown` has the cards of data by SHA-256, `selected` what choosing policies brought.
    """
    chosen = [method for one in selected for group in one["groups"] for method, *_ in group["ranked"]]
    titles = [*(row.title for board in boards for row in board.rows), *chosen]
    colours = paint(title for title in titles if title != EVERYONE)
    classes = {title: f"c{number}" for number, title in enumerate(colours)}
    jinja = environment(classes)
    index = site_pages.index(boards)
    predicted = site_pages.predictions(boards, shown)
    links: dict[str, Any] = {"experiments": experiments, "missing": missing, "tuned": bool(tuned)}
    links |= {"predicted": bool(predicted), "selected": bool(selected)}
    pages: dict[str, tuple[str, dict[str, Any]]] = {"index.html": ("index.html", index | links)}
    if predicted:
        pages[PREDICTIONS] = PREDICTIONS, predicted
    if selected:
        pages[SELECTION] = SELECTION, site_selection.page(selected)
    if tuned:
        pages[TUNING] = TUNING, site_pages.tuning(tuned)
    for address in index["datasets"]:
        pages[address] = "dataset.html", (facts := site_pages.dataset(boards, address, replays, shown))
        pages |= {duel["page"]: ("watch.html", duel) for ranking in facts["rankings"] if (duel := ranking["duel"])}
    for algorithm in dict.fromkeys(row.algorithm for board in boards for row in board.rows):
        pages[site_boards.method_page(algorithm)] = "method.html", site_pages.method(boards, algorithm)
    for experiment in experiments:
        pages[experiment["page"]] = "experiment.html", experiment
    for board in boards:
        board.table.frame().to_csv(draft / "tables" / f"{board.key}.csv", index=False)
        for row in filter(lambda row: row.page, board.rows):
            pages[row.page] = "cell.html", site_pages.cell(board, row, replays)
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(site_pages.episodes(board, row))
            (draft / row.page).with_suffix(".csv").write_text(text.getvalue(), encoding="utf-8")
    for address, (template, facts) in pages.items():
        root = "../" * address.count("/")
        text = jinja.get_template(template).render(root=root, **facts)
        (draft / address).write_text(text, encoding="utf-8")
    templates = resources.files("offmarl.reports.site") / "templates"
    style = "".join(f".{name} {{ --c: {colours[title]} }}\n" for title, name in classes.items())
    for name, more in {"site.css": style, "site.js": ""}.items():
        (draft / name).write_text((templates / name).read_text(encoding="utf-8") + more, encoding="utf-8")
    for name, text in zip(PLAYER, player.files()) if replays else ():
        (draft / name).write_text(text, encoding="utf-8")
    return len(pages)


def environment(classes: Mapping[str, str]) -> Environment:
    """Jinja with everything escaped and what the templates use; `classes` name the colours of methods by title."""
    made = Environment(
        loader=PackageLoader("offmarl.reports.site", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "signed": signed, "figures": figures}
    made.tests["number_there"] = lambda value: bool(site_charts.finite([value]))
    made.tests["web"] = lambda text: bool(re.fullmatch(r"https?://[^\s\"'<>]+", text))
    made.globals |= {"bar": site_charts.bar, "bar_width": site_charts.BAR, "classes": classes}
    return made


def number(value: Any, places: int = 1) -> str:
    """With separators of thousands and a true minus; a dash for what is not a finite number."""
    if not site_charts.finite([value]):
        return "–"
    return f"{value:,.{places}f}".replace("-", "−")


def signed(value: Any, places: int = 1) -> str:
    """The same of a difference, with its sign."""
    sign = "+" if site_charts.finite([value]) and round(value, places) > 0 else ""
    return sign + number(value, places)


def figures(value: Any) -> str:
    """Three figures of a positive number."""
    if not site_charts.finite([value]):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _experiments(results: Path, draft: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The stored experiments, each with its picture copied or drawn, and a note for each that cannot be read."""

    def take(path: Path, record: Any) -> dict[str, Any]:
        facts = site_pages.experiment(record, path.stem)
        picture = results / "reports" / "experiments" / f"{path.stem}.png"
        if not picture.is_file() or picture.stat().st_mtime < path.stat().st_mtime:
            studies.write(results, path.stem)
        shutil.copyfile(picture, draft / facts["picture"])
        return facts

    return read_each(results / "measurements" / "experiment", take, "experiment")
