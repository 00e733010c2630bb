"""The site's files: nothing from the store becomes markup, and nothing else is replaced."""

import json
import os
import re
from urllib.parse import urlsplit

import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st

from offmarl.experiments.cli import main
from offmarl.experiments.grid.suite import profiles
from offmarl.reports.records import replay
from offmarl.reports.records.reader import Records
from offmarl.reports.site import build as site
from offmarl.reports.site import pages as site_pages
from offmarl.reports.site.boards import Suite, slug

EVIL = '"><script>alert(1)</script><i onload=x>'


def test_nothing_from_the_store_becomes_markup_or_leaves_the_folder(tmp_path, fill, write_run, suite, duel):
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
    run = write_run(results, "smac/3m", "good", "bc", 2, 5.0).name
    for episode, place in enumerate((results / "runs" / run, results / "replays" / EVIL.replace("/", "-"))):
        place.mkdir(exist_ok=True, parents=True)
        words = {"title": EVIL, "end": EVIL, "moves": [EVIL]} | ({"run": run} if not episode else {"quality": "good"})
        replay.write(place / f"own-{episode}.replay", duel(episode=episode, play="own", **words))
    folder = tmp_path / "deep" / "site"
    out = site.write(Records.read(results), folder, {"smac": Suite(suite)})
    assert out["pages"] == len(list(folder.rglob("*.html")))
    for path in folder.rglob("*.html"):
        page = Page(path)
        names = {name for _, attrs in page.tags for name in attrs}
        code = [
            attrs for tag, attrs in page.tags if tag == "script" and attrs.get("type") != "application/octet-stream"
        ]
        assert {attrs["src"].split("/")[-1] for attrs in code} <= {"site.js", "player.js"}, path
        assert "onload" not in names, path
        assert not [address for address in page.every("href") if "script" in urlsplit(address).scheme], path
    assert "&lt;script&gt;alert(1)" in (folder / "index.html").read_text()
    for shows in ("cells/smac.3m.good.bc.smac.quick.embedded.html", "datasets/smac.3m.good.embedded.html"):
        assert 'class="replays"' in (folder / shows).read_text()
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


def test_a_replay_that_is_none_or_of_another_run_is_left_out_and_named(tmp_path, write_run, suite, duel):
    run = write_run(tmp_path, "smac/3m", "good", "bc", 0, 5.0)
    other = write_run(tmp_path, "smac/3m", "good", "bc", 1, 5.0)
    facts = {"run": run.name, "play": "own"}
    replay.write(run / "own-7.replay", duel(**facts))
    whole = (run / "own-7.replay").read_bytes()
    for place in (run / "own-8.replay", other / "own-7.replay"):  # renamed, and of the other seed
        place.write_bytes(whole)
    (run / "own-9.replay").write_bytes(whole[:-1])
    os.mkfifo(run / "own-10.replay")  # who opens it waits for ever
    (run / "own-11.replay").symlink_to("/dev/zero")
    out = site.write(Records.read(tmp_path), tmp_path / "site", {"smac": Suite(suite)})
    told = sorted(note.removeprefix("left out: ").partition(": ")[::2] for note in out["notes"])
    other_one, not_whole = "is a replay of another run or episode", "is not a whole replay"
    files = {str(path): what for path, what in told}
    assert {path for path, what in told if what == other_one} == {
        str(run / "own-8.replay"),
        str(other / "own-7.replay"),
    }
    assert files[str(run / "own-9.replay")].startswith(not_whole) and len(told) == 3
    page = (tmp_path / "site" / "cells" / "smac.3m.good.bc.smac.quick.embedded.html").read_text()
    assert page.count('class="replays"') == 1


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


def test_the_site_says_what_every_profile_is():
    assert set(site_pages.PROFILES) == set(profiles())
