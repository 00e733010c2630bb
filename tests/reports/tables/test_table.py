"""Tables from a store of known numbers."""

import re

import pandas as pd
import pytest

from offmarl.reports.records import checksums as sums
from offmarl.reports.records.reader import Records, flat
from offmarl.reports.tables import build as tables
from offmarl.reports.tables import stats, writers


def cell(table, task, quality, algorithm):
    table = table.frame()
    found = table[(table.task == task) & (table.quality == quality) & (table.algorithm == algorithm)]
    assert len(found) == 1
    return found.iloc[0]


def below(table):
    return "\n".join(table.notes)


def test_runs_are_rows_with_the_last_and_the_best_evaluation(store):
    records = Records.read(store)
    selection = records.select()
    runs = pd.DataFrame([flat(record) for record in selection.records])
    assert len(runs) == 24 and selection.notes == []
    run = runs[(runs.algorithm == "bc") & (runs.quality == "good") & (runs.seed == 1)].iloc[0]
    assert (run.final, run.best, run.win_rate, run.latency_ms) == (17.0, 17.5, 0.25, 0.2)
    assert (run.engine, run.steps, run.train_s) == ("SMAX (jaxmarl 0.2.0, jax 0.10.2)", 3000, 30.0)
    assert not records.select(profile="paper").records and not records.select(source="og_marl").records
    assert sum(map(len, runs.evaluations)) == 72
    assert [each["step"] for each in run.evaluations] == [1000, 2000, 3000]
    assert [sum(each["returns"]) / 4 for each in run.evaluations] == [15.0, 17.5, 17.0]


def test_cells_have_the_mean_of_seed_means_beside_the_papers(store, build):
    bc = cell(build(store), "smac/3m", "good", "bc")
    assert (bc["mean"], bc.n_seeds, bc.status, bc.reason) == (16.0, 2, "done", "")
    assert bc.two_std == pytest.approx(2 * 2**0.5)
    assert pd.isna(bc.ci_low) and pd.isna(bc.ci_high) and pd.isna(bc.ci_over)
    assert (bc.published_mean, bc.published_spread, bc.dataset_mean) == (16.0, 1.0, 12.5)


def test_three_seeds_give_students_interval_over_seeds():
    found = stats.estimate([{0: [9, 11], 1: [12], 2: [14]}])
    assert (found["mean"], found["two_std"], found["ci_over"]) == (12.0, 4.0, "seeds")
    half = 4.302653 * 2 / 3**0.5  # Student's t, two degrees of freedom
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((12 - half, 12 + half))


@pytest.mark.parametrize("cell", [{4: [1.0, 2.0, 6.0]}, {0: [3.0], 1: [3.0]}], ids=["one", "two"])
def test_fewer_than_three_seeds_have_no_interval(cell):
    found = stats.estimate([cell])
    assert found["mean"] == 3.0 and found["ci_over"] is None
    assert pd.isna(found["ci_low"]) and pd.isna(found["ci_high"])
    assert pd.isna(found["two_std"]) if len(cell) == 1 else found["two_std"] == 0


def test_an_average_has_the_interval_of_the_seeds_that_all_its_cells_have():
    three, two = {0: [1.0], 1: [2.0], 2: [3.0]}, {0: [4.0], 1: [6.0]}
    assert stats.estimate([three, three])["ci_over"] == "seeds"
    assert pd.isna(stats.estimate([three, two])["ci_low"]) and stats.estimate([three, two])["mean"] == 3.5


