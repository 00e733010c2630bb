"""The leaderboard site: links, numbers, and what its pages show."""

import csv
import json
import re
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from html_page import Page

from offmarl.experiments.cli import main
from offmarl.reports.figures import style
from offmarl.reports.records.reader import Records
from offmarl.reports.site import build as site
from offmarl.reports.site import pages as site_pages
from offmarl.reports.site.boards import Suite
from offmarl.reports.tables import aggregates
from offmarl.reports.tables import build as tables

MEGABYTE = 2**20


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory, whole_store, suites, tuned):
    folder = tmp_path_factory.mktemp("sites") / "site"
    elsewhere = {method: () for suite in suites.values() for method in suite["algorithms"]}
    known = {name: Suite(suite, elsewhere=elsewhere) for name, suite in suites.items()}
    site.write(Records.read(whole_store), folder, known, tuned=tuned)
    return folder


@pytest.fixture(scope="session")
def pages(whole_site):
    return {path: Page(path) for path in whole_site.rglob("*.html")}


def test_every_link_leads_to_a_file_and_a_place_in_it(pages, whole_site):
    ids = {path: page.every("id") for path, page in pages.items()}
    seen = set()
    for path, page in pages.items():
        assert page.open == [] and len(ids[path]) == len(set(ids[path])), path
        for address in [*page.every("href"), *page.every("src")]:
            parts = urlsplit(address)
            if parts.scheme in ("https", "http", "data"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file() and target.is_relative_to(whole_site), (path, address)
            assert not parts.fragment or parts.fragment in ids[target], (path, address)
            seen.add(target)
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(page.every(name)) <= set(ids[path]), path
    files = {path for path in whole_site.rglob("*") if path.is_file() and path.name != site.MARKER}
    assert files == seen  # nothing lies there that no page shows


def test_pages_have_no_inline_code_and_their_tables_say_what_is_what(pages):
    for path, page in pages.items():
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert [set(attrs) for attrs in scripts] == [{"src", "defer"}], path
        names = {name for _, attrs in page.tags for name in attrs}
        assert not [name for name in names if name.startswith("on") or name == "style"], path
        assert [tag for tag, _ in page.tags].count("caption") == len(page.tables) > 0, path
        assert {attrs.get("scope") for tag, attrs in page.tags if tag == "th"} <= {"row", "col"}, path
        assert [tag for tag, _ in page.tags].count("h1") == 1, path


def test_small_returns_have_three_figures_and_a_board_without_a_paper_no_published_column(tmp_path, write_run, suite):
    for method, mean in (("bc", 0.1234), ("mac_flow", 0.0151)):
        for seed in (0, 1):
            write_run(tmp_path / "results", "smac/3m", "good", method, seed, mean)
    for paper in ("", "macflow_table1"):
        folder = tmp_path / f"site{paper}"
        told = {"smac": Suite(suite | {"published": paper, "groups": {"SMACv1": {"smac/3m": ["good"]}}})}
        site.write(Records.read(tmp_path / "results"), folder, told)
        index, cells = (folder / "index.html").read_text(), list((folder / "cells").glob("*mac_flow*.html"))
        assert ">0.123<" in index and ">0.015<" in index and all("0.015" in cell.read_text() for cell in cells)
        assert (">published</th>" in index) == bool(paper) == ("below it published" in index)


def test_a_site_of_every_suite_is_small(whole_site, pages):
    assert len([path for path in pages if path.parent.name == "cells"]) > 330
    assert (whole_site / "index.html").stat().st_size < MEGABYTE
    assert sum(path.stat().st_size for path in whole_site.rglob("*") if path.is_file()) < 20 * MEGABYTE


def test_the_numbers_are_those_of_the_tables(pages, whole_site, whole_store, suites):
    index = pages[whole_site / "index.html"]
    matrices = [table for table in index.tables if table[0][1][0] == "data"]
    shown = [[cell[1].get("data-v") for cell in row[2:]] for table in matrices for row in table[1:]]
    expected = []
    for name, suite in suites.items():
        elsewhere = {method: () for other in suites.values() for method in other["algorithms"]}
        table = tables.build(Records.read(whole_store), suite, name, "quick", "embedded", {}, elsewhere).frame()
        own = table[table["play"] == "own"]  # nothing was played otherwise
        expected += [rows["mean"].tolist() for _, rows in own.groupby(["task", "quality"], sort=False)]
    assert [[float(value) for value in row] for row in shown] == expected


def test_a_board_ranks_by_the_average_and_sets_the_paper_beside_it(store, make):
    board = Page(make(store) / "index.html").tables[0]
    assert [cell[0] for cell in board[0]] == [
        "method",
        "ours",
        "95 % interval",
        "published",
        "difference",
        "decision, ms",
    ]
    rows = {row[0][0]: [cell[1].get("data-v") for cell in row[1:]] for row in board[1:]}
    assert list(rows) == ["MAC-Flow", "Flow BC", "BC"]
    mean, published = (18.5 + 12 + 3) / 3, (19.8 + 18.0 + 10.6) / 3
    numbers = [float(value) for value in rows["MAC-Flow"] if value is not None]
    assert numbers == pytest.approx([mean, published, mean - published, 0.25])


def test_two_seeds_have_no_interval_and_three_have_the_tables(store, make, write_run, build):
    assert 'class="ends"' not in (make(store) / "index.html").read_text()
    for task, quality, seed in [("smacv2/zerg_5_vs_5", "replay", seed) for seed in range(3)]:
        write_run(store, task, quality, "bc", seed, 7.0 + seed)
    page = (make(store) / "datasets" / "smacv2.zerg_5_vs_5.replay.embedded.html").read_text()
    table = build(store).frame()
    row = table[(table.task == "smacv2/zerg_5_vs_5") & (table.algorithm == "bc")].iloc[0]
    assert f"[{row.ci_low:.2f}, {row.ci_high:.2f}]" in page and page.count('class="ends"') == 1
    assert page.count('class="reach"') == 1


def test_aggregates_are_below_the_averages(store, make, build, suite):
    index = Page(make(store) / "index.html")
    pooled = aggregates.build(build(store), suite)
    _, head, body = aggregates.tabulated(pooled)["SMACv1"]
    assert [[cell[0] for cell in row] for row in index.tables[2]] == [head, *body]
    assert "Optimality gap: the mean shortfall" in (make(store) / "index.html").read_text()


def test_missing_cells_say_why(tmp_path, fill, write_run, make, suite):
    fill(tmp_path, [("smac/3m", "good", "bc"), ("smac/3m", "poor", "bc")])
    for seed in (0, 1):
        write_run(tmp_path, "smac/3m", "good", "bc", seed, None, reason="out of memory")
    suite = suite | {"algorithms": suite["algorithms"] | {"dof": "DoF"}}
    folder = make(tmp_path, suite=suite, unavailable=lambda source: {"dof": "no such method"})
    text = (folder / "index.html").read_text()
    assert '<a class="missing" href="cells/smac.3m.good.bc.smac.quick.embedded.html">failed</a>' in text
    assert re.search(r'<li id="board-1-why-1">out of memory</li>\s*<li id="board-1-why-2">no such method</li>', text)
    assert "not run" in text and "2 of 3 datasets" not in text and "1 of 3 datasets" in text
    cell = (folder / "cells" / "smac.3m.good.bc.smac.quick.embedded.html").read_text()
    assert cell.count("out of memory") == 3 and "<h2>Evaluations</h2>" not in cell  # the cell's, and each seed's


def test_the_index_counts_what_ran_and_folds_what_did_not(tmp_path, fill, make):
    fill(tmp_path, [("smac/3m", "good", method) for method in ("bc", "flow_bc", "mac_flow")])
    folder = make(tmp_path)
    text, found = (folder / "index.html").read_text(), Page(folder / "index.html").tables
    assert "18 finished runs of 3 methods on 3 datasets" in text
    assert "Not run yet: 1 of 3 datasets, and what the papers print" in text
    rows = [[row[0][0] for row in table[1:]] for table in found]
    assert ["3m good"] in rows


def test_a_datasets_page_has_the_widest_ranking_of_its_runs(store, suite, tmp_path):
    wider = suite | {"title": "Board", "algorithms": suite["algorithms"] | {"dof": "DoF"}}
    known = {name: Suite(facts, elsewhere={"dof": ()}) for name, facts in {"smac": suite, "board": wider}.items()}
    site.write(Records.read(store), tmp_path / "both", known)
    text = (tmp_path / "both" / "datasets" / "smac.3m.good.embedded.html").read_text()
    assert text.count('<h2 id="board-') == 1 and '<h2 id="board-1">Board' in text


def test_an_empty_store_gives_an_index(tmp_path, make):
    text = (make(tmp_path) / "index.html").read_text()
    assert "No finished run of these suites" in text and "Nothing run yet of: smac." in text


def test_profiles_and_sources_are_boards_of_their_own(store, make, write_run):
    write_run(store, "smac/3m", "good", "bc", 0, 5.0, profile="smoke")
    write_run(store, "smac/3m", "good", "bc", 0, 6.0, source="og_marl", engine={"engine": "SMAC"})
    page = Page(make(store) / "index.html")
    boards = [(a["data-profile"], a["data-source"]) for tag, a in page.tags if a.get("class") == "board"]
    assert boards == [("quick", "embedded"), ("quick", "og_marl"), ("smoke", "embedded")]


def test_what_the_labels_mean_is_read_from_the_runs(store, make, write_run):
    text = (make(store) / "index.html").read_text()
    assert "<dt>SMAX</dt>" in text and "<dt>MuJoCo</dt>" not in text
    write_run(store, "smac/3m", "good", "bc", 0, 5.0, engine={"engine": "Mine"})
    assert "<dt>Mine</dt>" in (make(store) / "index.html").read_text()


def test_every_episode_can_be_had_as_it_was_measured(store, make, write_run, suite):
    write_run(store, "smac/3m", "good", "bc", 0, 15, score=[0.0, 20.0])
    folder = make(store, suite=suite | {"normalised": ["smac/3m"]})
    with (folder / "cells" / "smac.3m.good.bc.smac.quick.embedded.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 4
    last = [float(row["return"]) for row in rows if row["seed"] == "0" and row["step"] == "3000"]
    assert last == [16, 16, 14, 14] and rows[0]["won"] == "True"
    page = (folder / "cells" / "smac.3m.good.bc.smac.quick.embedded.html").read_text()
    assert '<b class="big">75.0</b> mean normalised score' in page


def test_settings_that_differ_from_the_papers_are_marked(store, make, write_run):
    settings = {"hidden": [64, 64], "polyak": 0.005, "own": True}
    run = json.loads((write_run(store, "smac/3m", "good", "bc", 0, 15, config=settings) / "run.json").read_text())
    paper = {("smac/3m", "bc"): {"hidden": [512] * 4, "polyak": 0.005, "steps": 10**6}}
    rows = {row["name"]: row for row in site_pages.settings([run], paper)}
    assert (rows["hidden"]["ours"], rows["hidden"]["paper"]) == ("[64, 64]", "[512, 512, 512, 512]")
    assert [name for name, row in rows.items() if row["differs"]] == list(rows)[:2] == ["hidden", "steps"]
    text = (make(store, paper=paper) / "methods" / "bc.html").read_text()
    assert "Settings (2 of 7 differ from the paper’s)" in text


def test_the_command_writes_the_site_with_the_papers_settings(store, tmp_path, write_run, capsys):
    write_run(store, "smac/3m", "good", "bc", 0, 15, config={"hidden": [64, 64]})
    folder = tmp_path / "out" / "site"
    assert main(["report", "--suite", "all", "--results", str(store), "--site", str(folder)]) == 0
    assert f"open {folder / 'index.html'}" in capsys.readouterr().out
    text = (folder / "methods" / "bc.html").read_text()
    assert re.search(r"hidden</code></th><td class=\"text\"><code>\[64, 64\]</code> <span[^>]*>differs", text)
    missing = "Nothing run yet of: continuous, coordination, frontier_continuous, om2p."
    assert missing in (folder / "index.html").read_text()


def test_experiments_have_pages_and_damaged_ones_are_told(store, tmp_path, suite):
    rows = [
        {"arm": "A", "setting": 0.0, "step": s, "seed": k, "far": 1.0, "return": 1.0, "data": 1.0}
        for s in (0, 10)
        for k in (0, 1)
    ]
    facts = {"title": "Far & near", "claim": "Nearer <b>is</b> better.", "profile": "quick", "source": "embedded"}
    record = facts | {"picture": "learning", "rules": [["A.far", "<", 2]], "rows": rows, "quantities": ["return"]}
    place = store / "measurements" / "experiment"
    place.mkdir(parents=True)
    (place / "far.json").write_text(json.dumps(record | {"budget": {"seeds": [0, 1], "steps": 10}}))
    (place / "torn.json").write_text('{"title": ')
    (place / "hollow.json").write_text("[]")
    folder = tmp_path / "site"
    out = site.write(Records.read(store), folder, {"smac": Suite(suite)})
    assert [note.partition(" cannot be read ")[0] for note in out["notes"]] == [
        f"left out: {place / name}.json" for name in ("hollow", "torn")
    ]
    page = (folder / "experiments" / "far.html").read_text()
    assert '<span class="badge good">holds</span>' in page and "Nearer &lt;b&gt;is&lt;/b&gt; better." in page
    assert (folder / "experiments" / "far.png").stat().st_size > 5000
    assert 'href="experiments/far.html">Far &amp; near</a>' in (folder / "index.html").read_text()


def test_more_methods_than_colours_still_have_one_each():
    names = [*style.COLOURS, "mine", "yours"]
    assert list(style.paint(names)) == names and style.paint(names)["BC"] == style.COLOURS["BC"]


def test_speed_is_over_the_datasets_that_all_have(tmp_path, fill, make):
    text = (make(fill(tmp_path, [("smac/3m", "poor", "bc")])) / "index.html").read_text()
    assert "over the 2 datasets that all methods shown have" in text


def test_ties_notes_and_findings_about_published_columns_are_shown(tmp_path, write_run, make):
    for algorithm, final in [("bc", 3.0), ("flow_bc", 9.5), ("mac_flow", 10.0)]:
        for seed in range(3):
            write_run(tmp_path, "smac/3m", "good", algorithm, seed, final + 0.3 * seed)
    folder = make(tmp_path)
    tie = 'flow_bc.smac.quick.embedded.html">9.8</a><abbr title="its interval overlaps that of the best">†</abbr>'
    index, method = ((folder / name).read_text() for name in ("index.html", "methods/bc.html"))
    assert index.count("</abbr>") == 1 and tie in index
    assert "from real StarCraft II" in index and "it is not the same measurement" in index
    for page in (index, method):
        assert "copied from MADiff&#39;s README in 11 of 18 cells" in page and "11 of 18 cells" in page


def test_long_foundcan_be_had_as_csv(store, make, build):
    table = pd.read_csv(make(store) / "tables" / "smac.quick.embedded.csv")
    assert table["mean"].tolist() == pytest.approx([row.mean for row in build(store).rows])


def test_the_page_of_a_cell_sets_the_critics_value_beside_the_datas_return(store, make):
    for path in (store / "runs").glob("*mac_flow*/run.json"):
        record = json.loads(path.read_text())
        value = {"value": 4.25 + record["cell"]["seed"], "data_value": 11.5}
        path.write_text(json.dumps(record | {"value": value}))
    place = make(store) / "cells"
    table = next(
        t for t in Page(place / "smac.3m.good.mac_flow.smac.quick.embedded.html").tables if t[0][0][0] == "seed"
    )
    head = [cell[0] for cell in table[0]]
    shown = [[row[head.index(name)][0] for name in ("critic’s value", "data’s")] for row in table[1:]]
    assert shown[:2] == [["4.25", "11.50"], ["5.25", "11.50"]]
    assert "critic’s value" not in (place / "smac.3m.good.bc.smac.quick.embedded.html").read_text()
