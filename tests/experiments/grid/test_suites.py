"""The continuous suites, and all suites together."""

import pytest

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.public.sources import sources
from offmarl.experiments.cli import main
from offmarl.experiments.commands.report import suite_facts
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.jobs import Request, jobs
from offmarl.experiments.grid.suite import load_suite, profiles, suite_names
from offmarl.experiments.timing.throughput import projected

CONTINUOUS = ["continuous", "om2p"]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_suite_is_every_available_method_on_sixteen_datasets(name):
    suite, found = load_suite(name), jobs(Request(name))
    assert len({(job.task, job.quality) for job in found}) == 16
    able = {m for m in suite.algorithms if m in registry() and "continuous" in registry()[m].actions}
    assert {job.algorithm for job in found} == able
    assert len(found) == 16 * len(able)
    assert set(grid.unavailable_methods(suite)) == set(suite.algorithms) - able
    assert {job.protocol.plays for job in found} == {("own",)}
    assert {job.protocol.eval_episodes for job in found} == {10}


def test_table_2_has_its_seven_methods_and_om2p_its_four():
    assert {"matd3bc", "macql", "icq", "omar", "omiga", "madiff_d", "mac_flow"} <= set(
        load_suite("continuous").algorithms
    )
    assert list(load_suite("om2p").algorithms) == ["omar", "ma_sfbc", "ma_fql", "om2p"]


@pytest.mark.parametrize("name", [name for name, method in registry().items() if "continuous" not in method.actions])
def test_a_method_for_discrete_actions_has_its_reason(name):
    suite = load_suite("continuous")
    suite = suite.model_copy(update={"algorithms": suite.algorithms | {name: "X"}})
    assert grid.unavailable_methods(suite)[name] == "this method is implemented for discrete actions only"


@pytest.mark.parametrize("profile", ["smoke", "quick", "standard", "paper"])
def test_om2ps_four_methods_have_its_batches_discount_and_separate_networks(profile):
    found = jobs(Request("om2p", profile))
    facts = {(job.algorithm, c.batch_size, c.discount, c.share_parameters) for job in found for c in [job.config]}
    assert facts == {(method, 256, 0.99, False) for method in load_suite("om2p").algorithms}