@pytest.mark.parametrize("form", ["markdown", "latex", "plain"])
def test_without_intervals_nothing_is_bracketed_or_tied_and_the_caption_says_so(store, write_run, build, form):
    told, tie = "fewer than three seeds: no interval", "its interval overlaps"
    text = " ".join(getattr(writers, form)(build(store)).split())
    numbers = text.split("Profile quick")[0]
    assert told in text and tie not in text and "†" not in text and "dagger" not in text
    assert "nan" not in text.lower() and not re.search(r"\[-?\d+\.\d", numbers) and "95 %" not in text
    for algorithm, finals in {"bc": (15, 17, 16), "flow_bc": (19, 20, 21)}.items():
        for seed, final in enumerate(finals):
            write_run(store, "smac/3m", "good", algorithm, seed, final)
    both = " ".join(getattr(writers, form)(build(store)).split())
    assert told in both.replace("With fewer", "fewer") and "Student's t" in both
    assert form == "plain" or len(re.findall(r"\[\d+\.\d, ", both)) == 2


def test_best_and_second_are_marked_by_rule(store, build):
    table = build(store)
    good = [row for row in table.rows if (row.task, row.quality) == ("smac/3m", "good")]
    assert {row.algorithm: row.standing for row in good} == {"bc": "", "flow_bc": "best", "mac_flow": "second"}
    line = next(line for line in writers.markdown(table).splitlines() if line.startswith("| 3m good"))
    assert "**19.5**<br>" in line and "<u>18.5</u><br>" in line and "| 16.0<br>" in line
    assert "<br><sub>paper 19.8 ± 0.2</sub>" in line


def test_a_tie_is_an_interval_that_overlaps_the_best(tmp_path, write_run, build):
    for algorithm, final in [("bc", 3.0), ("flow_bc", 9.5), ("mac_flow", 10.0)]:
        for seed in range(3):
            write_run(tmp_path, "smac/3m", "good", algorithm, seed, final + 0.3 * seed)
    table = build(tmp_path).frame().set_index("algorithm").query("quality == 'good'")
    assert list(table.tied) == [False, True, False]
    assert "†" not in writers.plain(build(tmp_path)) and "<u>9.8</u>† [" in writers.markdown(build(tmp_path))


def test_averages_are_recomputed_from_the_cells(store, build):
    table = build(store)
    average = cell(table, "AVERAGE SMACv1", "", "bc")
    assert average["mean"] == pytest.approx((16 + 10 + 5) / 3)
    assert average.published_mean == pytest.approx((16.0 + 8.2 + 4.4) / 3)
    assert average.published_printed == 12.2
    assert cell(table, "AVERAGE SMACv2", "", "mac_flow")["mean"] == 9.0
    tasks = list(dict.fromkeys(row.task for row in table.rows))
    assert tasks == ["smac/3m", "AVERAGE SMACv1", "smacv2/zerg_5_vs_5", "AVERAGE SMACv2"]
    assert "Averages of the paper are recomputed from its cells." in below(table)


def test_an_average_needs_every_cell(tmp_path, fill, build):
    table = build(fill(tmp_path, skip=[("smac/3m", "poor", "bc")]))
    average = cell(table, "AVERAGE SMACv1", "", "bc")
    assert pd.isna(average["mean"]) and (average.status, average.reason) == ("pending", "2 of 3 datasets")
    assert cell(table, "AVERAGE SMACv1", "", "mac_flow").status == "done"


def test_runs_with_other_settings_are_not_pooled(store, write_run, build):
    for seed in (0, 1):
        write_run(store, "smac/3m", "good", "bc", seed, 1.0, hash="bbbb2222", finished="2026-02-01")
    table = build(store)
    bc = cell(table, "smac/3m", "good", "bc")
    assert (bc["mean"], bc.n_seeds, bc.config_hash) == (1.0, 2, "bbbb2222")
    assert "bc (quick): runs with other settings are left out on smac/3m good (aaaa1111)." in below(table)
    write_run(store, "smac/3m", "good", "bc", 0, None, hash="cccc3333")
    assert cell(build(store), "smac/3m", "good", "bc").config_hash == "bbbb2222"


