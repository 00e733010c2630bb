"""A cell that lost a seed shows its number as partial, and takes part in nothing that compares or averages."""

import numpy as np
import pandas as pd
import pytest

from offmarl.reports.figures.curves import learning_curves
from offmarl.reports.records.reader import Records
from offmarl.reports.site.boards import Suite, collect
from offmarl.reports.site.pages import leaderboard
from offmarl.reports.tables import aggregates, writers
from offmarl.reports.tables.stats import on_common_datasets, rank_agreement

RULE = "is left out of standings, averages, aggregates and rank agreement"
LOST = [{"status": "diverged", "reason": "|Q| is 1e+06 at step 700"}, {"status": "failed", "reason": "out of memory"}]


@pytest.fixture(params=LOST, ids=lambda over: over["status"])
def partial(store, write_run, request):
    """MAC-Flow, the best of 3m medium (11 and 13), has lost the worse of its two seeds there."""
    final = -245.0 if request.param["status"] == "diverged" else None
    write_run(store, "smac/3m", "medium", "mac_flow", 0, final, **request.param)
    return store


def cell(table, task, quality, method):
    (row,) = [row for row in table.rows if (row.task, row.quality, row.algorithm) == (task, quality, method)]
    return row


def test_it_is_shown_as_partial_and_has_no_standing(partial, build):
    table = build(partial)
    row = cell(table, "smac/3m", "medium", "mac_flow")
    assert (row.status, row.mean, row.n_seeds, row.n_lost, row.standing) == ("partial", 13.0, 1, 1, "")
    assert {cell(table, "smac/3m", "medium", name).standing for name in ("bc", "flow_bc")} == {"best", "second"}
    for text in (writers.markdown(table), writers.latex(table), writers.plain(table)):
        assert "partial 13.0" in text and RULE in " ".join(text.split())
    assert "MAC-Flow on 3m medium (1 of 2)" in writers.markdown(table)
    assert table.frame().query("algorithm == 'mac_flow' and quality == 'medium'")["n_lost"].item() == 1


def test_it_has_no_part_in_averages_and_rank_agreement(partial, build):
    table = build(partial)
    average = cell(table, "AVERAGE SMACv1", "", "mac_flow")
    assert pd.isna(average.mean) and average.status == "partial" and "3m medium" in average.reason
    assert cell(table, "AVERAGE SMACv1", "", "flow_bc").standing == "best"  # without the rule MAC-Flow would be
    agreement = rank_agreement(table.rows)
    assert ("smac/3m", "medium") not in agreement and agreement["smac/3m", "good"][1] == 3  # two methods give no tau


def test_it_has_no_part_in_aggregates(partial, build, suite):
    found = aggregates.build(build(partial), suite)
    methods = {row["algorithm"] for row in found.rows if row["group"] == "SMACv1"}
    assert methods == {"bc", "flow_bc"} and any(RULE in text for text in found.notes)
    assert "MAC-Flow (2 of 3 datasets)" in "\n".join(found.notes)


def test_return_against_time_leaves_its_dataset_out(partial, build):
    points, datasets = on_common_datasets([run for run in build(partial).runs if run["group"] == "SMACv1"])
    assert datasets == 2 and points["BC"]["mean"] == np.mean([16, 5])
    assert points["MAC-Flow"]["mean"] == np.mean([18.5, 3])


def test_its_learning_curve_is_dotted(partial, build, store):
    figure = learning_curves(build(partial))
    styles = {axis.get_title(): {line.get_label(): line.get_linestyle() for line in axis.lines} for axis in figure.axes}
    assert styles["3m medium"]["MAC-Flow"] == ":" and styles["3m good"]["MAC-Flow"] == "-"
    assert styles["3m medium"]["BC"] == "-" and any("dotted: partial" in text.get_text() for text in figure.texts)


def test_the_site_gives_it_no_rank(partial, suite):
    (board,) = collect(Records.read(partial), {"smac": Suite(suite)})
    rows = {row.key: row for row in board.rows}
    ranks = {method: rows["smac/3m", "medium", method].rank for method in ("bc", "flow_bc", "mac_flow")}
    assert ranks == {"bc": 1, "flow_bc": 2, "mac_flow": None}
    group, _ = leaderboard(board)["groups"]
    assert [row.title for row in group["averages"]] == ["Flow BC", "BC", "MAC-Flow"]
    assert group["common"] == "2 datasets"


def test_a_seed_that_is_not_run_yet_is_not_lost(store, write_run, build):
    write_run(store, "smac/3m", "medium", "mac_flow", 2, 12.0)
    table = build(store)
    bc, mac_flow = (cell(table, "smac/3m", "medium", name) for name in ("bc", "mac_flow"))
    assert (bc.status, bc.n_lost, bc.standing) == ("partial", 0, "second") and mac_flow.standing == "best"
    assert RULE not in "\n".join(table.notes) and "partial 1" not in writers.markdown(table)
