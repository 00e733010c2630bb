"""The site's files: nothing from the store becomes markup, and nothing else is replaced."""

import json
import re
from urllib.parse import urlsplit

import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st

from offmarl.experiments.cli import main
from offmarl.reports.records.reader import Records
from offmarl.reports.site import build as site
from offmarl.reports.site import pages as site_pages
from offmarl.reports.site.boards import Suite, slug

EVIL = '"><script>alert(1)</script><i onload=x>'


def test_nothing_from_the_store_becomes_markup_or_leaves_the_folder(tmp_path, fill, write_run, suite):
    results = fill(tmp_path / "deep" / "results")
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(results)}
    facts = {"name": EVIL, "title": EVIL, "paper": EVIL, "source_code": "javascript:alert(1)", "execution": EVIL}
    over = {"machine": {EVIL: EVIL, "device": EVIL}, "engine": {"engine": EVIL, "v": EVIL}}
    over |= {"config": {EVIL: EVIL}, "code": {"commit": EVIL}}
    over |= {"dataset": {"sha256": EVIL, "return_mean": 3.0, "note": EVIL}, "finished": EVIL}
    for algorithm in ("../../x", "bc"):
        place = write_run(results, "smac/3m", "good", "mine", 0, 5.0, **over, hash=f"evil{len(algorithm)}")
        record = json.loads((place / "run.json").read_text())
        record["cell"] |= {"algorithm": algorithm, "profile": EVIL, "source": "../../x"}
        (place / "run.json").write_text(json.dumps(record | {"run_id": EVIL, "algorithm": facts}))
    write_run(results, "smac/3m", "good", "bc", 1, None, reason=EVIL)
    folder = tmp_path / "deep" / "site"
    out = site.write(Records.read(results), folder, {"smac": Suite(suite)})
    assert out["pages"] == len(list(folder.rglob("*.html")))
    for path in folder.rglob("*.html"):
        page = Page(path)
        names = {name for _, attrs in page.tags for name in attrs}
        assert [tag for tag, _ in page.tags].count("script") == 1 and "onload" not in names, path
        assert not [address for address in page.every("href") if "script" in urlsplit(address).scheme], path
    assert "&lt;script&gt;alert(1)" in (folder / "index.html").read_text()
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(results)}
    assert all(path.is_relative_to(folder) for path in after - before)


def test_a_hostile_name_of_a_task_stays_inside(tmp_path, write_run, make, suite):
    suite = suite | {"groups": {EVIL: {"../../x": ["../y", "good"]}}}
    for quality in ("../y", "good"):
        place = write_run(tmp_path, "a/b", quality.strip("./"), "bc", 0, 5.0)
        record = json.loads((place / "run.json").read_text())
        record["cell"] |= {"task": "../../x", "quality": quality}
        (place / "run.json").write_text(json.dumps(record))
    folder = make(tmp_path, suite=suite)
    assert len(list((folder / "datasets").iterdir())) == 2
    assert not [path for path in tmp_path.rglob("*") if path.stem == "x" or path.stem == "y"]


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_files_have_safe_names_of_their_own(one, other):
    assert re.fullmatch(r"[a-z0-9_-][a-z0-9_.-]{0,119}", slug(*one))
    assert (slug(*one) == slug(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"), [(("a/b", "c"), ("a", "b/c")), (("a-b", "c"), ("a/b", "c")), (("A", "b"), ("a", "b"))]
)
def test_near_names_do_not_meet(one, other):
    assert slug(*one) != slug(*other)


def test_a_folder_of_something_else_is_refused_and_kept(store, tmp_path, capsys):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    for place in (other, other / "chapter.tex"):
        assert main(["report", "--suite", "smac", "--results", str(store), "--site", str(place)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"offmarl: --site {place}: ") and error.count("\n") == 1
    assert (other / "chapter.tex").read_text() == "years of work"


def test_a_new_site_replaces_the_old_and_nothing_else(store, make):
    folder = make(store)
    (folder / "CNAME").write_text("example.org")
    stale = folder / "cells" / "stale.html"
    stale.write_text("old")
    before = (folder / "index.html").read_bytes()
    assert make(store) == folder and not stale.exists()
    assert (folder / "CNAME").read_text() == "example.org" and (folder / "index.html").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_site_that_cannot_be_finished_leaves_the_old_one(store, make, monkeypatch):
    folder = make(store)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(site_pages, "cell", full)
    with pytest.raises(OSError, match="disk full"):
        make(store)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_an_experiments_page_escapes_what_comes_from_the_store(store, tmp_path, suite):
    rows = [{"arm": "A|<b>", "setting": "<u>", "step": 0, "seed": k, "return": 1.0, "data": 1.0} for k in (0, 1)]
    record = {"title": "<i>t", "claim": "c", "profile": "<s>", "source": "embedded", "picture": "learning"}
    record |= {"rules": [["A|<b>.return", "<", 2]], "rows": rows, "quantities": ["return"], "missing": ["<script>"]}
    place = store / "measurements" / "experiment" / "x.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(record | {"budget": {"seeds": [0, 1], "steps": 10}}))
    site.write(Records.read(store), tmp_path / "site", {"smac": Suite(suite)})
    page = (tmp_path / "site" / "experiments" / "x.html").read_text()
    assert (
        "A|&lt;b&gt;" in page and "Missing: &lt;script&gt;." in page and '<span class="badge open">cannot tell' in page
    )
    assert not {"<script>", "<b>", "<i>", "<u>", "<s>"} & set(re.findall("<[^>]*>", page))
