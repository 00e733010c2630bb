"""Tables of networks that were played in two ways."""

import csv
import json

import pandas as pd
import pytest

from offmarl.experiments.commands.verify import check_table
from offmarl.reports import report
from offmarl.reports.records.reader import Records
from offmarl.reports.site.boards import Suite, collect
from offmarl.reports.tables import aggregates, writers

ZERO_IS_BEST = {"bc": 1.0, "flow_bc": 2.0, "mac_flow": 3.0}  # what a mean gains without noise


@pytest.fixture
def two_plays(store, suite):
    """The store with every run played without noise as well, and the suite that asks for it."""
    for path in (store / "runs").glob("*/run.json"):
        record = json.loads(path.read_text())
        gain = ZERO_IS_BEST[record["cell"]["algorithm"]]
        rule = "act_by sample" if record["cell"]["algorithm"] == "bc" else "normal noise"
        zero = [one | {"play": "zero", "returns": [r + gain for r in one["returns"]]} for one in record["evaluations"]]
        record["evaluations"] = [one | {"play": "own"} for one in record["evaluations"]] + zero
        record["protocol"]["plays"] = ["own", "zero"]
        record["algorithm"]["acting_rule"] = rule
        path.write_text(json.dumps(record))
    return store, suite | {"protocol": {"plays": ["own", "zero"]}}


def row(table, play, method="bc", quality="good"):
    return next(r for r in table.rows if (r.play, r.algorithm, r.quality) == (play, method, quality))


def test_every_dataset_has_a_row_for_each_play_and_the_first_has_the_standing(two_plays, store, build):
    table = build(*two_plays)
    own, zero = row(table, "own"), row(table, "zero")
    assert (own.mean, zero.mean, own.n_seeds, zero.n_seeds) == (16.0, 17.0, 2, 2)
    assert (own.label, zero.label) == ("3m good", "3m good (zero noise)")
    assert (own.acting, zero.acting) == ("act_by sample", "no noise")
    assert own.published_mean > 0 and pd.isna(zero.published_mean) and pd.isna(zero.published_printed)
    standings = {play: {r.standing for r in table.rows if r.play == play} for play in ("own", "zero")}
    assert standings == {"own": {"best", "second", ""}, "zero": {""}}
    averages = {r.play: r.mean for r in table.rows if r.is_average and r.group == "SMACv1" and r.algorithm == "bc"}
    assert averages["zero"] == pytest.approx(averages["own"] + 1.0)


def test_text_formats_show_the_plays_and_what_they_draw(two_plays, build):
    table = build(*two_plays)
    for text in (writers.markdown(table), writers.plain(table), writers.latex(table)):
        assert text.count("(zero noise)") == 6  # four datasets and two averages
    assert "Play mode: own (BC: act_by sample; Flow BC, MAC-Flow: normal noise)." in table.notes[0]
    assert "also played in mode zero (no noise for any method), which is not ranked." in table.notes[0]


def test_aggregates_keep_the_plays_apart(two_plays, build):
    store, suite = two_plays
    pooled = aggregates.build(build(store, suite), suite)
    means = pooled.frame().set_index(["group", "play", "algorithm"])["mean"]
    assert (means["SMACv1", "zero"] > means["SMACv1", "own"]).all()
    assert set(pooled.profiles) == {
        f"{group}{play}" for group in ("SMACv1", "SMACv2") for play in ("", " (zero noise)")
    }
    assert "SMACv1 (zero noise)" in aggregates.markdown(pooled)


def test_an_older_store_without_the_methods_own_play_has_no_standing(store, suite, build):
    for path in (store / "runs").glob("*/run.json"):
        record = json.loads(path.read_text())
        record["protocol"] = {"steps": 3000, "eval_episodes": 4, "eval_noise": "zero"}
        path.write_text(json.dumps(record))
    table = build(store)
    assert table.plays == ["own", "zero"]
    assert row(table, "zero").mean == 16.0 and row(table, "own").status == "pending"
    assert {r.standing for r in table.rows} == {""} and writers.markdown(table)


def test_verify_compares_the_numbers_of_every_play(store, write_run, suites):
    looks = [{"step": 3000, "play": play, "returns": [mean]} for play, mean in (("own", 9.0), ("zero", 10.0))]
    write_run(store, "smac/3m", "good", "bc", 0, 9.0, evaluations=looks)
    write_run(store, "smac/3m", "good", "bc", 1, 9.0, evaluations=looks)
    records = Records.read(store)
    report.write(records, "smac", suites["smac"], "quick", "embedded", {})
    path = store / "reports" / "smac" / "table.csv"
    written = list(csv.DictReader(path.open()))
    assert not [found for found in check_table(records, path) if "mean" in found.key]
    for line in written:
        if (line["task"], line["quality"], line["play"], line["algorithm"]) == ("smac/3m", "good", "zero", "bc"):
            line["mean"] = "11.0"
    with path.open("w") as file:
        writer = csv.DictWriter(file, written[0].keys())
        writer.writeheader()
        writer.writerows(written)
    wrong = [found for found in check_table(records, path) if found.key.endswith(" mean")]
    assert [found.reason for found in wrong] == ["is '11.0', the store gives '10.0'"]


def test_the_site_has_a_page_for_a_cell_in_each_play(two_plays, tmp_path):
    from offmarl.reports.site import build as site

    store, suite = two_plays
    (board,) = collect(Records.read(store), {"smac": Suite(suite)})
    pages = {r.play: r.page for r in board.rows if (r.algorithm, r.quality) == ("bc", "good")}
    assert pages["own"] != pages["zero"]
    site.write(Records.read(store), tmp_path / "site", {"smac": Suite(suite)})
    for play, mean in (("own", "16.0"), ("zero", "17.0")):
        text = (tmp_path / "site" / pages[play]).read_text()
        assert f'<b class="big">{mean}</b>' in text
        lines = (tmp_path / "site" / pages[play]).with_suffix(".csv").read_text().splitlines()
        assert {line.split(",")[2] for line in lines[1:]} == {play}
    index = (tmp_path / "site" / "index.html").read_text()
    assert "SMACv1 (zero noise): aggregates" in index and "3m good (zero noise)" in index


def test_a_line_of_a_further_play_waits_for_its_first_number(two_plays, build):
    store, suite = two_plays
    for path in (store / "runs").glob("*/run.json"):
        record = json.loads(path.read_text())
        if record["cell"]["quality"] == "good":
            record["evaluations"] = [one for one in record["evaluations"] if one["play"] == "own"]
            path.write_text(json.dumps(record))
    for write in (writers.markdown, writers.plain, writers.latex):
        text = write(build(store, suite))
        assert "3m good" in text and "3m good (zero noise)" not in text and "3m poor (zero noise)" in text


def test_values_far_from_the_datas_are_told_in_a_line(store, suite, build):
    for path in (store / "runs").glob("*/run.json"):
        record = json.loads(path.read_text())
        if record["cell"]["algorithm"] == "mac_flow":
            share = {"good": 1.0, "poor": 0.25 + record["cell"]["seed"]}.get(record["cell"]["quality"], -3.0)
            path.write_text(json.dumps(record | {"value": {"value": 8.0 * share, "data_value": 8.0}}))
    (note,) = [note for note in build(store, suite).notes if note.startswith("Critics")]
    assert "MAC-Flow on " in note and "(-3 to 0.25)" in note and "good" not in note and "BC" not in note
