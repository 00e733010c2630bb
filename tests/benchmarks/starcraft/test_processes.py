"""Games that crash, hang or are killed, and that no process of StarCraft is left."""

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from starcraft_tasks import OMIGA, real, stop, words

from offmarl.benchmarks.starcraft import env as starcraft
from offmarl.benchmarks.starcraft.env import RESTARTS, StarCraftEnv, StarCraftError

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
        sound, answer = env._workers[1], env._workers[1].answer
        monkeypatch.setattr(sound, "answer", lambda deadline: answer(deadline + 60))
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_killed_from_outside_takes_its_game_along(world, make, number):
    env = make(real("smac/3m"), 2)
    env.reset(np.array([1, 2]))
    one, two = sorted(world.notes("game"), key=lambda note: note["seed"])
    os.kill(one["pid"], number)
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


def test_a_released_environment_starts_its_games_again(world, make):
    env = make(real("smac/3m"), 2)
    env.reset(np.array([1, 2]))
    env.release()
    assert not world.alive(wanted=0)
    assert env.reset(np.array([1, 2])).legal.any()
    assert len(world.alive(wanted=4)) == 4


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


def test_folders_of_trainers_killed_with_their_games_are_cleared_and_others_kept(world, make):
    """Ray kills an actor and all its children at once, so that no process is left to clear up."""
    scratch = world.root / "scratch"
    folders = {name: scratch / f"offmarl-game-{name}" for name in ("abandoned", "held", "new")}
    for folder in folders.values():
        (folder / "sc-files").mkdir(parents=True)
    for name in ("abandoned", "held"):
        os.utime(folders[name], (0, 0))
    held = os.open(folders["held"], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    make(real("smac/3m"))
    assert {name for name, folder in folders.items() if folder.exists()} == {"held", "new"}
    os.close(held)
    for name in ("held", "new"):
        shutil.rmtree(folders[name])