@pytest.mark.parametrize("name", suite_names())
def test_the_standard_profile_gives_every_method_one_network_five_seeds_and_four_looks(name):
    """Whatever a variant says of sizes: MAC-Flow's released one, for example, has networks of 4 x 512."""
    found = jobs(Request(name, "standard"))
    networks = {(job.config.hidden, "hidden" in job.config.reduced()) for job in found}
    assert networks - {((64,), False)} == {((128, 128), True)}  # methods with a memory have their source's
    assert {job.config.discount for job in found} == {0.99}
    assert {job.seeds for job in found} == {(0, 1, 2, 3, 4)}
    assert {job.protocol.steps // job.protocol.eval_every for job in found} == {4}
    assert {job.config.decay_steps - job.protocol.steps for job in found} == {0}


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_om2p_and_its_rival_get_the_same_treatment(profile):
    own, rival = ({j.algorithm: j.config for j in jobs(Request("om2p", profile))}[name] for name in ("om2p", "ma_fql"))
    shared = {key for key in vars(own) if hasattr(rival, key)} - {"q_weight"}
    assert {"layer_norm", "normalise_q", "action_scale", "hidden", "learning_rate", "polyak"} <= shared
    assert {key: getattr(own, key) for key in shared} == {key: getattr(rival, key) for key in shared}


def test_ma_fql_is_the_decentralised_baseline_where_om2p_compares_with_it():
    def variants(**request):
        return {job.algorithm: job.variant for job in jobs(Request("om2p", **request))}

    assert variants(profile="paper")["ma_fql"] == "om2p" and variants(profile="paper")["om2p"] == "paper"
    assert variants(profile="quick")["ma_fql"] == "om2p+tuned" and variants(profile="quick")["om2p"] == "paper+tuned"
    assert variants(variant="released")["ma_fql"] == "om2p" and variants(variant="released")["omar"] == "released"
    assert variants(variant="tuned+without_q")["ma_fql"] == "om2p+tuned+without_q"


@pytest.mark.parametrize("suite", ["smac", "continuous", "frontier_smac", "frontier_continuous"])
def test_ma_fql_is_the_ablation_of_the_mac_flow_that_stands_beside_it(suite):
    asked = Request(suite, "paper", algorithms=["mac_flow", "ma_fql"])
    configs = {(job.task, job.algorithm): vars(job.config) for job in jobs(asked)}
    for task in {task for task, _ in configs}:
        whole, ablated = configs[task, "mac_flow"], configs[task, "ma_fql"]
        ablation = {"joint_flow", "mixer", "td_action"}
        assert {key for key in whole if whole[key] != ablated[key]} <= ablation and ablated["mixer"] == "none"


@pytest.mark.parametrize("profile", ["smoke", "quick", "standard", "paper"])
def test_suites_name_the_cells_apart_that_they_train_otherwise(profile):
    """One name of a cell with two settings would put one suite's number into the other's table."""
    seen = {}
    for name in suite_names():
        for job in jobs(Request(name, profile)):
            cell = (job.task, job.quality, job.algorithm, job.variant)
            assert seen.setdefault(cell, job.hash) == job.hash, (name, cell)


def test_methods_whose_sources_have_a_network_for_each_agent_have_them_by_default():
    separate = {name for name, method in registry().items() if not method.Config().share_parameters}
    assert separate == {"om2p", "omar", "ma_sfbc"}


def test_a_report_knows_the_variants_that_only_other_suites_train():
    assert suite_facts("continuous", "embedded")[2]["omar"] == {"om2p", "om2p+tuned"}
    assert suite_facts("om2p", "embedded")[2]["omar"] == {"paper+tuned", "paper"}
    assert not any(suite_facts("smac", "embedded")[2][name] for name in load_suite("smac").algorithms)


def test_table_2_has_what_the_authors_of_mac_flow_ran_and_the_text_by_name():
    def mac_flow(**request):
        return next(job for job in jobs(Request("continuous", algorithms=["mac_flow"], **request)))

    ran, text = mac_flow(profile="paper"), mac_flow(profile="paper", variant="text")
    assert (ran.variant, ran.config.alpha, ran.config.distillation_over) == ("released", 1.0, "mean")
    assert text.config == registry()["mac_flow"].Config()
    assert mac_flow(profile="quick").variant == "released+tuned"
    named = mac_flow(profile="paper", variant="paper+individual_flow", as_named=True)
    assert named.variant == "paper+individual_flow" and named.config.alpha == 3.0
    assert load_suite("continuous").notes["mac_flow"].keys() == {ran.variant}


def test_only_om2p_and_coordination_value_what_follows_the_clock():
    found = {name: {job.protocol.timeout_bootstrap for job in jobs(Request(name, "smoke"))} for name in suite_names()}
    assert found == {name: {name in ("om2p", "coordination")} for name in suite_names()}


def test_what_follows_the_clock_is_valued_only_on_data_whose_flags_say_nothing_of_it():
    """Sources that mark the clock as an end (`last`, `delimiter`) have suites that end there too."""
    for suite in map(load_suite, suite_names()):
        ends = {
            source.tasks[task].ends for source in sources().values() for task in suite.qualities if task in source.tasks
        }
        assert not suite.protocol.timeout_bootstrap or ends <= {"limit"}


def test_a_suite_may_change_a_profile_and_nothing_else_of_it():
    paper = jobs(Request("continuous", "paper"))[0].protocol
    assert (paper.steps, paper.eval_every, paper.eval_episodes) == (500_000, 50_000, 10)
    assert {job.seeds for job in jobs(Request("om2p", "paper"))} == {(0, 1, 2, 3, 4)}
    assert {job.task for job in jobs(Request("continuous", "smoke"))} == {"mamujoco/3hopper", "mpe/spread"}


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_all_is_every_suite_once(profile):
    found = {job.key for job in jobs(Request("all", profile))}
    assert found == {job.key for name in suite_names() for job in jobs(Request(name, profile))}
    assert len(jobs(Request("all", profile))) == len(found)


def test_all_takes_what_each_suite_has_of_a_selection():
    def datasets(**request):
        return {(job.task, job.quality) for job in jobs(Request("all", **request))}

    assert datasets(tasks=["mpe/spread:random"]) == {("mpe/spread", "random")}
    assert datasets(tasks=["mpe/spread:medium-expert", "smac/3m:good"]) == {
        ("mpe/spread", "medium-expert"),
        ("smac/3m", "good"),
    }
    assert {tasks()[task].discrete for task, _ in datasets(algorithms=["om2p"])} == {False}
    for wrong in ({"tasks": ["mpe/sprad"]}, {"tasks": ["mpe/spread:exprt"]}, {"algorithms": ["om2"]}):
        with pytest.raises(UserError, match="did you mean"):
            jobs(Request("all", **wrong))


def test_a_report_of_all_is_one_of_each(tmp_path, capsys):
    assert main(["report", "--suite", "all", "--results", str(tmp_path)]) == 0
    assert {place.name for place in (tmp_path / "reports").iterdir()} == set(suite_names()) > {"smac", *CONTINUOUS}
    said = capsys.readouterr().out
    assert all(load_suite(name).title in said for name in suite_names())


def test_a_task_in_two_groups_has_the_qualities_of_both():
    groups = {"Good": {"smac/3m": ["good"], "smac/8m": ["good"]}, "Poor": {"smac/3m": ["poor"]}}
    suite = load_suite("smac").model_copy(update={"groups": groups, "claims": []})
    assert suite.datasets == [("smac/3m", "good"), ("smac/3m", "poor"), ("smac/8m", "good")]
    found = grid.jobs_of(suite, Request("smac", "smoke", algorithms=["bc"], tasks=["smac/3m"]))
    assert [job.quality for job in found] == ["good", "poor"]
    records = [{"task": "smac/8m", "algorithm": "bc", "changed": {}, "seeds": 1, "update_ms": 1.0, "mode": "eager"}]
    assert "not measured" not in projected(found, records, suite.groups)[0]


@pytest.mark.parametrize("suite", ["om2p", "frontier_continuous"])
@pytest.mark.parametrize("length", [*profiles(), "quick 3000", "quick 600"])
def test_a_method_of_several_rounds_comes_to_the_last_one_however_long_it_trains(suite, length):
    profile, _, steps = length.partition(" ")
    for job in jobs(Request(suite, profile, algorithms=["ma_sfbc"], steps=int(steps) if steps else None)):
        assert (job.config.rounds - 1) * job.config.round_updates < job.protocol.steps


def test_what_the_command_line_says_of_rounds_stays_as_it_says():
    given = {"ma_sfbc": {"round_updates": 700}}
    (job,) = jobs(
        Request("om2p", "quick", algorithms=["ma_sfbc"], tasks=["mpe/tag:expert"], steps=3000, overrides=given)
    )
    assert job.config.round_updates == 700
