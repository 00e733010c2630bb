"""Cards of datasets on the pages of the site: figures, measures, and what they predict."""

import json

import pytest
from dial import Dial

from offmarl.benchmarks.tasks import Task
from offmarl.datasets.measures.measure import measure
from offmarl.datasets.measures.pictures import pictures
from offmarl.experiments.cli import main
from offmarl.experiments.store import archive
from offmarl.reports.site.facts import listed

GAME = Task("games/dial", "games", 2, 9, 18, 8, 20, "game")


@pytest.fixture(scope="session")
def card():
    """A card as `offmarl data card` writes it, but for what names its dataset."""
    data = Dial(episodes=6, length=8).dataset()
    grid = [[0] * 24 for _ in range(24)]
    grid[3][20] = 7
    places = {"size": 32.0, "ours": {"start": grid, "death": grid}, "theirs": {"start": grid, "death": grid}}
    found = pictures(data, GAME) | {"places": places}
    found["lengths"] = {"lengths": [2.0, 9.0], "returns": [0.0, 8.0], "counts": [[0, 3], [2, 1]]}
    shared = {"medium": {"overlap": 0.25, "overlap_back": 0.5}}
    return {"dataset": "smac/3m:good", "source": "embedded", "measures": measure(data), "relations": shared} | {
        "pictures": found
    }


def put(results, card, sha256):
    (results / "cards").mkdir(exist_ok=True)
    (results / "cards" / f"{len(sha256)}.json").write_text(json.dumps(card | {"sha256": sha256}))


def test_the_page_of_a_dataset_shows_its_card(store, make, card):
    put(store, card, "smac/3mgood")
    folder = make(store)
    shown = (folder / "datasets/smac.3m.good.embedded.html").read_text()
    for words in ("Actions over time", "action 0", "Agent 1", "Where units start and die", "Our units: deaths, 7"):
        assert words in shown, words
    for words in ("joint coverage (SACo)", "pairs of good that medium has", "25.0%", "Episodes by return and length"):
        assert words in shown, words
    without = (folder / "datasets/smac.3m.medium.embedded.html").read_text()
    assert "Actions over time" not in without and "offmarl data card smac/3m:medium" in without


def test_scripted_behaviours_are_told_in_words():
    behaviours = [{"gain": 0.45, "share": "nearest"}, {"gain": 0.6, "noise": [0.1, 2]}]
    assert listed([behaviours, behaviours]) == "gain 0.45, share nearest; gain 0.6, noise [0.1, 2]"
    assert listed(["trained", {"medium": 0.5}]) == "trained; medium 0.5"


def test_what_few_results_predict_cannot_be_told(store, make, card):
    put(store, card, "smac/3mgood")
    folder = make(store)
    shown = (folder / "predictions.html").read_text()
    assert shown.count("cannot tell") == 3 and "holds</span>" not in shown
    assert "predictions.html" in (folder / "index.html").read_text()


def test_the_site_of_the_reference_shows_the_cards_that_ship_and_rather_ones_of_ones_own(
    tmp_path, write_run, card, monkeypatch
):
    reference, own, page = tmp_path / "r", tmp_path / "own", "datasets/smac.3m.good.embedded.html"
    write_run(reference, "smac/3m", "good", "bc", 0, 10.0, profile="standard")
    put(reference, card, "smac/3mgood")
    packed = [tmp_path / "smac.tar.xz", tmp_path / "cards.tar.xz"]
    archive.pack((reference / "runs").iterdir(), packed[0])
    archive.pack_cards(reference / "cards", packed[1])
    monkeypatch.setattr(archive, "shipped", lambda: packed)
    words = ["report", "--suite", "smac", "--reference", "--site", str(tmp_path / "site"), "--results", str(own)]
    assert main(words) == 0
    shown = (tmp_path / "site" / page).read_text()
    assert "Our units: deaths, 7" in shown and (tmp_path / "site" / "predictions.html").exists()
    put(own, card | {"measures": card["measures"] | {"settled": 0.987}}, "smac/3mgood")
    assert main(words) == 0
    assert "98.7%" in (tmp_path / "site" / page).read_text() and "98.7%" not in shown


def test_cards_of_other_data_are_not_shown_and_damaged_ones_are_told(store, make, card, tmp_path):
    from offmarl.reports.site.cards import kept

    put(store, card, "of other data")
    folder = make(store)
    assert "Actions over time" not in (folder / "datasets/smac.3m.good.embedded.html").read_text()
    assert not (folder / "predictions.html").exists()
    (store / "cards" / "torn.json").write_text(json.dumps(card)[:-40])
    (store / "cards" / "old.json").write_text('{"sha256": "x"}')
    found, notes = kept(store / "cards")
    assert list(found) == ["of other data"] and len(notes) == 2 and "old.json cannot be read" in notes[0]


@pytest.mark.parametrize(
    "top, text", [(0.25, "from 0.000 to 0.250"), (8.0, "from 0.00 to 8.00"), (80.0, "from 0.0 to 80.0")]
)
def test_small_returns_of_a_card_have_three_figures(store, make, card, top, text):
    returns = card["pictures"]["returns"] | {"ends": [0.0, top]}
    put(store, card | {"pictures": card["pictures"] | {"returns": returns}}, "smac/3mgood")
    (page,) = [path.read_text() for path in (make(store) / "datasets").glob("*3m.good*.html")]
    assert text in page
