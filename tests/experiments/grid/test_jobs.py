"""From suite, profile and command line to jobs."""

import dataclasses
import itertools

import pytest

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.config import parse_overrides, resolve
from offmarl.experiments.grid.jobs import Request, jobs, pending
from offmarl.experiments.grid.suite import Suite, load_suite, profiles, suite_names
from offmarl.experiments.store.store import Store

SMAC = Request("smac")


def only(*overrides, algorithm="bc", **request):
    """The one job of a method on smac/3m:good."""
    request = {"tasks": ["smac/3m:good"], "algorithms": [algorithm], "overrides": parse_overrides(overrides), **request}
    (job,) = jobs(Request("smac", **request))
    return job


# The suite.


def test_the_smac_suite_is_every_available_method_on_eighteen_datasets():
    suite = load_suite("smac")
    methods = [name for name in suite.algorithms if name in registry()]
    found = jobs(SMAC)
    assert len(methods) >= 4
    assert len(found) == 18 * len(methods)
    assert len({job.key for job in found}) == len(found)
    datasets = {(task, q) for group in suite.groups.values() for task, qualities in group.items() for q in qualities}
    assert {(job.task, job.quality) for job in found} == datasets
    assert datasets == {key for key, recipe in catalogue().items() if recipe.task.family in ("smac", "smacv2")}
    assert {job.algorithm for job in found} == set(methods)


def test_the_suite_names_the_eight_methods_of_table_1_and_says_which_are_missing():
    suite = load_suite("smac")
    assert list(suite.algorithms) == [
        "bc",
        "mabcq",
        "macql",
        "diffusion_bc",
        "madiff_d",
        "dof",
        "flow_bc",
        "mac_flow",
    ]
    missing = grid.unavailable_methods(suite)
    assert set(missing) == set(suite.algorithms) - set(registry())
    assert all(missing.values())


def test_every_group_of_a_suite_holds_known_datasets():
    for name in suite_names():
        for group in load_suite(name).groups.values():
            for task, qualities in group.items():
                assert task in tasks()
                assert all((task, quality) in catalogue() for quality in qualities)


def test_tasks_select_whole_tasks_and_single_datasets():
    chosen = jobs(Request("smac", tasks=["smac/8m:poor", "smac/3m"], algorithms=["bc"]))
    assert [(job.task, job.quality) for job in chosen] == [
        ("smac/3m", "good"),
        ("smac/3m", "medium"),
        ("smac/3m", "poor"),
        ("smac/8m", "poor"),
    ]


def test_a_dataset_named_twice_runs_once():
    chosen = jobs(Request("smac", tasks=["smac/3m", "smac/3m:good", "smac/3m"], algorithms=["bc"]))
    assert len(chosen) == 3


def test_a_method_named_twice_runs_once():
    chosen = jobs(Request("smac", tasks=["smac/3m:good"], algorithms=["bc", "bc"]))
    assert len(chosen) == 1


@pytest.mark.parametrize("name", [name for name, method in registry().items() if "discrete" not in method.actions])
def test_a_method_for_continuous_actions_is_refused_on_discrete_tasks(name):
    with pytest.raises(UserError, match=f"{name}.*continuous"):
        jobs(Request("smac", algorithms=["bc", name]))


def test_a_selection_of_nothing_is_not_everything():
    with pytest.raises(UserError):
        jobs(Request("smac", tasks=[]))


def test_the_smoke_profile_is_two_maps():
    assert {job.task for job in jobs(Request("smac", "smoke"))} == {"smac/3m", "smac/2s3z"}


@pytest.mark.parametrize("name", ["smoke", "quick", "paper"])
def test_a_job_takes_steps_and_seeds_from_its_profile(name):
    own = load_suite("smac").profiles.get(name)
    facts = profiles()[name].model_dump() | (own.model_dump(exclude_unset=True) if own else {})
    job = only(profile=name)
    assert list(job.seeds) == facts["seeds"]
    for key in ("steps", "eval_every", "eval_episodes"):
        assert getattr(job.protocol, key) == facts[key]
    assert (job.profile, job.variant) == (name, facts["variant"])


