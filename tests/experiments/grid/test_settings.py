"""Where a method's settings come from, and which are refused."""

import dataclasses
import itertools

import pytest
from one_job import only

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid.config import parse_overrides, resolve
from offmarl.experiments.grid.jobs import Request, jobs
from offmarl.experiments.grid.suite import Suite, load_suite, suite_names


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


def test_settings_that_shrink_a_method_are_marked():
    def marked(suite, method, profile="quick"):
        return {key for j in jobs(Request(suite, profile, algorithms=[method])) for key in j.config.reduced()}

    search = {"search_steps", "search_actions", "search_elites"}
    assert {"hidden", "cql_actions"} | search <= marked("continuous", "omar")
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


@pytest.mark.parametrize("profile", ["quick", "standard"])
@pytest.mark.parametrize("suite", ["frontier_smac", "frontier_continuous", "om2p", "coordination"])
def test_no_method_waits_longer_for_its_targets_than_another(suite, profile):
    """Copied targets of MABCQ and MACQL once lagged 200 updates, as in the papers, where averaged ones had only 33."""
    for job in jobs(Request(suite, profile=profile)):
        copied = getattr(job.config, "target_period", 0) if tasks()[job.task].discrete else 0
        assert (copied or 1 / job.config.polyak) < 34, job.title


@pytest.mark.parametrize(("suite", "period"), [("smac", 33), ("continuous", 200)])
def test_a_profile_may_set_a_method_for_one_kind_of_actions(suite, period):
    assert {job.config.target_period for job in jobs(Request(suite, algorithms=["macql"]))} == {period}


def test_settings_come_from_defaults_then_profile_then_variant_then_the_command_line():
    def hidden(*overrides, profile="quick", variant=None):
        return only(*overrides, algorithm="mac_flow", profile=profile, variant=variant).config.hidden

    assert hidden(profile="paper") == registry()["mac_flow"].Config().hidden == (512,) * 4
    assert hidden() == (128,) * 2
    assert registry()["mac_flow"].variant("released", "discrete")["hidden"] == (256,) * 4
    assert hidden(profile="paper", variant="released") == (256,) * 4
    assert hidden(variant="released") == (128,) * 2  # `fixed` in this profile
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
        (job,) = jobs(Request(suite, "paper", algorithms=["mac_flow"], tasks=[task], variant="released"))
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