def test_small_returns_keep_their_figures_beside_a_group_of_large_ones(tmp_path, write_run, build):
    for method, small in ("bc", 0.284), ("mac_flow", 0.316):
        write_run(tmp_path, "smac/3m", "good", method, 0, 15.0)
        write_run(tmp_path, "smacv2/zerg_5_vs_5", "replay", method, 0, small)
    table = build(tmp_path)
    assert (table.digits("SMACv1"), table.digits("SMACv2")) == (1, 3)
    assert "0.284" in writers.plain(table) and "15.000" not in writers.plain(table)


def test_methods_of_other_suites_show_only_with_runs_on_every_dataset(store, write_run, build, suite):
    suite = suite | {"algorithms": {"flow_bc": "Flow BC", "mac_flow": "MAC-Flow"}}
    write_run(store, "smac/3m", "good", "mine", 0, 9.0)

    def methods(elsewhere):
        others = dict.fromkeys(elsewhere, ())
        return set(tables.build(Records.read(store), suite, "smac", "quick", "embedded", {}, others).titles)

    assert methods(["bc", "dof"]) == {"flow_bc", "mac_flow", "bc", "mine"}  # bc ran everywhere; mine is in no suite
    assert methods(["mine"]) == {"flow_bc", "mac_flow", "bc"}


def test_variants_are_not_pooled(store, write_run, build):
    write_run(store, "smac/3m", "good", "bc", 0, 1.0, variant="released")
    table = build(store)
    assert cell(table, "smac/3m", "good", "bc")["mean"] == 16.0
    assert "bc: variant quick is shown; the store also has released" in below(table)


def test_a_variant_of_another_suite_shows_where_there_is_nothing_else(tmp_path, write_run, suite):
    """OM2P's suite trains OMAR with other settings than Table 2, on datasets that both have."""

    def shown():
        elsewhere = {"mac_flow": {"om2p"}}
        table = tables.build(Records.read(tmp_path), suite, "smac", "quick", "embedded", {}, elsewhere)
        return cell(table, "smac/3m", "good", "mac_flow"), below(table)

    for quality, seed in [("good", 0), ("good", 1), ("medium", 0)]:
        write_run(tmp_path, "smac/3m", quality, "mac_flow", seed, 5.0, variant="om2p")
    row, notes = shown()
    assert (row["mean"], row.variant) == (5.0, "om2p") and "om2p is shown, as another suite trains it" in notes
    write_run(tmp_path, "smac/3m", "good", "mac_flow", 0, 9.0)
    row, notes = shown()
    assert (row["mean"], row.variant, row.n_seeds) == (9.0, "quick", 1) and "om2p" not in notes
    for seed in (0, 1):
        write_run(tmp_path, "smac/3m", "good", "mac_flow", seed, 7.0, variant="released")
    assert shown()[0].variant == "released"


def test_a_table_says_what_the_suite_says_of_the_variants_that_it_shows(store, suite):
    def notes(**by_variant):
        told = suite | {"notes": {"bc": by_variant}}
        return below(tables.build(Records.read(store), told, "smac", "quick", "embedded", {}))

    assert "\nBC: as the code has it\n" in "\n" + notes(quick="as the code has it").replace("\n\n", "\n") + "\n"
    assert "as the code has it" not in notes(paper="as the code has it")


def test_the_caption_has_the_note_of_its_profile(store, suite):
    told = suite | {"profile_notes": {"quick": "Baselines are untuned.", "paper": "As printed."}}
    (caption,) = tables.build(Records.read(store), told, "smac", "quick", "embedded", {}).notes[:1]
    assert "Baselines are untuned. Paper: " in caption and "As printed" not in caption