def test_a_profile_may_give_some_methods_steps_of_their_own():
    own = profiles()["quick"].own_steps
    found = {job.algorithm: job for job in jobs(Request("smac", algorithms=["madiff_d", "mac_flow"]))}
    assert found["madiff_d"].protocol.steps == found["madiff_d"].config.decay_steps == own["madiff_d"]
    assert found["mac_flow"].protocol.steps == load_suite("smac").profiles["quick"].steps != own["madiff_d"]
    assert {j.protocol.steps for j in jobs(Request("smac", "paper")) if j.algorithm not in ("dof", "madiff_d")} == {
        10**6
    }


def test_steps_may_depend_on_the_dataset():
    steps = {
        (job.task, job.quality, job.algorithm): job.protocol.steps
        for suite in ("smac", "continuous")
        for job in jobs(Request(suite, "paper", algorithms=["dof", "madiff_d"]))
    }
    assert {steps["smac/3m", quality, "dof"] for quality in ("good", "medium", "poor")} == {10**5}
    assert steps["smac/8m", "good", "dof"] == 10**6 and steps["smacv2/zerg_5_vs_5", "replay", "dof"] == 500_000
    assert steps["smac/3m", "good", "madiff_d"] == 500_000 and steps["smac/3m", "medium", "madiff_d"] == 10**6
    assert steps["mpe/spread", "random", "madiff_d"] == 10**6 and steps["mpe/spread", "expert", "dof"] == 10**5
    assert steps["mamujoco/2ant", "expert", "madiff_d"] == 500_000


def test_planners_have_the_settings_of_their_authors_files():
    """MADiff's exp_specs and DoF's cfg, dataset by dataset."""

    def setting(name, suite, algorithm, profile="paper"):
        found = jobs(Request(suite, profile, algorithms=[algorithm]))
        return {f"{job.task}:{job.quality}": getattr(job.config, name) for job in found}

    scale = setting("return_scale", "smac", "madiff_d")
    poor = {"3m": 10, "8m": 8, "2s3z": 8, "5m_vs_6m": 12}
    assert {name: scale[f"smac/{name}:poor"] for name in poor} == poor
    assert {scale[f"smac/{name}:{quality}"] for name in poor for quality in ("good", "medium")} == {20}
    lowers = setting("return_to_go", "smac", "madiff_d")
    assert {name for name, value in lowers.items() if not value} == {
        f"smac/2s3z:{q}" for q in ("good", "medium", "poor")
    }
    assert all(setting("return_to_go", "smac", "dof").values())
    for method in ("madiff_d", "dof"):
        asked, scale = (setting(name, "continuous", method) for name in ("target_return", "return_scale"))
        assert {name: value for name, value in asked.items() if value != 1} == {
            f"mpe/spread:{quality}": 0.9 for quality in ("expert", "medium", "medium-replay", "random")
        }
        assert (scale["mpe/spread:expert"], scale["mpe/spread:random"]) == (700, 500)
    spread = setting("normaliser", "continuous", "madiff_d")
    assert [name for name, kind in spread.items() if kind == "limits"] == ["mpe/spread:expert"]
    apart = setting("share_parameters", "continuous", "madiff_d")
    assert not apart["mpe/spread:medium"] and apart["mamujoco/2ant:expert"]
    assert set(setting("share_parameters", "continuous", "madiff_c").values()) == {True}
    assert setting("target_return", "om2p", "madiff_d")["mamujoco/2halfcheetah:medium"] == 0.9
    # In every profile.
    assert setting("return_scale", "smac", "dof", "quick")["smac/3m:poor"] == 10


