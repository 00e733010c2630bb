import pytest

from offmarl.reports import published

TABLE = "macflow_table1"


def test_every_method_has_every_cell():
    cells = published.cells(TABLE)
    datasets, methods = {key[:2] for key in cells}, {key[2] for key in cells}
    assert (len(datasets), len(methods), len(cells)) == (18, 8, 144)
    assert cells["3m", "good", "BC"] == (16.0, 1.0)
    assert cells["terran_5_vs_5", "replay", "MAC-Flow"] == (16.6, 4.3)


@pytest.mark.parametrize("name", published.FACTS)
def test_groups_cover_every_scenario_once(name):
    groups = published.FACTS[name]["groups"].values()
    scenarios = {scenario for scenario, _, _ in published._printed(name)}
    assert set().union(*groups) == scenarios
    assert sum(map(len, groups)) == len(scenarios)
    assert {group for group, _ in published.printed_averages(name)} == set(published.FACTS[name]["groups"])


def test_the_continuous_tables_are_read_by_our_names():
    two, om2p = published.cells("macflow_table2"), published.cells("om2p_table1")
    assert (len(two), len(om2p)) == (112, 64)
    assert two["6halfcheetah", "medium-expert", "MAC-Flow"] == (5139.9, 84.1)
    assert two["spread", "random", "ICQ"] == (34.4, 5.3)
    assert om2p["tag", "medium-replay", "OM2P"] == (203.1, 59.3)
    assert om2p["2halfcheetah", "expert", "MA-FQL"] == (3869.8, 329.3)


def test_lint_finds_the_averages_of_the_continuous_tables_that_their_cells_contradict():
    assert published.lint("macflow_table2") == []
    assert published.lint("om2p_table1") == ["World MA-FQL 128.1 (its 4 cells average 125.80)"]


def test_lint_finds_the_six_averages_that_their_cells_contradict():
    findings = published.lint(TABLE)
    assert [line.split(" (")[0] for line in findings] == [
        "SMACv1 BC 12.2",
        "SMACv1 MABCQ 5.5",
        "SMACv1 Diffusion BC 13.0",
        "SMACv1 MADiff 13.8",
        "SMACv1 DoF 15.6",
        "SMACv1 Flow BC 13.4",
    ]
    means = [float(line.rsplit(" ", 1)[1].rstrip(")")) for line in findings]
    assert means == [11.59, 5.70, 12.88, 14.03, 15.49, 13.22]


def test_lint_allows_for_rounding_only(monkeypatch):
    rows = published._read(TABLE)
    right = {"AVERAGE_SMACv1": "15.6", "AVERAGE_SMACv2": "13.1"}
    kept = [row for row in rows if row["method"] == "MAC-Flow"]
    assert [row["mean"] for row in kept if row["scenario"] in right] == list(right.values())
    monkeypatch.setattr(published, "_read", lambda name: kept)
    assert published.lint(TABLE) == []
    kept[-1]["mean"] = "13.3"
    assert len(published.lint(TABLE)) == 1


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match="nonesuch.*macflow_table1"):
        published.cells("nonesuch")
