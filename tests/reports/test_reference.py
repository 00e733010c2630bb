"""The results that ship with offmarl, and a person's own beside them."""

import csv
import json

import documents
import pytest

from offmarl.datasets.catalogue import EMBEDDED, catalogue
from offmarl.datasets.measures.measure import VERSION
from offmarl.experiments.cli import main
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.jobs import Request, jobs
from offmarl.experiments.grid.suite import REFERENCE
from offmarl.experiments.store import archive
from offmarl.reports.records import replay
from offmarl.reports.records.reader import Records


@pytest.fixture
def reference(tmp_path, monkeypatch, write_run):
    """Reference results of two methods on one dataset; returns a function that writes a run of the person's own."""
    for algorithm, final in (("bc", 10.0), ("mac_flow", 14.0)):
        for seed in range(3):
            write_run(tmp_path / "r", "smac/3m", "good", algorithm, seed, final + seed, profile="standard")
    archive.pack((tmp_path / "r" / "runs").iterdir(), tmp_path / "smac.tar.xz")
    monkeypatch.setattr(archive, "shipped", lambda: [tmp_path / "smac.tar.xz"])

    def own(algorithm, final, **over):
        return write_run(tmp_path / "own", "smac/3m", "good", algorithm, 0, final, **{"profile": "standard", **over})

    return own


def means(folder):
    """Mean by title of the methods that have one on 3m good."""
    with (folder / "reference" / "reports" / "smac" / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["task"], row["quality"]) == ("smac/3m", "good")]
    return {row["title"]: float(row["mean"]) for row in rows if row["mean"]}


def test_a_person_without_runs_sees_the_reference(tmp_path, reference, capsys):
    assert main(["report", "--suite", "smac", "--reference", "--results", str(tmp_path / "own")]) == 0
    assert means(tmp_path / "own") == {"BC": 11.0, "MAC-Flow": 15.0}
    assert "standard" in capsys.readouterr().out


def test_own_runs_stand_beside_it_as_rows_of_their_own(tmp_path, reference):
    reference("bc", 12.5)
    reference("flow_bc", 3.0, profile="quick")  # another measurement: no row beside the reference
    assert main(["report", "--suite", "smac", "--reference", "--results", str(tmp_path / "own")]) == 0
    assert means(tmp_path / "own") == {"BC": 11.0, "MAC-Flow": 15.0, "BC (yours)": 12.5}
    assert not (tmp_path / "own" / "reports").exists()  # a person's own report is another folder


def test_the_reference_merged_into_a_store_is_no_second_row(tmp_path, reference):
    assert main(["merge", str(tmp_path / "smac.tar.xz"), "--results", str(tmp_path / "own")]) == 0
    assert main(["report", "--suite", "smac", "--reference", "--results", str(tmp_path / "own")]) == 0
    assert means(tmp_path / "own") == {"BC": 11.0, "MAC-Flow": 15.0}


def test_the_site_shows_both(tmp_path, reference):
    reference("bc", 12.5)
    words = ["--site", str(tmp_path / "site"), "--results", str(tmp_path / "own")]
    assert main(["report", "--suite", "smac", "--reference", *words]) == 0
    page = (tmp_path / "site" / "index.html").read_text()
    assert "BC (yours)" in page and "MAC-Flow" in page


def test_the_site_shows_a_persons_own_replays_at_their_own_runs(tmp_path, reference, duel):
    run = reference("bc", 12.5)
    run_id = run.name
    replay.write(tmp_path / "own" / "runs" / run_id / "own-7.replay", duel(run=run_id, seed=0, play="own", episode=7))
    words = ["--site", str(tmp_path / "site"), "--results", str(tmp_path / "own")]
    assert main(["report", "--suite", "smac", "--reference", *words]) == 0
    shown = {page.name for page in (tmp_path / "site" / "cells").iterdir() if "replays" in page.read_text()}
    assert shown == {"smac.3m.good.bc-yours.smac.standard.embedded.html"}


def test_a_package_without_reference_results_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(archive, "SUFFIX", ".none")
    assert main(["report", "--suite", "smac", "--reference", "--results", str(tmp_path)]) == 2
    assert "leave out --reference" in capsys.readouterr().err


def test_documents_show_the_datasets_that_every_method_has_finished(tmp_path, write_run, suites):
    methods = suites["smac"]["algorithms"]
    for algorithm, quality in [*((a, "good") for a in methods), *((a, "poor") for a in list(methods)[1:])]:
        for seed in range(3):
            final = 10.0 + len(algorithm)
            write_run(tmp_path, "smac/3m", quality, algorithm, seed, final, profile="standard", reduced={})
    reference = documents.Reference(Records.read(tmp_path))
    text = "a\n<!-- reference: rows smac smac/3m:good -->\nold\n<!-- end -->\nb\n"
    head, rule, row, *rest = documents.generated(text, reference).splitlines()[2:]
    assert row.startswith("| 3m good | 12.5 | 12.0") and row.count("|") == 3 + len(methods)
    assert rest == ["<!-- end -->", "b"]
    assert "| 3m good |" in reference.block("table", "smac") and "poor" not in reference.block("table", "smac")
    count = reference.block("count", "smac")
    assert count.startswith("1 of 18 datasets; not run yet: smac/2c_vs_64zg:good, ") and "smac/3m:good" not in count
    with pytest.raises(ValueError, match="smac/3m:poor: is not complete"):
        reference.block("rows", "smac", "smac/3m:poor")


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_documents_show_what_the_shipped_results_say(name):
    text = (documents.ROOT / name).read_text()
    with archive.unpacked(*archive.shipped()) as folder:
        assert documents.generated(text, documents.Reference(Records.read(folder, why_stale))) == text


def test_what_ships_was_trained_with_the_settings_of_today_and_its_policies_are_of_these_runs():
    """Settings that change (suites, tuning) make other runs: they are run again, or taken out."""
    own = {path.name.removesuffix(archive.SUFFIX): path for path in archive.shipped()}
    suites_shipped = {name for name in own if not name.endswith("_policies")} - {archive.CARDS}
    for suite in suites_shipped:
        usual = {run_id for job in jobs(Request(suite, REFERENCE)) for run_id in job.run_ids()}
        records, policies = (_records(own[name]) if name in own else {} for name in (suite, f"{suite}_policies"))
        assert records.keys() <= usual and policies.items() <= records.items(), suite
        assert not [run_id for run_id, text in records.items() if why_stale(json.loads(text))]


def test_the_cards_that_ship_are_of_the_data_and_the_measures_of_today():
    """Data that are recorded otherwise, or a new version of the measures: `offmarl data card` writes them anew."""
    known = {f"{task}:{quality}": entry.key() for (task, quality), entry in catalogue(EMBEDDED).items()}
    with archive.unpacked(*archive.shipped()) as folder:
        cards = [json.loads(path.read_text()) for path in (folder / archive.CARDS).iterdir()]
        used = {json.loads(path.read_text())["dataset"]["sha256"] for path in folder.glob("runs/*/run.json")}
    assert not [card["dataset"] for card in cards if card["key"] != known[card["dataset"]]]
    assert not [card["dataset"] for card in cards if card["version"] != VERSION or card["source"] != EMBEDDED]
    assert used & {card["sha256"] for card in cards}


def _records(path):
    with archive.unpacked(path) as folder:
        return {record.parent.name: record.read_text() for record in folder.glob("runs/*/run.json")}
