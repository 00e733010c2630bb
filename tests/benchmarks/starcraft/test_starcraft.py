"""The adapter of the real StarCraft environments, on a stand-in: what is seen, and what the packages are told."""

import json
import os
import sys
from copy import deepcopy

import numpy as np
import pytest
from starcraft_tasks import OMIGA, real, stop, words

from offmarl.benchmarks.starcraft import env as starcraft
from offmarl.benchmarks.starcraft.packages import PACKAGES
from offmarl.benchmarks.tasks import tasks

STARCRAFT = [name for name, task in tasks().items() if task.family in ("smac", "smacv2")]


# What is seen, and how episodes end.


@pytest.mark.parametrize("task", [*map(real, STARCRAFT), real("smac/2c_vs_64zg", **OMIGA)], ids=lambda t: t.name)
def test_views_have_the_sizes_of_the_task(make, task):
    env = make(task)
    first = env.reset(np.array([1]))
    step = stop(env)
    for view in (first, step.view):
        assert view.obs.shape == (1, task.agents, task.obs)
        assert view.state.shape == (1, task.state)
        assert view.legal.shape == (1, task.agents, task.actions)
        assert (view.obs.dtype, view.state.dtype, view.legal.dtype) == (np.float32, np.float32, bool)
    assert step.reward.shape == (1,) and step.reward.dtype == np.float32
    assert np.array_equal(step.view.obs[0, :, 0], np.float32(1 + np.arange(task.agents) / 100))
    assert not step.view.legal[0, :, 0].any() and step.view.legal[0, :, 1].all()
    assert words(step) == ""
    if task.engine == "smac_omiga":  # the states of the agents one after another
        assert np.array_equal(step.view.state[0, [0, 674, 675, 1349]], np.float32([1, 1, 1.1, 1.1]))


@pytest.mark.parametrize("task", [real("smac/3m"), real("smac/2c_vs_64zg", **OMIGA)], ids=lambda t: t.engine)
def test_episodes_end_by_victory_defeat_or_the_clock_and_then_stand_still(world, make, task):
    world.plan(ends={"1": [3, 1], "2": [5, -1], "3": [task.limit, -1]})
    env = make(task, 4)
    env.reset(np.array([1, 2, 3, 4]))
    steps = [stop(env) for _ in range(task.limit + 1)]
    ends = [np.argmax([step.done[lane] for step in steps]) + 1 for lane in range(4)]
    assert ends == [3, 5, task.limit, task.limit]
    assert [words(steps[-1], lane) for lane in range(4)] == ["done won", "done", "done", "done timeout"]
    assert [words(steps[1], lane) for lane in range(4)] == [""] * 4
    assert steps[2].reward[0] == pytest.approx(3 + task.agents / 1000)
    for lane, end in enumerate(ends):
        assert not any(step.reward[lane] or not step.done[lane] for step in steps[end:])
        assert all(np.array_equal(step.view.obs[lane], steps[end - 1].view.obs[lane]) for step in steps[end:])
    env.reset(np.array([5, 6, 7, 8]))
    assert [words(stop(env), lane) for lane in range(4)] == [""] * 4
    assert len(world.notes("game")) == 4  # none was launched for the second episode


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_lane_has_a_seed_and_every_seed_a_lane(make, seeds):
    with pytest.raises(ValueError, match="zip"):
        make(real("smac/3m"), 2).reset(np.arange(seeds))


def test_an_illegal_action_becomes_the_first_legal_one(make):
    env = make(real("smac/3m"))
    assert env.reset(np.array([1])).legal[0, :, 5].tolist() == [False, True, False]
    step = env.step(np.full((1, 3), 5))
    assert words(step) == ""
    assert step.reward[0] == pytest.approx(1 + (1 + 5 + 1) / 1000)


def test_a_seed_decides_teams_and_places_and_reaches_the_game(world, make):
    env = make(real("smacv2/zerg_5_vs_5"), 2)
    one, two, again = (env.reset(np.array(seeds)).state[:, 0] for seeds in ([11, 12], [12, 13], [11, 2**31 + 12]))
    assert one[1] == two[0] and np.array_equal(one, again)
    assert len({*one, *two}) == 3
    assert {note["seed"] for note in world.notes("game")[:2]} == {11, 12}


def test_two_packages_play_at_once_and_none_is_imported_here(world, make, monkeypatch):
    monkeypatch.delenv(starcraft.PROTOBUF, raising=False)
    before = set(sys.modules)
    envs = [make(real("smac/3m")), make(real("smacv2/terran_10_vs_10"))]
    for env in envs:
        env.reset(np.array([1]))
    assert [stop(env).view.obs.shape for env in envs] == [(1, 3, 30), (1, 10, 162)]
    assert {note["protobuf"] for note in world.notes("made")} == {"python"}
    assert starcraft.PROTOBUF not in os.environ
    assert os.getpid() not in {note["pid"] for note in world.notes("made")}
    roots = {name.split(".")[0] for name in set(sys.modules) - before}
    assert not roots & {"smac", "smacv2", "og_marl", "pysc2", "google"}