def test_diverged_runs_are_never_a_number(tmp_path, fill, write_run, build):
    fill(tmp_path, [("smac/3m", "good", "bc"), ("smac/3m", "medium", "bc")])
    reason = "|Q| is 1e+06 at step 700, more than 4e+04"
    for quality, seed in [("good", 0), ("good", 1), ("medium", 1)]:
        write_run(tmp_path, "smac/3m", quality, "bc", seed, 99.0, status="diverged", reason=reason)
    write_run(tmp_path, "smac/3m", "medium", "bc", 0, 10)
    table = build(tmp_path)
    assert cell(table, "smac/3m", "good", "bc").status == "diverged"
    partial = cell(table, "smac/3m", "medium", "bc")
    assert (partial["mean"], partial.reason) == (10.0, f"1 of 2 seeds; the others diverged: {reason}")
    text = writers.markdown(table)
    assert "| diverged<sup>1</sup>" in text and "700" in text and "99.0" not in text
    assert 99.0 not in {run["final"] for run in table.runs}


def test_missing_cells_say_why(tmp_path, fill, write_run, build, suite):
    skip = [("smac/3m", quality, "bc") for quality in ("good", "medium", "poor")]
    fill(tmp_path, [*skip, ("smacv2/zerg_5_vs_5", "replay", "mac_flow")])
    for seed in (0, 1):
        write_run(tmp_path, "smac/3m", "good", "bc", seed, None, reason="loss is not finite at step 7")
    write_run(tmp_path, "smac/3m", "medium", "bc", 0, 10)
    write_run(tmp_path, "smac/3m", "medium", "bc", 1, None, reason="out of memory")
    suite = suite | {"algorithms": suite["algorithms"] | {"dof": "DoF"}}
    table = build(tmp_path, suite, {"dof": "not implemented yet"})
    assert cell(table, "smac/3m", "good", "bc").status == "failed"
    partial = cell(table, "smac/3m", "medium", "bc")
    assert (partial.status, partial.n_seeds, partial["mean"]) == ("partial", 1, 10.0)
    assert partial.reason == "1 of 2 seeds; the others failed: out of memory"
    assert cell(table, "smac/3m", "poor", "bc").status == "pending"
    assert cell(table, "smac/3m", "poor", "dof").status == "not available"
    assert cell(table, "AVERAGE SMACv1", "", "dof").reason == "not implemented yet"
    text = writers.markdown(table)
    assert "| failed<sup>1</sup><br><sub>paper 16.0 ± 1.0</sub> |" in text and "| –<br><sub>paper 4.4" in text
    assert "<sup>1</sup> loss is not finite at step 7" in text and "<sup>2</sup> not implemented yet" in text
    assert "[1] loss is not finite at step 7" in writers.plain(table)


def test_a_dataset_that_is_not_here_says_why_unless_it_has_been_run(store, build, suite):
    absent = {"smac/3m:good": "no data at /x", "smac/3m:poor": "no data at /x"}
    table = build(store, suite | {"algorithms": suite["algorithms"] | {"dof": "DoF"}}, absent)
    assert cell(table, "smac/3m", "good", "dof").reason == "no data at /x"
    assert cell(table, "smac/3m", "medium", "dof").status == "pending"
    assert cell(table, "smac/3m", "good", "bc").status == "done"


def test_unreadable_and_unfinished_directories_are_left_out(store, write_run, build):
    broken = write_run(store, "smac/3m", "good", "bc", 7, 99.0)
    (broken / "run.json").write_text('{"cell": {')
    hollow = write_run(store, "smac/3m", "good", "bc", 8, 99.0, evaluations=[])
    draft = write_run(store, "smac/3m", "good", "bc", 9, 99.0)
    draft.rename(draft.with_name(f".{draft.name}.0123abcd"))
    table = build(store)
    assert cell(table, "smac/3m", "good", "bc")["mean"] == 16.0
    assert f"2 run.json could not be read and count as not run: {broken.name}, {hollow.name}." in below(table)


def test_runs_that_are_not_what_was_written_count_as_not_run(store, write_run, build):
    changed = write_run(store, "smac/3m", "good", "bc", 7, 99.0)
    (changed / "SHA256SUMS").write_text(sums.sums(changed, ["run.json"]))
    assert cell(build(store), "smac/3m", "good", "bc")["n_seeds"] == 3
    (changed / "run.json").write_text((changed / "run.json").read_text().replace("100.0", "101.0"))
    table = build(store)
    assert cell(table, "smac/3m", "good", "bc")["mean"] == 16.0
    (store / "damaged").mkdir()
    changed.rename(store / "damaged" / f"{changed.name}.1")
    again = build(store)
    assert below(again) == below(table)
    assert f"1 run.json could not be read and count as not run: {changed.name}." in below(again)


