"""Numbers from networks smaller than the paper's are marked wherever they are shown."""

import re

import pandas as pd
import pytest

from offmarl.reports import report
from offmarl.reports.figures import curves as figures
from offmarl.reports.records.reader import Records, flat
from offmarl.reports.tables import build as tables
from offmarl.reports.tables import writers

SUITE = {
    "title": "Table 1",
    "paper": "MAC-Flow (ICLR 2026), Table 1",
    "published": "macflow_table1",
    "algorithms": {"bc": "BC", "flow_bc": "Flow BC", "mac_flow": "MAC-Flow"},
    "groups": {"SMACv1": {"smac/3m": ["good", "poor"]}, "SMACv2": {"smacv2/zerg_5_vs_5": ["replay"]}},
}
DATASETS = [("smac/3m", "good"), ("smac/3m", "poor"), ("smacv2/zerg_5_vs_5", "replay")]
SMALL, FLOW = {"hidden": [128, 128]}, {"hidden": [128, 128], "flow_steps": 5}
WRITERS = {"md": writers.markdown, "tex": writers.latex, "txt": writers.plain}
MARKS = {
    "md": "<br><sub>reduced</sub>",
    "tex": r" \textcolor{gray}{\scriptsize reduced}",
    "txt": "°",
}


@pytest.fixture
def fill(tmp_path, write_run):
    """A store of one run of every method on every dataset, of these sizes: {method: sizes, or a list by dataset}."""

    def fill(**sizes):
        for place, algorithm in enumerate(SUITE["algorithms"]):
            own = sizes.get(algorithm)
            for dataset, reduced in zip(DATASETS, own if isinstance(own, list) else [own] * len(DATASETS)):
                write_run(tmp_path, *dataset, algorithm, 0, 10.0 * (1 + place), reduced=reduced)
        return tmp_path

    return fill


def build(results):
    return tables.build(Records.read(results), SUITE, "smac", "quick", "embedded", {})


def cell(table, task, quality, algorithm):
    table = table.frame()
    found = table[(table.task == task) & (table.quality == quality) & (table.algorithm == algorithm)]
    assert len(found) == 1
    return found.iloc[0]


def sizes(table):
    """What the paragraph of sizes says."""
    start = "Reduced networks and settings (smaller than the paper's): "
    (found,) = [text for text in table.notes if text.startswith(start)]
    return found.removeprefix(start)


def lines(text):
    """The lines of the table proper, by what they begin with."""
    found = [re.sub(r"^\| ", "", line) for line in text.splitlines()]
    starts = "dataset", "3m good", "3m poor", "AVERAGE SMACv1", "zerg", "AVERAGE SMACv2"
    return {start: next(line for line in found if line.startswith(start)) for start in starts}


def captions(results):
    table = build(results)
    return [draw(table).get_supxlabel() for draw in (figures.learning_curves, figures.speed_return)]


@pytest.mark.parametrize("form", WRITERS)
def test_a_method_of_reduced_networks_carries_the_mark_in_its_title(fill, form):
    text = WRITERS[form](build(fill(bc=SMALL, flow_bc={}, mac_flow=FLOW)))
    found = lines(text)
    head = re.sub(r"<sup>\w+</sup>|\\textsuperscript\{\w+\}|\[\w+\]", "", found.pop("dataset"))  # notes about the paper
    assert "BC" + MARKS[form] in head and "MAC-Flow" + MARKS[form] in head and head.count(MARKS[form]) == 2
    assert not any(MARKS[form] in line for line in found.values())
    assert MARKS[form].removeprefix("<br>").strip() + ": reduced networks" in text
    assert "BC: hidden 128x128; MAC-Flow: hidden 128x128, flow" in " ".join(text.split())


@pytest.mark.parametrize("form", WRITERS)
def test_where_a_method_is_reduced_in_part_the_cells_carry_the_mark(fill, form):
    found = lines(WRITERS[form](build(fill(bc=[SMALL, {}, {}], flow_bc=[{}, {}, SMALL], mac_flow={}))))
    count = {start: line.count(MARKS[form]) for start, line in found.items()}
    expected = {"dataset": 0, "3m good": 1, "3m poor": 0, "AVERAGE SMACv1": 1, "zerg": 1, "AVERAGE SMACv2": 1}
    assert count == expected
    for start, own, others in [("3m good", "10.0", "20.0"), ("zerg", "20.0", "30.0")]:
        before, after = found[start].split(MARKS[form])
        assert own in before and others not in before and others in after