def test_a_suite_on_public_data_is_evaluated_in_the_game_wave_by_wave(world, tmp_path, monkeypatch, capsys):
    """The vault is real, the game a stand-in: two seeds, so two games at once, and one that crashes on the way."""
    import bench_readers

    from offmarl.benchmarks.rollout import lane_seeds
    from offmarl.datasets.public.releases import catalogue
    from offmarl.experiments.cli import main

    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path / "cache"))
    entry = catalogue("og_marl")["smac/3m", "good"]
    bench_readers.write_vault(entry.paths()[0], bench_readers.synthetic(entry.task, 500))
    first, second, third = map(str, lane_seeds([0], 3).tolist())
    world.plan(ends={first: [5, 1], third: [7, -1]}, faults={second: ["raise", 3]})
    run = ["run", "--suite", "smac", "--source", "og_marl", "--profile", "smoke", "--tasks", "smac/3m:good"]
    small = ["--algorithms", "bc", "--seeds", "0,1", "--jobs", "1", "--set", "all.hidden=[16]"]
    assert main([*run, *small, "--results", str(tmp_path / "results")]) == 0
    records = [json.loads(file.read_text()) for file in (tmp_path / "results/runs").glob("*/run.json")]
    (one,) = [record for record in records if record["cell"]["seed"] == 0]
    played = one["evaluations"][-1]
    assert played["lengths"][:3] == [5, 7, 60] and played["won"][:2] == [True, False]
    assert len(list((tmp_path / "results/runs" / one["run_id"]).glob("*.replay"))) == 6  # three of each play
    assert len(played["returns"]) == len(records[1]["evaluations"][-1]["returns"]) == 32
    assert one["engine"]["engine"] == "SMAC" and one["engine"]["starcraft"] == "Base75689"
    crashes = len(one["evaluations"])  # the second episode of each
    steps = len({row["step"] for row in one["evaluations"]})
    assert len(world.notes("made")) == 2 * steps + crashes  # games are released between evaluations
    assert "re-run on SMAC" in capsys.readouterr().out

    world.plan(ends={first: [6, 1]})  # the game's chance
    stored = ["--results", str(tmp_path / "results")]
    assert main(["rerun", one["run_id"], *stored]) == 0
    said = capsys.readouterr().out
    assert "returns: not judged" in said and "weights: the same bit for bit" in said
    monkeypatch.delenv("SC2PATH")
    monkeypatch.delenv("OFFMARL_DATA")
    assert main(["verify", *stored]) == 0
    assert "unavailable here, so not compared" in capsys.readouterr().out


# What the packages are told.


@pytest.mark.parametrize(
    ("name", "race", "size", "units", "exception"),
    [
        ("terran_5_vs_5", "terran", 5, {"marine": 0.45, "marauder": 0.45, "medivac": 0.1}, "medivac"),
        ("zerg_5_vs_5", "zerg", 5, {"zergling": 0.45, "hydralisk": 0.45, "baneling": 0.1}, "baneling"),
        ("terran_10_vs_10", "terran", 10, {"marine": 0.45, "marauder": 0.45, "medivac": 0.1}, "medivac"),
    ],
)
def test_smacv2_is_given_its_official_settings(name, race, size, units, exception):
    task = real(f"smacv2/{name}")
    roster, given = deepcopy(task.roster), PACKAGES["smacv2"].options(task)
    config = given.pop("capability_config")
    team = config["team_gen"]
    assert dict(zip(team.pop("unit_types"), team.pop("weights"))) == units
    assert team == {"dist_type": "weighted_teams", "exception_unit_types": [exception], "observe": True}
    places = {"dist_type": "surrounded_and_reflect", "p": 0.5, "n_enemies": size, "map_x": 32, "map_y": 32}
    assert config == {"n_units": size, "n_enemies": size, "team_gen": team, "start_positions": places}
    flags = dict(debug=False, conic_fov=False, obs_own_pos=True, use_unit_ranges=True, min_attack_range=2)
    assert given == {"map_name": f"10gen_{race}", **flags}
    config["team_gen"].clear()  # as the wrapper writes into it
    assert PACKAGES["smacv2"].options(task)["capability_config"]["team_gen"] and task.roster == roster


def test_omigas_smac_is_given_the_settings_of_its_data(world, make):
    make(real("smac/2c_vs_64zg", **OMIGA))
    (note,) = world.notes("made")
    assert note["map"] == "2c_vs_64zg"
    on = {name for name, value in note["made"].items() if value is True}
    assert on == {"add_agent_id", "use_state_agent", "use_mustalive", "add_center_xy"}
    assert note["made"].pop("stacked_frames") == 1
    assert len(note["made"]) == 12


def test_the_callers_variables_do_not_reach_the_game(world, make, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", ".example.org")
    monkeypatch.setenv(starcraft.PROTOBUF, "cpp")
    monkeypatch.setenv("HOME", str(world.root))
    before = dict(os.environ)
    for place in ("", "StarCraftII", "~/StarCraftII", f"{world.game}/"):
        monkeypatch.setenv("SC2PATH", place)
        env = make(real("smac/3m"))
        assert env.reset(np.array([1])).legal.any()
    assert dict(os.environ) == before | {"SC2PATH": place}


@pytest.mark.parametrize("task", [real("smac/3m"), real("smac/2c_vs_64zg", **OMIGA)], ids=lambda t: t.engine)
@pytest.mark.parametrize(("late", "resets"), [(0, 1), (2, 1), (0, 3)])
def test_the_rewards_scale_counts_every_enemy_once(world, make, task, late, resets):
    world.plan(late=late)
    env = make(task)
    for seed in range(resets):
        env.reset(np.array([seed]))
    stop(env)
    enemies = task.actions - 6
    assert world.notes("scale")[-1]["scale"] == 200 + enemies * (10 + 50)
    assert len(world.alive()) == 2  # the worker and one game
