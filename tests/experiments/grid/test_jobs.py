"""From suite, profile and command line to jobs."""

import dataclasses

import pytest
from one_job import only

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.jobs import Request, jobs, pending
from offmarl.experiments.grid.suite import load_suite, profiles, suite_names
from offmarl.experiments.store.store import Store

SMAC = Request("smac")


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


@pytest.mark.parametrize("name", profiles())
def test_a_job_takes_steps_and_seeds_from_its_profile(name):
    own = load_suite("smac").profiles.get(name)
    facts = profiles()[name].model_dump() | (own.model_dump(exclude_unset=True) if own else {})
    job = only(profile=name)
    assert list(job.seeds) == facts["seeds"]
    for key in ("steps", "eval_episodes"):
        assert getattr(job.protocol, key) == facts[key]
    assert job.protocol.eval_every == (facts["eval_every"] or facts["steps"] // facts["looks"])
    assert (job.profile, job.variant) == (name, facts["variant"])


def test_a_profile_may_give_some_methods_steps_of_their_own():
    own = profiles()["quick"].own_steps
    found = {job.algorithm: job for job in jobs(Request("smac", algorithms=["madiff_d", "mac_flow"]))}
    assert found["madiff_d"].protocol.steps == found["madiff_d"].config.decay_steps == own["madiff_d"]
    assert found["mac_flow"].protocol.steps == profiles()["quick"].steps != own["madiff_d"]
    assert {j.protocol.steps for j in jobs(Request("smac", "paper")) if j.algorithm not in ("dof", "madiff_d")} == {
        10**6
    }


def test_a_profile_may_give_all_other_methods_more_steps_on_a_task():
    hopper = {job.algorithm: job for job in jobs(Request("continuous", "standard", tasks=["mamujoco/3hopper:expert"]))}
    steps = {name: job.protocol.steps for name, job in hopper.items()}
    assert steps.pop("madiff_d") == 1500 and set(steps.values()) == {10000}
    assert {job.config.decay_steps - job.protocol.steps for job in hopper.values()} == {0}
    assert {job.protocol.eval_every for name, job in hopper.items() if name != "madiff_d"} == {2500}


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


def test_the_paper_profile_is_the_papers_protocol():
    job = only(profile="paper", algorithm="mac_flow")
    assert (job.protocol.steps, job.protocol.eval_episodes, job.seeds) == (10**6, 10, (0, 1, 2, 3, 4, 5))
    assert job.config == registry()["mac_flow"].Config()


def test_seeds_of_the_command_line_replace_the_profiles():
    assert only(seeds=[7, 9]).seeds == (7, 9)


def test_the_protocol_knows_the_data():
    assert only().protocol.data == catalogue()["smac/3m", "good"].key()


def test_the_suite_decides_how_the_trained_networks_are_played():
    assert {job.protocol.plays for job in jobs(SMAC)} == {("own", "zero")}


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
    assert {(cell.task, cell.quality) for cell in job.cells()} == {("smac/3m", "good")}


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
