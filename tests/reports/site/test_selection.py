"""The page of the site on choosing a policy."""

import json
import re

from offmarl.reports.selection.board import EVERYONE
from offmarl.reports.site import charts, selection


def test_the_page_shows_every_family_in_the_order_of_no_episode_and_whom_to_trust(store, make, write_selection):
    write_selection(store)
    folder = make(store)
    text = (folder / "selection.html").read_text()
    assert "selection.html" in (folder / "index.html").read_text()
    assert re.findall(r'<h3 class="name">([\w ]+?) <', text) == ["all together", "smac", "smacv2"]
    smacv2 = text.split('<h3 class="name">smacv2')[1]
    names = re.findall(r'<th scope="row">.*?([\w -]+)</th>', smacv2)[:4]
    assert [name for name in names if name != EVERYONE] == ["MAC-Flow", "BC", "Flow BC"]
    assert "smac: fitted Q evaluation. Agreement is measured on episodes that were not trained on." in text
    assert "Missing from the pool: bc: 1 of 2 runs on 3m:good." in text
    assert text.count("<polyline") == 3 * 4 and "Mean score of the chosen policy" in text


def test_a_damaged_selection_is_left_out_and_named(store, write_selection):
    write_selection(store)
    (store / "measurements" / "select" / "old.json").write_text("{}")
    found, notes = selection.kept(store)
    assert len(found) == 1 and len(notes) == 1 and "old.json cannot be read" in notes[0]
    (store / "measurements" / "trust" / "old.json").write_text("{}")
    assert selection.kept(store)[0][0]["selectors"]


def test_trust_in_selectors_is_shown_only_of_the_same_runs(store, write_selection):
    write_selection(store)
    file = store / "measurements" / "trust" / "smac-embedded-quick-1.0.json"
    assert selection.kept(store)[0][0]["selectors"]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"runs": {"a run": "2026-01-03"}}))
    assert not selection.kept(store)[0][0]["selectors"]


def test_budgets_lie_at_even_distances():
    chart = charts.by_budget(["0", "1", "100"], [("BC", [0.0, 0.5, 1.0])])
    (x0, y0), (x1, y1), (x2, y2) = chart["lines"][0]["points"]
    assert x1 - x0 == x2 - x1 > 0 and y0 > y1 > y2
    assert [tick["text"] for tick in chart["x"].ticks()] == ["0", "1", "100"]
