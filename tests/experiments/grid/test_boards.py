"""Boards: more methods on the datasets of several suites, a part for each suite."""

import pytest

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.benchmarks.yaml_files import FileError, validated
from offmarl.experiments.cli import main
from offmarl.experiments.commands.report import suite_facts
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid.jobs import Request, jobs
from offmarl.experiments.grid.suite import Board, boards, expand, load_suite, suite_names
from offmarl.experiments.studies import tuning
from offmarl.reports.published import numbers as published

PARTS = {"frontier_smac": "smac", "frontier_continuous": "continuous"}


def test_frontier_is_every_method_that_fits_on_the_34_datasets_of_tables_1_and_2():
    found = jobs(Request("frontier"))
    tables = {pair for base in PARTS.values() for pair in load_suite(base).datasets}
    assert boards() == {"frontier": PARTS} and expand("frontier") == list(PARTS)
    assert {(job.task, job.quality) for job in found} == tables and len(tables) == 34
    methods = {method for base in (*PARTS.values(), "om2p") for method in load_suite(base).algorithms}
    methods |= {"comadice", "b3c", "recipe", "cfcql", "bc_rnn", "maicq", "qmix_cql"}
    expected = {(job.task, m) for job in found for m in methods if tasks()[job.task].space in registry()[m].actions}
    assert {(job.task, job.algorithm) for job in found} == expected
    assert len({job.key for job in found}) == len(found)


@pytest.mark.parametrize("profile", ["smoke", "quick", "standard", "paper"])
def test_a_run_counts_for_the_papers_table_and_for_the_board(profile):
    ids = {part: {job.key for job in jobs(Request(part, profile))} for part in PARTS}
    assert ids["frontier_smac"] | ids["frontier_continuous"] == {job.key for job in jobs(Request("frontier", profile))}
    for part, base in PARTS.items():
        assert {job.key for job in jobs(Request(base, profile))} < ids[part]


def test_a_part_has_the_datasets_and_the_protocol_of_its_suite_and_not_its_papers_claims():
    for part, base in PARTS.items():
        own, other = load_suite(part), load_suite(base)
        assert (own.groups, own.protocol, own.profiles) == (other.groups, other.protocol, other.profiles)
        assert not own.claims and own.title != other.title and own.notes.items() > other.notes.items()
        assert published.cells(own.published).items() > published.cells(other.published).items()


def test_a_selection_of_a_board_is_what_each_part_has_of_it():
    found = jobs(Request("frontier", "smoke", tasks=["smac/3m:good", "mpe/spread"], algorithms=["b3c", "cfcql"]))
    spread = [("mpe/spread", quality) for quality in ("expert", "medium", "medium-replay", "random")]
    expected = {(*pair, method) for pair in spread for method in ("b3c", "cfcql")} | {("smac/3m", "good", "cfcql")}
    assert {(job.task, job.quality, job.algorithm) for job in found} == expected
    for wrong in ({"tasks": ["mpe/sprad"]}, {"algorithms": ["comadise"]}):
        with pytest.raises(UserError, match="did you mean"):
            jobs(Request("frontier", **wrong))
    with pytest.raises(UserError, match="did you mean 'frontier'"):
        jobs(Request("frontiers"))


def test_a_board_names_suites_and_methods_that_there_are():
    board = {"title": "t", "paper": "p", "parts": {"smac": "frontier_smac"}, "algorithms": {"bc": "BC"}}
    assert list(validated(Board, "b.yaml", board).part("smac").algorithms) == ["bc"]
    for wrong in ({"parts": {"smak": "x"}}, {"algorithms": {"cfcq": "CFCQL"}}):
        with pytest.raises(FileError, match=r"b.yaml.*did you mean"):
            validated(Board, "b.yaml", board | wrong)


def test_methods_of_a_board_are_tuned_once_as_in_the_suites_of_its_parts():
    found = tuning.searches("frontier", "quick")
    assert {search.suite for search in found} == set(PARTS.values())
    places = [(search.suite, search.family, search.method) for search in found]
    assert len(set(places)) == len(places) and ("mpe" in {family for _, family, _ in places})
    assert {"smac", "smacv2", "mamujoco", "mpe"} == {family for _, family, method in places if method == "cfcql"}
    (whole,) = tuning.searches("frontier", "quick", ["bc"], ["smac"])
    assert [job.key for job in whole.jobs] == [
        job.key for one in tuning.searches("smac", "quick", ["bc"], ["smac"]) for job in one.jobs
    ]


def test_tuning_a_board_can_be_planned(tmp_path, capsys):
    words = ["tune", "--suite", "frontier", "--algorithms", "cfcql,b3c", "--families", "mpe", "--dry-run"]
    assert main([*words, "--results", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "continuous/mpe" in told and "cfcql" in told and "frontier" not in told
    rows = [line.split() for line in told.splitlines() if line.startswith(("cfcql", "b3c"))]
    assert len(rows) == 2 and all(row[4] != "none" for row in rows), told  # what trains takes time


def test_the_papers_table_stays_the_papers_and_says_where_the_others_are():
    assert suite_facts("smac", "embedded")[0]["on_boards"]["comadice"] == "frontier_smac"
    assert not suite_facts("smac", "embedded")[0]["on_boards"].keys() & load_suite("smac").algorithms.keys()
    assert suite_facts("frontier_smac", "embedded")[0]["on_boards"] == {}
    assert suite_facts("om2p", "embedded")[0]["on_boards"] == {}


def test_frontier_runs_and_reports(tmp_path, capsys):
    selection = ["--profile", "smoke", "--tasks", "mpe/spread:random", "--algorithms", "bc,cfcql,recipe"]
    small = ["--steps", "4", "--seeds", "0", "--set", "all.hidden=[8]", "--jobs", "1", "--results", str(tmp_path)]
    assert main(["run", "--suite", "frontier", *selection, *small]) == 0
    told = capsys.readouterr().out
    folders = {place.name for place in (tmp_path / "reports").iterdir()}
    assert folders == set(PARTS) and "SVN recipe (reconstructed)" in told
    table = (tmp_path / "reports" / "frontier_continuous" / "table.md").read_text()
    assert "SVN recipe (reconstructed): reconstructed from its code" in table
    assert "Paper's CFCQL: measured by B3C's authors in 1 of 5 cells" in table and "paper 62.2 ± 8.1" in table
    assert "paper 2827.7 ± 62.9" in table and "MATD3BC" in table and "MABCQ" not in table
    assert main(["report", "--suite", "continuous", "--profile", "smoke", "--results", str(tmp_path)]) == 0
    note = "Run too, and shown by `offmarl report --suite frontier_continuous`: CFCQL, SVN recipe."
    assert note in " ".join(capsys.readouterr().out.split())
    assert "CFCQL" not in (tmp_path / "reports" / "continuous" / "table.csv").read_text()
    assert main(["verify", "--results", str(tmp_path)]) == 0


def test_no_suite_of_a_users_may_be_called_as_a_board_or_a_part_of_one(tmp_path, capsys):
    for name in ("frontier", "frontier_smac"):
        file = tmp_path / f"{name}.yaml"
        file.write_text("title: t\nalgorithms: {bc: BC}\ngroups: {SMAC: {smac/3m: [good]}}\n")
        assert main(["run", "--suite", str(file), "--dry-run", "--results", str(tmp_path)]) == 2
        assert "is invalid or already taken" in capsys.readouterr().err
    assert not set(boards()) & set(suite_names())
