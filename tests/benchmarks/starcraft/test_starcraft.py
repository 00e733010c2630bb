"""The adapter of the real StarCraft environments, on a stand-in: neither the game nor the packages are here."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from offmarl.benchmarks.starcraft import env as starcraft
from offmarl.benchmarks.starcraft.env import RESTARTS, StarCraftEnv, StarCraftError
from offmarl.benchmarks.starcraft.packages import PACKAGES, facts, missing
from offmarl.benchmarks.tasks import tasks


def real(name, **changes):
    task = tasks()[name]
    return replace(task, **{"engine": task.family, **changes})


OMIGA = dict(engine="smac_omiga", obs=478, state=1350)
STARCRAFT = [name for name, task in tasks().items() if task.family in ("smac", "smacv2")]


def stop(env):
    """The action that everybody may take."""
    return env.step(np.ones((env.lanes, env.task.agents), int))


def words(step, lane=0):
    flags = {"done": step.done, "timeout": step.timeout, "won": step.won, "void": step.void}
    return " ".join(name for name, flag in flags.items() if flag[lane])


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


def test_an_illegal_action_becomes_the_first_legal_one(make):
    env = make(real("smac/3m"))
    assert env.reset(np.array([1])).legal[0, :, 5].tolist() == [False, True, False]
    step = env.step(np.full((1, 3), 5))
    assert words(step) == ""
    assert step.reward[0] == pytest.approx(1 + (1 + 5 + 1) / 1000)


def test_a_seed_decides_teams_and_places_and_reaches_the_game(world, make):
    env = make(real("smacv2/zerg_5_vs_5"), 2)
    one, two, again = (env.reset(np.array(seeds)).state[:, 0] for seeds in ([11, 12], [12, 13], [11, 2**33 + 12]))
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


# Crashes.


@pytest.mark.parametrize(
    ("fault", "changes"),
    [("crash", {}), ("raise", {}), ("die", {}), ("hang", {}), ("crash", OMIGA)],
    ids=str,
)
def test_a_broken_game_makes_its_lane_void_and_the_next_reset_mends_it(world, make, monkeypatch, fault, changes):
    world.plan(faults={"1": [fault, 2]}, ends={"2": [4, 1], "4": [2, 1]})
    env = make(real("smac/2c_vs_64zg", **changes), 2)
    env.reset(np.array([1, 2]))
    before = stop(env)
    if fault == "hang":
        monkeypatch.setattr(starcraft, "STEP_SECONDS", 0.5)
    broken, after, last = (stop(env) for _ in range(3))
    assert [words(broken, lane) for lane in range(2)] == ["done void", ""]
    assert broken.reward[0] == 0 and broken.reward[1] > 0
    assert np.array_equal(broken.view.obs[0], before.view.obs[0])
    assert words(after) == "done void" and after.reward[0] == 0
    assert words(last, 1) == "done won"
    assert len(world.alive(wanted=2)) == 2  # the other lane and its game
    env.reset(np.array([3, 4]))
    assert words(stop(env)) == "" and words(stop(env), 1) == "done won"
    assert len({note["pid"] for note in world.notes("made")}) == 3
    assert len(world.notes("game")) == 3  # none was launched that nobody plays


def test_a_worker_killed_from_outside_takes_its_game_along(world, make):
    env = make(real("smac/3m"), 2)
    env.reset(np.array([1, 2]))
    one, two = sorted(world.notes("game"), key=lambda note: note["seed"])
    os.kill(one["pid"], signal.SIGKILL)
    step = stop(env)
    assert [words(step, lane) for lane in range(2)] == ["done void", ""]
    assert world.alive(wanted=2) == {two["pid"], two["game"]}


def test_a_game_that_breaks_at_the_start_is_started_again(world, make):
    world.plan(faults={"1": ["crash", 0]})
    env = make(real("smac/3m"))
    start = env._start
    env._start = lambda: (start(), world.plan())  # the second game is sound
    assert env.reset(np.array([1])).legal.any()
    assert len(world.notes("made")) == 2
    assert words(stop(env)) == ""


def test_a_lane_that_keeps_breaking_is_given_up(world, make):
    world.plan(faults={"1": ["raise", 0]})
    env = make(real("smac/3m"), 2)
    with pytest.raises(RuntimeError, match="lane 1 failed 4 times in a row.*ValueError: websocket broken") as error:
        env.reset(np.array([2, 1]))
    assert not isinstance(error.value, StarCraftError)
    assert len(world.notes("made")) == 2 + RESTARTS
    assert not world.alive(wanted=0)


def test_an_episode_that_ends_well_forgives_earlier_failures(world, make):
    world.plan(faults={"1": ["raise", 1]}, ends={"2": [1, 1]})
    env = make(real("smac/3m"))
    for seed in (1, 1, 1, 2, 1, 1, 1):
        env.reset(np.array([seed]))
        assert words(stop(env)) == ("done won" if seed == 2 else "done void")
    env.reset(np.array([1]))
    with pytest.raises(RuntimeError, match="4 times"):
        stop(env)


# What is missing.


def refusal(task, make):
    with pytest.raises(StarCraftError) as error:
        make(task)
    text = str(error.value)
    assert text.startswith(task.name) and text.endswith("offmarl doctor shows what is missing") and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("size", "value", "name"),
    [("obs_size", 33, "obs is 33.*should be 30"), ("episode_limit", 100, "limit is 100.*should be 60")],
)
def test_other_sizes_are_refused_once_and_for_all(world, make, size, value, name):
    world.plan(info={size: value})
    text = refusal(real("smac/3m"), make)
    assert re.search(name, text) and "pip install" in text
    assert len(world.notes("made")) == 1


def test_the_fork_is_not_taken_for_smac(make):
    assert "obs is 478" in refusal(real("smac/2c_vs_64zg", engine="smac_omiga"), make)


def test_a_game_that_lacks_files_is_not_tried_again(world, make):
    world.plan(faults={"1": ["lost", 0]})
    env = make(real("smac/3m"))
    with pytest.raises(StarCraftError, match="FileNotFoundError.*SC2.4.10.zip.*offmarl doctor"):
        env.reset(np.array([1]))
    assert len(world.notes("made")) == 1


def test_a_package_that_cannot_be_imported_is_reported(world, make):
    world.write(world.root / "packages/smac/env/__init__.py", "import absent_thing\n")
    text = refusal(real("smac/3m"), make)
    assert "No module named 'absent_thing'" in text and "oxwhirl/smac.git" in text


def test_automls_smac_is_recognised_without_importing_it(world, make):
    shutil.rmtree(world.root / "packages/smac")
    world.write(world.root / "packages/smac/__init__.py", "raise SystemExit('imported')\n")
    text = refusal(real("smac/3m"), make)
    assert "AutoML" in text and f"{sys.executable} -m pip uninstall -y smac && {sys.executable} -m pip install" in text
    assert "smac" not in facts("smac")
    assert missing("smacv2") == "" == missing("smac_omiga")


@pytest.mark.parametrize("engine", list(PACKAGES))
def test_what_is_missing_is_named_with_its_command(world, engine):
    assert missing(engine) == missing(engine, "3m") == ""
    name = PACKAGES[engine].module.split(".")[0]

    def lacks(folder, *parts):
        shutil.rmtree(folder)
        assert all(part in missing(engine) for part in parts), missing(engine)
        assert "\n" not in missing(engine)

    lacks(world.game / "Maps", "SC2Map", f"unzip -o maps.zip -d {world.game}/Maps")
    lacks(world.game / "Versions", "SC2PATH", "SC2.4.10.zip", "SC2Map")  # all at once
    lacks(world.root / "packages/pysc2", "pysc2", "pysc2==4.0.0", "SC2.4.10.zip", "SC2Map")
    lacks(world.root / "packages" / name, name, "pip install --no-deps", "git+https://github.com/")


def change(game, what, to):
    (game / what).rename(game / to)


ALMOST = {  # what pysc2 refuses, though it looks right; and what must be said
    "folder of maps": (lambda g: change(g, "Maps/SMAC_Maps", "Maps/smac_maps"), "mv {}/Maps/smac_maps/3m.SC2Map "),
    "maps": (lambda g: change(g, "Maps", "maps"), "mkdir -p {0}/Maps/SMAC_Maps && mv {0}/maps/SMAC_Maps/3m.SC2Map "),
    "map": (lambda g: change(g, "Maps/SMAC_Maps/3m.SC2Map", "Maps/SMAC_Maps/3M.sc2map"), "mv {}/Maps/SMAC_Maps/3M.sc2"),
    "too deep": (
        lambda g: (change(g, "Maps", "deep"), (g / "Maps").mkdir(), change(g, "deep", "Maps/SMAC_Maps")),
        "mv {}/Maps/SMAC_Maps/SMAC_Maps/3m.SC2Map {}/Maps/SMAC_Maps/3m.SC2Map",
    ),
    "no program": (lambda g: (g / "Versions/Base75689/SC2_x64").unlink(), "no {}/Versions/Base75689/SC2_x64"),
    "an empty newer one": (lambda g: (g / "Versions/Base99999").mkdir(), "no {}/Versions/Base99999/SC2_x64"),
    "not executable": (
        lambda g: (g / "Versions/Base75689/SC2_x64").chmod(0o644),
        "chmod +x {}/Versions/Base75689/SC2_x64",
    ),
    "a copy": (lambda g: (g / "Versions/Base75689x").mkdir(), "{}/Versions/Base75689x is no version"),
    "too old": (lambda g: shutil.rmtree(g / "Versions/Base75689"), "{}/Versions/Base09999 is older than 3.16.1"),
}


@pytest.mark.parametrize("what", ALMOST)
def test_what_pysc2_refuses_is_missing(world, what):
    spoil, said = ALMOST[what]
    spoil(world.game)
    text = missing("smac", "3m")
    assert said.format(world.game, world.game) in text and "\n" not in text and "~" not in text


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


def test_a_released_environment_starts_its_games_again(world, make):
    env = make(real("smac/3m"), 2)
    env.reset(np.array([1, 2]))
    env.release()
    assert not world.alive(wanted=0)
    assert env.reset(np.array([1, 2])).legal.any()
    assert len(world.alive(wanted=4)) == 4


def test_a_single_map_can_be_missing(world, make):
    (world.game / "Maps/SMAC_Maps/8m.SC2Map").unlink()
    assert f"no {world.game}/Maps/SMAC_Maps/8m.SC2Map: " in refusal(real("smac/8m"), make)
    assert missing("smac", "3m") == "" == missing("smac")


def test_without_sc2path_the_home_folder_is_looked_into(world, make, monkeypatch):
    monkeypatch.delenv("SC2PATH")
    monkeypatch.setenv("HOME", str(world.root))
    assert missing("smac") == ""
    monkeypatch.setenv("HOME", str(world.root / "elsewhere"))
    assert "SC2PATH is not set" in refusal(real("smac/3m"), make)


def test_facts_are_versions_and_the_newest_build(world):
    assert facts("smac") == {"starcraft": "Base75689"}
    packages = world.root / "packages"
    world.write(packages / "SMAC-1.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: SMAC\nVersion: 1.0.0\n")
    commit = json.dumps({"url": "https://github.com/oxwhirl/smac.git", "vcs_info": {"commit_id": "d6aab33f76ab"}})
    world.write(packages / "SMAC-1.0.0.dist-info/direct_url.json", commit)
    world.write(packages / "pysc2-4.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: PySC2\nVersion: 4.0.0\n")
    assert facts("smac") == {"smac": "1.0.0 d6aab33f", "pysc2": "4.0.0", "starcraft": "Base75689"}
    assert facts("smacv2") == {"pysc2": "4.0.0", "starcraft": "Base75689"}
    shutil.rmtree(world.game)
    assert facts("smacv2") == {"pysc2": "4.0.0"}


# No process is left.


def test_close_ends_workers_and_games_and_may_be_called_twice(world):
    env = StarCraftEnv(real("smac/3m"), 2)
    env.reset(np.array([1, 2]))
    assert len(world.alive()) == 4
    env.close()
    assert not world.alive(wanted=0)
    env.close()


def test_an_environment_nobody_holds_ends_its_processes(world):
    env = StarCraftEnv(real("smac/3m"), 1)
    env.reset(np.array([1]))
    del env
    gc.collect()
    assert not world.alive(wanted=0)


KILL = "os.kill(os.getpid(), signal.SIGKILL)"
LATER = f"signal.setitimer(signal.ITIMER_REAL, 1); signal.signal(signal.SIGALRM, lambda *_: {KILL})"
HANG = f"{LATER}; env.step(np.ones((1, 3), int))"


@pytest.mark.parametrize(
    "end",
    [
        "",
        KILL,
        HANG,
    ],
    ids=["exit", "kill -9", "kill -9 while the game hangs"],
)
def test_processes_end_with_the_interpreter(world, end):
    world.plan(faults={"1": ["hang", 1]})
    script = (
        "import os, signal, numpy as np\nfrom dataclasses import replace\nfrom offmarl.benchmarks.tasks import tasks\n"
        "from offmarl.benchmarks.starcraft.env import StarCraftEnv\n"
        "if __name__ == '__main__':\n"
        "    env = StarCraftEnv(replace(tasks()['smac/3m'], engine='smac'), 1)\n"
        f"    env.reset(np.array([1]))\n    {end or 'pass'}\n"
    )
    world.write(world.root / "script.py", script)
    path = os.pathsep.join([str(world.root / "packages"), os.environ.get("PYTHONPATH", "")])
    surroundings = os.environ | {"PYTHONPATH": path, "TMPDIR": str(world.root / "scratch")}
    ended = subprocess.run([sys.executable, world.root / "script.py"], env=surroundings)
    assert ended.returncode == (-9 if end else 0)
    assert len(world.notes("game")) == 1
    assert not world.alive(wanted=0) and len(world.notes("made")) == 1  # and the fixture sees that no folder is left
