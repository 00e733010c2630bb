"""Aggregates of a group from a store of known numbers."""

import numpy as np
import pandas as pd
import pytest

from offmarl.reports import report
from offmarl.reports.figures import aggregates as aggregate_figures
from offmarl.reports.figures import curves as figures
from offmarl.reports.records.reader import Records, flat
from offmarl.reports.tables import aggregates


@pytest.fixture(scope="session")
def pool(build, suite):
    def pool(results, **over):
        own = suite | over
        return aggregates.build(build(results, own), own)

    return pool


@pytest.fixture
def full(store, write_run, datasets):
    """A third seed for every method on every dataset."""
    finals = {}
    for run in map(flat, Records.read(store).select().records):
        finals.setdefault((run["task"], run["quality"], run["algorithm"]), []).append(run["final"])
    for place, values in sorted(finals.items()):
        write_run(store, *place, 2, np.mean(values))
    return store


def row(found, group, method):
    (own,) = [row for row in found.rows if (row["group"], row["algorithm"]) == (group, method)]
    return own


def below(found):
    return "\n".join(found.notes)


def test_returns_are_pooled_as_shares_of_the_datas_mean(store, pool):
    found = pool(store)
    bc = row(found, "SMACv1", "bc")
    runs = np.array([[15, 9, 5], [17, 11, 5]]) / 12.5
    assert (bc["n_datasets"], bc["n_seeds"]) == (3, 2)
    assert bc["mean"] == pytest.approx(runs.mean()) and bc["median"] == pytest.approx(10 / 12.5)
    assert bc["optimality_gap"] == pytest.approx(np.maximum(1 - runs, 0).mean())
    assert bc["rank"] == pytest.approx((3 + 2 + 1) / 3)
    assert "divided by the mean return of the data" in below(found) and "the mean shortfall of" in below(found)


def test_a_tasks_own_ends_go_before_the_mean_of_its_data(tmp_path, fill, write_run, pool):
    fill(tmp_path, [("smac/3m", "good", method) for method in ("bc", "flow_bc", "mac_flow")])
    for seed in (0, 1):
        write_run(tmp_path, "smac/3m", "good", "bc", seed, 15.0, score=[10.0, 20.0])
    found = pool(tmp_path)
    assert row(found, "SMACv1", "bc")["mean"] == pytest.approx((0.5 + 10 / 12.5 + 5 / 12.5) / 3)
    again = pool(tmp_path, normalised=["smac/3m"])  # the others have no ends and so no score: no method has all
    assert {row["group"] for row in again.rows} == {"SMACv2"}


def test_normalised_scores_are_hundredths(tmp_path, write_run, pool):
    for quality, final in [("good", 15.0), ("medium", 12.0), ("poor", 10.0)]:
        for seed in (0, 1):
            write_run(tmp_path, "smac/3m", quality, "bc", seed, final, score=[10.0, 20.0])
    found = pool(tmp_path, normalised=["smac/3m"])
    assert row(found, "SMACv1", "bc")["mean"] == pytest.approx((0.5 + 0.2 + 0) / 3)
    assert "on 3m as a share of the way from a random policy's (0) to an expert's (1). Opt" in below(found)


def test_a_dataset_without_a_scale_is_left_out_and_named(tmp_path, fill, write_run, pool):
    fill(tmp_path)
    for method in ("bc", "flow_bc", "mac_flow"):
        for seed in (0, 1):
            data = {"sha256": "x", "return_mean": -3.0, "return_std": 1.0}
            write_run(tmp_path, "smac/3m", "poor", method, seed, -1.0, dataset=data)
    found = pool(tmp_path)
    assert row(found, "SMACv1", "bc")["n_datasets"] == 2
    assert "SMACv1: excluded, because they have no scale: 3m poor." in below(found)


def test_only_methods_with_every_dataset_are_among_the_aggregates(tmp_path, fill, pool):
    found = pool(fill(tmp_path, [("smac/3m", "poor", "bc")]))
    methods = found.frame().groupby("group")["algorithm"].agg(set)
    assert methods["SMACv1"] == {"flow_bc", "mac_flow"}
    assert "SMACv1: not among the aggregates: BC (2 of 3 datasets)." in below(found)
    assert methods["SMACv2"] == {"bc", "flow_bc", "mac_flow"}


def test_methods_are_held_against_the_headline_or_against_bc(store, pool):
    over_bc, headline = pool(store), pool(store, headline="mac_flow")
    assert {row["over"] for row in over_bc.rows} == {"BC"} and {row["over"] for row in headline.rows} == {"MAC-Flow"}
    assert pd.isna(row(over_bc, "SMACv1", "bc")["improvement"])
    wins = [1, 0.25, 0]  # of Flow BC: 19 and 20 against 15 and 17, 8 and 10 against 9 and 11, 4 against 5
    assert row(over_bc, "SMACv1", "flow_bc")["improvement"] == pytest.approx(np.mean(wins))
    assert pool(store, headline="nonesuch").frame()["improvement"].isna().all()


def test_two_seeds_give_numbers_without_intervals_and_a_note(store, pool):
    found = pool(store)
    ends = [name for name in aggregates.COLUMNS if name.endswith(("_low", "_high")) or name in ("p", "p_holm")]
    assert len(ends) == 12 and found.frame()[ends].isna().all(axis=None)
    text = aggregates.markdown(found)
    assert "[" not in text and "nan" not in text and "fewer than three seeds: no interval and no test" in text
    figure = aggregate_figures.draw(found, dict.fromkeys(found.frame()["title"], "black"))
    assert "fewer than three seeds: no interval" in figure.get_supxlabel() and "95 %" not in figure.get_supxlabel()


def test_three_seeds_give_intervals_and_tests(full, pool):
    pooled = pool(full)
    found = pooled.frame()
    assert found.filter(regex="^(iqm|mean|median|optimality_gap)_(low|high)$").notna().all(axis=None)
    best = found[found["title"] == found["best"]]
    assert len(best) == 2 and best["p"].isna().all() and found.drop(best.index)["p_holm"].notna().all()
    assert "no interval" not in aggregates.markdown(pooled) and "95 % intervals" in below(pooled)


def test_what_was_not_measured_alike_is_noted_beside_the_aggregates(store, write_run, pool):
    protocol = {"steps": 300, "eval_episodes": 4, "plays": ["own"]}
    write_run(store, "smac/3m", "good", "bc", 0, 15, protocol=protocol)
    assert "BC does not have the same number of gradient steps on all datasets" in below(pool(store))


def test_the_figure_has_a_block_per_group_in_the_methods_colours(full, pool, build):
    colour = figures.colours(build(full))
    figure = aggregate_figures.draw(pool(full), colour)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [*aggregates.NAMES.values(), ""] * 2
    labels = [[tick.get_text() for tick in axis.get_yticklabels()] for axis in figure.axes[:1]]
    assert labels == [["BC", "Flow BC", "MAC-Flow"]]
    assert {line.get_color() for line in figure.axes[0].get_lines()} == set(colour.values())
    assert "95 % intervals over seeds" in figure.get_supxlabel()


def test_a_report_removes_aggregates_that_are_no_longer_true(store, suite, tmp_path):
    report.write(Records.read(store), "smac", suite, "quick", "embedded", {})
    folder = store / "reports" / "smac"
    assert pd.read_csv(folder / "aggregates.csv")["group"].value_counts().to_dict() == {"SMACv1": 3, "SMACv2": 3}
    for run in (store / "runs").iterdir():
        (run / "run.json").unlink()
    report.write(Records.read(store), "smac", suite, "quick", "embedded", {})
    assert not list(folder.glob("aggregates.*"))
