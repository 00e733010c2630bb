"""The rules find what is wrong with the published tables and nothing else; the committed findings are theirs."""

from pathlib import Path

import published_findings as rules
import pytest
import yaml

from offmarl.reports.published import numbers as published
from offmarl.reports.records.reader import Records
from offmarl.reports.tables import build as tables
from offmarl.reports.tables import writers

SUITES = {"smac": "macflow_table1", "continuous": "macflow_table2", "om2p": "om2p_table1"}
FOLDER = Path(__file__).parents[3] / "experiments" / "grid" / "suites"


@pytest.mark.parametrize("name", published.FACTS)
def test_the_committed_findings_are_what_the_rules_find(name):
    committed = published.rows_about(name, "findings")
    assert committed and committed == rules.rows(name)


def test_notes_name_the_columns_of_a_report_and_keep_their_order():
    notes = published.findings("macflow_table2", ["OMIGA", "OMAR", "ICQ"])
    assert [methods for methods, _ in notes] == [("OMIGA",), ("OMAR",), ("ICQ",), ("ICQ", "OMAR")]
    assert notes[2][1].startswith("Paper's ICQ: of unknown origin in 12 of 16 cells, copied from")
    assert published.findings("macflow_table2", ["ICQ", "BC"])[0][0] == ("ICQ",)  # the pair needs both columns
    with pytest.raises(ValueError, match="nonesuch"):
        rules.findings("nonesuch")


def texts(rule, name):
    return [f"{' and '.join(found.methods)}: {found.text}" for found in rule(name)]


@pytest.fixture
def replace(monkeypatch):
    """Put rows of one's own in place of a published file."""

    def replace(file, rows):
        read = published._read
        monkeypatch.setattr(published, "_read", lambda name: rows if name == file else read(name))

    return replace


def test_the_averages_that_their_cells_contradict():
    assert texts(rules.averages, "macflow_table1") == [
        "BC: SMACv1 average 12.2, but its 15 cells average 11.59",
        "MABCQ: SMACv1 average 5.5, but its 15 cells average 5.70",
        "Diffusion BC: SMACv1 average 13.0, but its 15 cells average 12.88",
        "MADiff: SMACv1 average 13.8, but its 15 cells average 14.03",
        "DoF: SMACv1 average 15.6, but its 15 cells average 15.49",
        "Flow BC: SMACv1 average 13.4, but its 15 cells average 13.22",
    ]
    assert texts(rules.averages, "macflow_table2") == []
    assert texts(rules.averages, "om2p_table1") == ["MA-FQL: World average 128.1, but its 4 cells average 125.80"]


@pytest.mark.parametrize(("key", "value", "count"), [("mean", "128.1", 1), ("mean", "125.9", 0), ("spread", "21.0", 1)])
def test_averages_allow_for_rounding_only_in_means_and_spreads(replace, key, value, count):
    rows = [dict(row) for row in published._read("om2p_table1") if row["method"] == "MA-FQL"]
    (world,) = [row for row in rows if row["scenario"] == "AVERAGE_World"]
    world |= {"mean": "125.8", key: value}
    replace("om2p_table1", rows)
    assert len(rules.averages("om2p_table1")) == count


def test_columns_exchanged_against_their_source():
    (found,) = rules.swapped("macflow_table2")
    assert found.methods == ("ICQ", "OMAR") and len(found.cells) == 8 and "exchanged on Spread" in found.text
    assert rules.swapped("macflow_table1") == rules.swapped("om2p_table1") == []


def test_a_pair_put_right_is_no_longer_found(replace):
    swapped = {"ICQ": "OMAR", "OMAR": "ICQ"}
    rows = [dict(row) for row in published._read("macflow_table2")]
    for row in rows:
        if row["scenario"] == "Spread":
            row["method"] = swapped.get(row["method"], row["method"])
    replace("macflow_table2", rows)
    assert rules.swapped("macflow_table2") == []


def test_returns_among_scores_are_found_and_no_scores():
    assert texts(rules.units, "coflow_mpe") == [
        "CoFlow-C: returns among scores, of which an expert's is 100: Spread expert 586.2, Spread medium-replay 329.8, "
        "Spread medium 373.5, Spread random 352.4, Tag expert 286.7, Tag medium 234.0",
        "CoFlow-D: returns among scores, of which an expert's is 100: Spread expert 554.6, Spread medium-replay 278.0, "
        "Spread medium 341.3, Spread random 211.1, Tag expert 260.4",
    ]
    assert [name for name in published.FACTS if rules.units(name)] == ["coflow_mpe"]


def test_spreads_that_no_returns_can_have():
    (found,) = rules.spreads("coflow_smac")
    assert found.cells == (("3m", "medium", "CoFlow-C"),) and "20.0 ± 2.6, at most 1.1" in found.text
    assert [name for name in published.FACTS if rules.spreads(name)] == ["coflow_smac"]


