import published_findings as rules
import pytest

from offmarl.reports.published import numbers as published

TABLE = "macflow_table1"


def test_every_method_has_every_cell():
    cells = published.cells(TABLE)
    datasets, methods = {key[:2] for key in cells}, {key[2] for key in cells}
    assert (len(datasets), len(methods), len(cells)) == (18, 8, 144)
    assert cells["smac/3m", "good", "BC"] == (16.0, 1.0, "copied")
    assert cells["smacv2/terran_5_vs_5", "replay", "MAC-Flow"] == (16.6, 4.3, "rerun")


@pytest.mark.parametrize("name", published.FACTS)
def test_groups_cover_every_scenario_once(name):
    groups = rules.GROUPS.get(name, {}).values()
    scenarios = {scenario for scenario, _, _ in published.printed(name)} if groups else set()  # without averages
    assert set().union(*groups) == scenarios
    assert sum(map(len, groups)) == len(scenarios)
    assert {group for group, _ in published.printed_averages(name)} == set(rules.GROUPS.get(name, {}))


def test_the_continuous_tables_are_read_by_our_names():
    two, om2p = published.cells("macflow_table2"), published.cells("om2p_table1")
    assert (len(two), len(om2p)) == (112, 64)
    assert two["mamujoco/6halfcheetah", "medium-expert", "MAC-Flow"][:2] == (5139.9, 84.1)
    assert two["mpe/spread", "random", "ICQ"][:2] == (34.4, 5.3)
    assert om2p["mpe/tag", "medium-replay", "OM2P"][:2] == (203.1, 59.3)
    assert om2p["mamujoco/2halfcheetah", "expert", "MA-FQL"][:2] == (3869.8, 329.3)


@pytest.mark.parametrize("name", published.FACTS)
def test_every_cell_says_where_it_comes_from(name):
    facts = published.provenance(name)
    assert facts.keys() == published.printed(name).keys()
    assert {fact["origin"] for fact in facts.values()} <= {"rerun", "copied", "unknown", *published.MEASURED}
    for fact in facts.values():
        assert bool(fact["source"]) == (fact["origin"] not in ("rerun", "unknown"))
        assert fact["origin"] in published.MEASURED or (fact["spread"] == "unknown") == (fact["origin"] != "rerun")


def test_a_board_has_the_papers_numbers_and_those_of_others_with_who_measured_them():
    two, board = published.cells("macflow_table2"), published.cells("frontier_continuous")
    assert two.items() < board.items() and len(board) == len(two) + 30
    assert board["mamujoco/3hopper", "expert", "ComaDICE"] == (
        *(2827.7, 62.9),
        "measured by its authors (ComaDICE's Table 3)",
    )
    assert board["mamujoco/2ant", "expert", "BC"][::2] == (2046.0, "measured by ComaDICE's authors")
    assert board["mamujoco/3hopper", "medium-replay", "CFCQL"][::2] == (1380.2, "measured by B3C's authors")
    assert published.cells("frontier_smac")["smac/2c_vs_64zg", "good", "ComaDICE"][0] == 20.3
    notes = dict(published.findings("frontier_continuous", ["BC", "OMAR", "ComaDICE"]))
    assert notes["BC",] == "Paper's BC: measured by ComaDICE's authors in 12 of 12 cells." and ("OMAR",) in notes


def test_cells_copied_from_madiffs_readme_have_its_numbers():
    for name in ("macflow_table1", "macflow_table2"):
        readme, numbers = rules.readme(name), published.printed(name)
        swapped = {"ICQ": "OMAR", "OMAR": "ICQ"}
        for (where, quality, method), fact in published.provenance(name).items():
            if fact["source"] == "MADiff's README":
                assert readme[where, quality, swapped.get(method, method)] == numbers[where, quality, method][0]
    assert [origin for *_, origin in published.cells("macflow_table2").values()].count("copied") == 20


@pytest.mark.parametrize("name", published.FACTS)
def test_what_is_marked_is_in_the_table(name):
    cells = {*published.printed(name), *((f"AVERAGE_{g}", "", m) for g, m in published.printed_averages(name))}
    marks = rules.marks(name)
    assert marks.keys() <= cells and set(marks.values()) <= {"bold", "underlined"}
    assert bool(marks) == name.startswith("macflow")  # we have no others


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match="nonesuch.*macflow_table1"):
        published.cells("nonesuch")