def test_a_suite_may_not_set_what_is_for_no_dataset_of_it():
    suite = load_suite("smac").model_dump()
    for key in ("smac/3n", "smac/3m:expert", "mpe"):
        with pytest.raises(ValueError, match=f"(?s)family, task or dataset.*{key}|{key}.*family, task or dataset"):
            Suite(**suite | {"settings": {"dof": {key: {"history": 0}}}})
        with pytest.raises(ValueError, match="dataset"):
            Suite(**suite | {"profiles": {"paper": {"own_steps": {"dof": {key: 5}}}}})


def test_steps_of_the_command_line_are_every_methods_and_named_in_its_row():
    usual, fewer = (
        {j.algorithm: j for j in jobs(Request("smac", tasks=["smac/3m:good"], steps=s))} for s in (None, 70)
    )
    assert {job.protocol.steps for job in fewer.values()} == {job.config.decay_steps for job in fewer.values()} == {70}
    for name, job in fewer.items():
        assert job.variant == usual[name].variant + "+steps=70"
        assert dataclasses.replace(job.config, decay_steps=usual[name].config.decay_steps) == usual[name].config
    chosen = only("bc.decay_steps=9", steps=70)
    assert (chosen.protocol.steps, chosen.config.decay_steps) == (70, 9)
    assert only(profile="paper", steps=70).config.decay_steps == 0


def test_settings_that_shrink_a_method_are_marked():
    def marked(suite, method, profile="quick"):
        return {key for j in jobs(Request(suite, profile, algorithms=[method])) for key in j.config.reduced()}

    search = {"search_steps", "search_actions", "search_elites"}
    assert {"hidden", "batch_size", "cql_actions"} | search <= marked("continuous", "omar")
    assert "cql_actions" in marked("continuous", "macql") and "cql_actions" not in marked("smac", "macql")
    assert {"batch_size", "history+horizon"} <= marked("smac", "dof") & marked("continuous", "madiff_d")
    assert "batch_size" not in marked("om2p", "om2p")
    for suite in suite_names():
        for method in load_suite(suite).algorithms:
            assert marked(suite, method, "paper") == set(), method


def test_a_suite_may_set_a_method_by_family_and_by_task():
    found = {j.task: (j.config.history, j.config.horizon) for j in jobs(Request("smac", "paper", algorithms=["dof"]))}
    assert set(found.values()) == {(20, 4)}
    for suite, windows in [
        ("smac", {"smac/3m": (20, 4), "smac/2s3z": (8, 20)}),
        ("continuous", {"mpe/spread": (0, 24)}),
    ]:
        for job in jobs(Request(suite, "paper", algorithms=["madiff_d"], tasks=list(windows))):
            assert (job.config.history, job.config.horizon) == windows[job.task]
    for job in jobs(Request("smac", "paper", algorithms=["madiff_d"], overrides={"madiff_d": {"history": 0}})):
        assert job.config.history == 0  # the command line has the last word


def test_a_setting_that_its_method_refuses_is_named():
    with pytest.raises(UserError, match="madiff_d: history=1"):
        jobs(Request("smac", algorithms=["madiff_d"], overrides={"madiff_d": {"history": 1, "multipliers": [1, 2]}}))
    with pytest.raises(UserError, match="bc: batch_size=0"):
        jobs(Request("smac", algorithms=["bc"], overrides={"bc": {"batch_size": 0}}))


def test_the_paper_profile_is_the_papers_protocol():
    job = only(profile="paper", algorithm="mac_flow")
    assert (job.protocol.steps, job.protocol.eval_episodes, job.seeds) == (10**6, 10, (0, 1, 2, 3, 4, 5))
    assert job.config == registry()["mac_flow"].Config()


def test_seeds_of_the_command_line_replace_the_profiles():
    assert only(seeds=[7, 9]).seeds == (7, 9)


def test_the_protocol_knows_the_data():
    assert only().protocol.data == catalogue()["smac/3m", "good"].key()


# Settings.