def test_runs_whose_simulators_played_otherwise_are_pointed_out(store, write_run, build):
    engine = {"engine": "SMAX", "jaxmarl": "0.2.0", "jax": "0.10.2"}
    write_run(store, "smac/3m", "good", "bc", 0, 15, engine=engine | {"rollout": "ab" * 32})
    assert "reference rollout" not in below(build(store))  # the others are older and do not say
    write_run(store, "smac/3m", "good", "bc", 1, 17, engine=engine | {"rollout": "cd" * 32})
    said = below(build(store))
    assert "More than one reference rollout of the simulator, so the numbers are not comparable: smac/3m good." in said
    assert "version of the simulator" not in said and "abab" not in said


def test_numbers_from_other_data_are_pointed_out(store, write_run, build):
    write_run(store, "smac/3m", "good", "bc", 0, 15, dataset={"sha256": "other", "return_mean": 3.0})
    assert "More than one recording of the data, so the numbers are not comparable: smac/3m good." in below(
        build(store)
    )


def test_methods_and_datasets_of_another_protocol_are_pointed_out(store, write_run, build, datasets):
    assert "gradient steps on" not in below(build(store)) and "Not every method" not in below(build(store))
    protocol = {"steps": 3000, "eval_episodes": 4, "plays": ["own"]}
    for seed in (0, 1):
        for place in [
            ("smac/3m", "good"),
            ("smac/3m", "medium"),
            ("smac/3m", "poor"),
            ("smacv2/zerg_5_vs_5", "replay"),
        ]:
            write_run(store, *place, "bc", seed, 9, protocol=protocol | {"steps": 300})
        write_run(store, "smac/3m", "good", "flow_bc", seed, 9, protocol=protocol | {"eval_episodes": 32})
    notes = build(store).mixed
    assert notes == [
        "Not every method has the same number of gradient steps: 300 for BC; 3,000 for Flow BC, MAC-Flow.",
        "Flow BC does not have the same number of evaluation episodes on all datasets: 4, but 32 on 3m good.",
    ]


def test_methods_that_differ_alike_share_a_note(store, write_run, build):
    protocol = {"steps": 3000, "eval_episodes": 4, "plays": ["own"]}
    for method in ("bc", "flow_bc"):
        for seed in (0, 1):
            write_run(store, "smacv2/zerg_5_vs_5", "replay", method, seed, 9, protocol=protocol)
            write_run(store, "smac/3m", "good", method, seed, 9, protocol=protocol | {"steps": 9000})
            write_run(store, "smac/3m", "medium", method, seed, 9, protocol=protocol)
            write_run(store, "smac/3m", "poor", method, seed, 9, protocol=protocol)
    notes = build(store).mixed
    unlike = "BC, Flow BC do not have the same number of gradient steps on all datasets: 3,000, but 9,000 on 3m good."
    assert notes == [unlike]


WINDOWS = {  # settings beside a batch of 16, and the transitions of 300 updates
    "one transition": ({}, 4_800),
    "a setting of another meaning": ({"horizon": "long"}, 4_800),
    "planner": ({"history": 4, "horizon": 4}, 38_400),
    "recurrent": ({"horizon": 20, "burn_in": 5}, 96_000),
}