@pytest.mark.parametrize("known", [{}, None], ids=["true size", "older record"])
def test_nothing_is_marked_where_nothing_is_known_to_be_reduced(fill, known):
    results = fill(bc=known, flow_bc=known, mac_flow=known)
    table = build(results)
    runs = map(flat, Records.read(results).select().records)
    assert {row.reduced for row in table.rows} == {""} and {run["reduced"] for run in runs} == {""}
    for writer in WRITERS.values():
        assert "°" not in writer(table) and "reduced" not in writer(table).lower()
    assert not any("reduced" in caption for caption in captions(results))


def test_the_marks_leave_the_columns_as_they_are(fill):
    table = build(fill(bc=[SMALL, {}, {}], mac_flow=FLOW))
    rows = [line for line in writers.markdown(table).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {6}
    body = [line for line in writers.latex(table).splitlines() if line.endswith((r"\\", r"\\[2pt]"))]
    assert {line.count("&") for line in body} == {4}
    plain = lines(writers.plain(table)).values()
    assert len(set(map(len, plain))) == 1 and "10.0°(16.0)" in writers.plain(table)


def test_methods_of_the_same_sizes_are_named_together(fill):
    table = build(fill(bc=SMALL, flow_bc=FLOW, mac_flow=FLOW))
    assert sizes(table) == "BC: hidden 128x128; Flow BC, MAC-Flow: hidden 128x128, flow_steps 5."


def test_different_sizes_of_a_method_are_named_with_their_datasets(fill):
    table = build(fill(bc=[SMALL, {"hidden": [64, 64, 64]}, SMALL], flow_bc=[{}, {}, SMALL], mac_flow=SMALL))
    assert sizes(table) == (
        "BC: hidden 128x128 (3m good, zerg_5_vs_5 replay); BC: hidden 64x64x64 (3m poor); "
        "Flow BC: hidden 128x128 (zerg_5_vs_5 replay); MAC-Flow: hidden 128x128."
    )
    assert "BC<sup>a</sup><br><sub>reduced</sub>" in lines(writers.markdown(table))["dataset"]


def test_an_average_has_the_sizes_of_all_its_cells(fill):
    table = build(fill(bc=[SMALL, {"hidden": [64, 64]}, {}], flow_bc=[SMALL, {}, {}], mac_flow=FLOW))
    average = {row.algorithm: row.reduced for row in table.rows if row.task == "AVERAGE SMACv1"}
    both = "hidden 128x128; hidden 64x64"
    assert average == {"bc": both, "flow_bc": "hidden 128x128", "mac_flow": "hidden 128x128, flow_steps 5"}
    assert cell(table, "AVERAGE SMACv2", "", "bc")["reduced"] == ""


def test_an_older_record_does_not_unmark_the_other_seeds_of_its_cell(fill, write_run):
    results = fill(bc=None)
    write_run(results, "smac/3m", "good", "bc", 1, 10.0, reduced=SMALL)
    assert cell(build(results), "smac/3m", "good", "bc")["reduced"] == "hidden 128x128"


def test_a_cell_without_a_number_is_neither_marked_nor_counted(fill, write_run):
    results = fill(bc=SMALL)
    write_run(results, "smac/3m", "poor", "bc", 0, None, reason="out of memory")
    write_run(results, "smac/3m", "good", "mac_flow", 0, 9.0, reduced=FLOW, status="diverged", reason="|Q| is 1e+06")
    table = build(results)
    for row in [("smac/3m", "poor", "bc"), ("smac/3m", "good", "mac_flow"), ("AVERAGE SMACv1", "", "bc")]:
        assert cell(table, *row)["reduced"] == ""
    assert sizes(table) == "BC: hidden 128x128."
    assert lines(writers.plain(table))["dataset"].split() == ["dataset", "BC[a]°", "Flow", "BC[b]", "MAC-Flow[c]"]


def test_the_csv_has_the_sizes(fill):
    results = fill(mac_flow=FLOW)
    report.write(Records.read(results), "smac", SUITE, "quick", "embedded", {})
    found = pd.read_csv(results / "reports" / "smac" / "table.csv").set_index("algorithm")["reduced"]
    assert set(found["mac_flow"]) == {"hidden 128x128, flow_steps 5"} and found["bc"].isna().all()


def test_the_figures_name_the_reduced_networks_within_their_width(fill):
    results = fill(bc=SMALL, mac_flow=[FLOW, FLOW, {}])
    told = "reduced networks and settings (smaller than the paper's): "
    told += "BC: hidden 128x128; MAC-Flow: hidden 128x128, flow_steps 5 (3m good, 3m poor)"
    for caption in captions(results):
        assert told in " ".join(caption.split())
    figure = figures.learning_curves(build(results))
    figure.draw_without_rendering()
    text = next(each for each in figure.texts if "reduced" in each.get_text())
    assert text.get_window_extent().width < figure.bbox.width