def test_settings_come_from_defaults_then_profile_then_variant_then_the_command_line():
    def hidden(*overrides, profile="quick", variant=None):
        return only(*overrides, algorithm="mac_flow", profile=profile, variant=variant).config.hidden

    assert hidden(profile="paper") == registry()["mac_flow"].Config().hidden == (512,) * 4
    assert hidden() == (128,) * 2
    assert registry()["mac_flow"].variant("released", "discrete")["hidden"] == (256,) * 4
    assert hidden(variant="released") == (256,) * 4
    assert hidden("all.hidden=[64]", variant="released") == (64,)
    assert hidden("all.hidden=[64]", "mac_flow.hidden=[32,16]", variant="released") == (32, 16)
    assert hidden("mac_flow.hidden=[32,16]", "all.hidden=[64]") == (32, 16)  # one method's setting is the stronger


def test_the_later_of_two_equal_settings_counts():
    assert only("bc.batch_size=8", "bc.batch_size=16").config.batch_size == 16


def test_a_setting_of_one_method_leaves_the_others_alone():
    configs = {name: only("mac_flow.batch_size=8", algorithm=name).config.batch_size for name in ("bc", "mac_flow")}
    assert configs == {"bc": 64, "mac_flow": 8}


def test_a_setting_for_all_reaches_those_that_have_it():
    assert not hasattr(only("all.alpha=9.0").config, "alpha")
    assert only("all.alpha=9.0", algorithm="mac_flow").config.alpha == 9.0


def test_the_suite_decides_how_the_trained_networks_are_played():
    assert {job.protocol.plays for job in jobs(SMAC)} == {("own", "zero")}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("bc.hidden=[64,32]", "hidden", (64, 32)),
        ("bc.hidden=[ 64 ]", "hidden", (64,)),
        ("bc.learning_rate=1e-4", "learning_rate", 1e-4),
        ("bc.learning_rate=0.5", "learning_rate", 0.5),
        ("bc.learning_rate=1", "learning_rate", 1.0),
        ("bc.share_parameters=false", "share_parameters", False),
        ("bc.share_parameters=no", "share_parameters", False),
        ("bc.share_parameters=true", "share_parameters", True),
        ("bc.batch_size=128", "batch_size", 128),
        ("bc.act_by=sample", "act_by", "sample"),
    ],
)
def test_values_are_read_as_the_settings_type(text, key, value):
    found = getattr(only(text).config, key)
    assert found == value
    assert type(found) is type(value)
    assert getattr(only(text).config, key) == value


@pytest.mark.parametrize(
    "text",
    [
        "bc.hidden=64",
        "bc.hidden=[]",
        "bc.hidden=[0]",
        "bc.hidden=[1.5]",
        "bc.hidden=[a]",
        "bc.hidden=[true]",
        "bc.hidden=",
        "bc.learning_rate=fast",
        "bc.learning_rate=true",
        "bc.learning_rate=[1]",
        "bc.batch_size=1.5",
        "bc.batch_size=true",
        "bc.batch_size=many",
        "bc.share_parameters=1",
        "bc.share_parameters=maybe",
        "bc.act_by=best",
        "bc.act_by=[sample]",
    ],
)
def test_values_of_another_type_are_refused(text):
    with pytest.raises(UserError, match=text.split("=")[0]):
        only(text)


def test_no_default_and_no_variant_of_any_method_is_refused():
    for method in registry().values():
        for variant, space in itertools.product(("paper", *method.variant_names()), method.actions):
            config = resolve(method, variant, space, [], {})
            assert type(config) is method.Config
            assert method.Config(**dataclasses.asdict(config)) == config


def test_a_variant_may_depend_on_the_kind_of_actions():
    def released(suite, task):
        (job,) = jobs(Request(suite, algorithms=["mac_flow"], tasks=[task], variant="released"))
        return job.config

    discrete, continuous = released("smac", "smac/3m:good"), released("continuous", "mpe/spread:expert")
    assert {discrete.joint_flow, continuous.joint_flow} == {False}
    found = [(c.hidden, c.discount, c.alpha, c.normalise_q, c.clip_teacher) for c in (discrete, continuous)]
    assert found == [((256,) * 4, 0.99, 3.0, False, False), ((512,) * 4, 0.995, 1.0, True, True)]
    with pytest.raises(UserError, match="did you mean 'released'"):
        only(variant="released:discrete")