def test_transitions_are_told_beside_steps(store, write_run, build):
    """Updates times the batch, of windows times their rows; where methods differ, which."""
    assert "transitions in" not in below(build(store))  # older runs do not say their batch
    steps = {"steps": 300, "eval_episodes": 4, "eval_noise": "zero"}
    for method, (window, _) in zip(("bc", "flow_bc", "mac_flow"), [*WINDOWS.values()][1:]):
        for seed in (0, 1):
            config = {"batch_size": 16, **window}
            write_run(store, "smac/3m", "good", method, seed, 9, protocol=steps, config=config)
    text = below(build(store))
    assert "(4,800 to 96,000 transitions)" in text
    assert (
        "BC does not have the same number of training transitions (each row of a window counts) on all datasets" in text
    )


@pytest.mark.parametrize("window, transitions", WINDOWS.values(), ids=WINDOWS)
def test_the_rows_of_windows_are_counted(store, window, transitions):
    record = Records.read(store).select().records[0]
    record |= {"config": {"batch_size": 16, **window}, "protocol": record["protocol"] | {"steps": 300}}
    assert flat(record)["transitions"] == transitions


def test_a_method_of_ones_own_gets_a_column_without_published_numbers(store, write_run, build):
    for seed in (0, 1):
        write_run(store, "smac/3m", "good", "mine", seed, 20.0)
    mine = cell(build(store), "smac/3m", "good", "mine")
    assert (mine.title, mine.standing) == ("Mine | x", "best") and pd.isna(mine.published_mean)
    rows = [line for line in writers.markdown(build(store)).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


def test_rank_agreement_against_a_count_by_hand(store, build):
    taus = stats.rank_agreement(build(store).rows)
    assert taus["smac/3m", "good"] == (pytest.approx(1), 3)
    assert taus["smac/3m", "medium"] == (pytest.approx(1 / 3), 3)
    assert taus["smac/3m", "poor"] == (pytest.approx(-1), 3)
    assert taus["smacv2/zerg_5_vs_5", "replay"] == (pytest.approx(1), 3)
    assert "0.33, the mean over 4 datasets of 3 methods; AVERAGE SMACv1 " in below(build(store))


def test_two_methods_have_no_rank_agreement(tmp_path, fill, build, datasets):
    table = build(fill(tmp_path, [(*dataset, "bc") for dataset in datasets]))
    assert stats.rank_agreement(table.rows) == {} and "Rank agreement" not in below(table)


def test_the_caption_says_what_was_measured(store, build):
    table = build(store)
    assert table.title == "Table 1: SMACv1 and SMACv2, re-run on SMAX"
    caption = table.notes[0]
    for words in [
        "Profile quick",
        "source embedded",
        "on SMAX (jaxmarl 0.2.0, jax 0.10.2)",
        "2 seeds",
        "3,000 gradient",
    ]:
        assert words in caption
    for words in ["4 evaluation episodes", "Play mode: ", "fewer than three seeds: no interval"]:
        assert words in caption
    assert "real StarCraft II" in caption and "it is not the same measurement" in caption
    for writer in (writers.markdown, writers.latex, writers.plain):
        assert "real StarCraft II" in " ".join(writer(table).split())


def test_a_task_of_the_same_short_name_gets_no_published_number_nor_one_without_a_paper(store, write_run):
    write_run(store, "mine/3m", "good", "bc", 0, 0.25)
    suite = {"title": "Mine", "paper": "a paper", "published": "macflow_table1", "algorithms": {"bc": "BC"}}
    for task, published in (("mine/3m", False), ("smac/3m", True)):
        table = tables.build(
            Records.read(store), suite | {"groups": {"all": {task: ["good"]}}}, "mine", "quick", "embedded", {}
        )
        assert pd.notna(cell(table, task, "good", "bc").published_mean) == published
    alone = {key: value for key, value in suite.items() if key not in ("paper", "published")}
    table = tables.build(
        Records.read(store), alone | {"groups": {"all": {"mine/3m": ["good"]}}}, "mine", "quick", "embedded", {}
    )
    for text in (writers.markdown(table), writers.plain(table), writers.latex(table)):
        assert "paper" not in text.lower() and "0.250" in text and r" &  \\[2pt]" not in text