@pytest.mark.parametrize(("mean", "spread", "wrong"), [("10.0", "11.2", 0), ("10.0", "11.4", 1), ("0.0", "1.3", 1)])
def test_half_of_the_seeds_at_either_bound_have_the_largest_spread(replace, mean, spread, wrong):
    """Of five returns in [0, 20] with the mean 10 the deviation is at most 10 sqrt(5/4), about 11.2."""
    replace("coflow_smac", [dict(scenario="3m", dataset="Good", method="X", mean=mean, spread=spread)])
    assert len(rules.spreads("coflow_smac")) == wrong
    replace("coflow_smac", [dict(scenario="2s3z", dataset="Good", method="X", mean=mean, spread=spread)])
    assert rules.spreads("coflow_smac") == []  # enemies regain shields: no bound is known


def test_columns_that_are_the_same(replace):
    assert all(rules.duplicates(name) == [] for name in published.FACTS)
    rows = [dict(row) for row in published._read("macflow_table2")]
    mine = {row["dataset"]: row for row in rows if (row["scenario"], row["method"]) == ("Ant", "ICQ")}
    for row in rows:
        if (row["scenario"], row["method"]) == ("Ant", "OMIGA"):
            row |= {key: mine[row["dataset"]][key] for key in ("mean", "spread")}
    replace("macflow_table2", rows)
    (found,) = rules.duplicates("macflow_table2")
    assert (found.methods, found.text, len(found.cells)) == (("ICQ", "OMIGA"), "the same on Ant", 8)


def test_a_copied_cell_that_is_not_its_source_is_named():
    (found,) = rules.differing("macflow_table1")
    assert found.methods == ("BC",) and found.cells == (("5m_vs_6m", "good", "BC"),)
    assert "11 of 12 shared cells, not on 5m_vs_6m good 15.8 instead of 16.6" in found.text


def test_a_highlight_that_the_numbers_do_not_bear_out(replace):
    wrong = {cell for found in rules.highlights("macflow_table1") for cell in found.cells}
    assert ("8m", "medium", "DoF") in wrong and ("8m", "medium", "MAC-Flow") not in wrong
    rows = [dict(row) for row in published._read("marks")]
    rows = [row for row in rows if (row["scenario"], row["dataset"], row["method"]) != ("8m", "Medium", "MAC-Flow")]
    replace("marks", rows)
    again = {cell for found in rules.highlights("macflow_table1") for cell in found.cells}
    assert again - wrong == {("8m", "medium", "MAC-Flow")}
    assert rules.highlights("om2p_table1") == []  # its text has no marks to check


@pytest.mark.parametrize("suite", ["smac", "continuous"])
def test_our_table_of_the_papers_means_has_the_papers_highlights_except_what_the_rules_list(tmp_path, write_run, suite):
    name = SUITES[suite]
    suite = yaml.safe_load((FOLDER / f"{suite}.yaml").read_text(encoding="utf-8"))
    ours = {title: method for method, title in suite["algorithms"].items()}
    for (task, quality, title), (mean, *_) in published.cells(name).items():
        over = {"score": [0.0, 100.0]}
        write_run(tmp_path, task, quality, ours[title], 0, mean, **over)
    table = tables.build(Records.read(tmp_path), suite, "a suite", "quick", "embedded", {})
    scenarios = {task: scenario for scenario, task in published.FACTS[name]["scenarios"].items()}
    mine = {}
    for row in filter(lambda row: row.has_mean, table.rows):
        where = row.task.replace("AVERAGE ", "AVERAGE_")
        mine[scenarios.get(where, where), row.quality, row.title] = {"best": "bold", "second": "underlined"}.get(
            row.standing
        )
    marks = rules.marks(name)
    listed = {cell for found in rules.findings(name) for cell in found.cells}
    assert len(mine) == len(published.printed(name)) + len(published.printed_averages(name))
    assert {cell for cell, mark in mine.items() if mark != marks.get(cell)} <= listed
    kept = [cell for cell in marks if cell not in listed and mine[cell] == marks[cell]]
    assert len(kept) > 0.7 * len(marks)


def test_findings_stand_at_the_columns_they_concern(store, build):
    check(writers.markdown(build(store)), "<sup>{}</sup>")


def test_findings_stand_at_their_columns_in_latex_and_on_the_terminal(store, build):
    check(writers.latex(build(store)), r"\textsuperscript{{{}}}")
    check(writers.plain(build(store)), "[{}]")


def check(text, mark):
    told = " ".join(text.split())
    for letter, title in zip("abc", ["BC", "Flow BC", "MAC-Flow"]):
        assert title + mark.format(letter) in told and f"{mark.format(letter)} Paper's {title}: " in told
    assert "Paper's BC: copied from MADiff's README in 11 of 18 cells" in told
    assert "SMACv1 average 12.2, but its 15 cells average 11.59" in told and "Paper's DoF" not in told


def test_a_finding_about_two_columns_stands_at_both(tmp_path, build):
    suite = {"title": "t", "paper": "p", "published": "macflow_table2", "groups": {"MPE": {"mpe/spread": ["expert"]}}}
    suite |= {"algorithms": {"icq": "ICQ", "omar": "OMAR"}}
    lines = writers.markdown(tables.build(Records.read(tmp_path), suite, "x", "quick", "embedded", {})).splitlines()
    assert lines[2] == "| dataset | data mean | ICQ<sup>a,c</sup> | OMAR<sup>b,c</sup> |"
    assert any(line.startswith("<sup>c</sup> Paper's ICQ and OMAR: exchanged on Spread") for line in lines)