def test_parsing_keeps_methods_apart():
    assert parse_overrides(["bc.batch_size=8", "all.hidden=[4]", "bc.discount=0.9"]) == {
        "bc": {"batch_size": 8, "discount": 0.9},
        "all": {"hidden": [4]},
    }


# Identity.


def test_the_run_id_differs_as_soon_as_anything_that_decides_the_result_does():
    base = only()
    others = [
        only("bc.discount=0.9"),
        only("bc.hidden=[64,128]"),
        only(variant="paper"),
        only(profile="smoke"),
        only(tasks=["smac/3m:poor"]),
        only(algorithm="macql"),
        only(seeds=[5]),
        dataclasses.replace(base, protocol=dataclasses.replace(base.protocol, steps=99)),
        dataclasses.replace(base, protocol=dataclasses.replace(base.protocol, eval_episodes=99)),
        dataclasses.replace(base, protocol=dataclasses.replace(base.protocol, data="00000000")),
    ]
    assert len({job.run_ids()[0] for job in [base, *others]}) == len(others) + 1


def test_the_run_id_of_a_seed_does_not_depend_on_the_seeds_beside_it():
    assert only(seeds=[0, 3]).run_ids()[1] == only(seeds=[3]).run_ids()[0]


def test_groups_of_seeds_have_keys_of_their_own():
    groups = [[0], [0, 1], [0, 2], [0, 1, 2], [1, 2]]
    assert len({only(seeds=group).key for group in groups}) == len(groups)


def test_a_jobs_cells_are_its_seeds():
    job = only(seeds=[4, 2])
    assert [cell.seed for cell in job.cells()] == [4, 2]
    assert {cell.dataset for cell in job.cells()} == {"smac/3m:good"}


# What is left to do.


def done(store, job, k, status="done"):
    store.write(job.cells()[k], {"run_id": job.run_ids()[k], "status": status})


def test_everything_is_pending_at_first(tmp_path):
    found = jobs(SMAC)
    assert pending(found, Store(tmp_path)) == found


def test_stored_seeds_are_not_pending(tmp_path):
    job, store = only(seeds=[0, 1, 2]), Store(tmp_path)
    done(store, job, 1)
    assert [left.seeds for left in pending([job], store)] == [(0, 2)]
    done(store, job, 0), done(store, job, 2)
    assert pending([job], store) == []


def test_another_setting_makes_a_stored_cell_pending_again(tmp_path):
    job, store = only(seeds=[0]), Store(tmp_path)
    done(store, job, 0)
    other = only("bc.discount=0.9", seeds=[0])
    assert pending([job, other], store) == [other]


def test_failed_cells_are_tried_again_unless_that_is_not_wanted(tmp_path):
    job, store = only(seeds=[0, 1]), Store(tmp_path)
    done(store, job, 0, "failed"), done(store, job, 1)
    assert [left.seeds for left in pending([job], store)] == [(0,)]
    assert pending([job], store, retry_failed=False) == []


def test_a_damaged_record_is_pending(tmp_path):
    job, store = only(seeds=[0, 1]), Store(tmp_path)
    done(store, job, 0), done(store, job, 1)
    (tmp_path / "runs" / job.run_ids()[1] / "run.json").write_text('{"status": "do')
    assert [left.seeds for left in pending([job], store)] == [(1,)]


# Names.


def test_a_known_name_passes():
    assert check_name("task", "smac/3m", ["smac/8m", "smac/3m"]) == "smac/3m"


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown task 'smac/3n': did you mean 'smac/3m'\? known: smac/8m, smac/3m"):
        check_name("task", "smac/3n", ["smac/8m", "smac/3m"])


def test_a_name_far_from_all_is_refused_with_all():
    with pytest.raises(UserError, match="unknown task 'qqqq': known: smac/3m") as refusal:
        check_name("task", "qqqq", ["smac/3m"])
    assert "did you mean" not in str(refusal.value)
