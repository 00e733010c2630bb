"""What the user's shell says must not change recordings, and not end a command."""

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from offmarl.benchmarks.env import cache_dir
from offmarl.experiments.cli import main
from offmarl.experiments.environment import LISTS, PATHS, SCRATCH, settle


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """An environment of its own, restored afterwards, in a folder of its own."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", [*PATHS, *SCRATCH])
def test_relative_paths_become_absolute_and_empty_ones_are_not_set(shell, name, tmp_path):
    shell[name] = "mine"
    settle()
    assert shell[name] == str(tmp_path / "mine")
    shell[name] = " "
    settle()
    assert name not in shell


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_paths_become_absolute(shell, name, tmp_path):
    shell[name] = os.pathsep.join(["a.py", "", "/b.py", "~/c.py"])
    settle()
    assert shell[name].split(os.pathsep) == [str(tmp_path / "a.py"), "/b.py", str(Path("~/c.py").expanduser())]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_ENABLE_X64", "1"),
        ("JAX_DEFAULT_PRNG_IMPL", "rbg"),
        ("JAX_THREEFRY_PARTITIONABLE", "0"),
        ("JAX_NUMPY_DTYPE_PROMOTION", "strict"),
        ("JAX_DEBUG_NANS", "1"),
        ("JAX_DISABLE_JIT", "1"),
        ("MUJOCO_GL", "osmesa"),
        ("XLA_FLAGS", "--xla_of_another_version=1"),
        ("NVIDIA_TF32_OVERRIDE", "1"),
    ],
)
def test_settings_that_change_or_break_a_simulator_are_removed(shell, name, value):
    shell[name] = value
    settle()
    assert name not in shell


def test_simulators_stay_on_the_cpu_and_figures_off_the_screen(shell):
    shell.update(JAX_PLATFORMS="cuda", MPLBACKEND="module://matplotlib_inline.backend_inline")
    settle()
    assert (shell["JAX_PLATFORMS"], shell["MPLBACKEND"]) == ("cpu", "agg")


# Containers.


@pytest.fixture
def nobody(shell, monkeypatch):
    """A user id that is in no list, without HOME."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "OFFMARL_CACHE"):
        shell.pop(name, None)
    return shell


def test_an_unknown_user_needs_a_named_cache_and_no_home(nobody, tmp_path):
    nobody["OFFMARL_CACHE"] = "mine"
    settle()
    assert cache_dir() == tmp_path / "mine" == Path.home()
    assert getpass.getuser() == str(os.getuid())


def test_without_home_and_cache_one_line_says_what_to_set(nobody, capsys):
    assert main(["run", "--suite", "smac", "--tasks", "smac/3m", "--algorithms", "bc"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "export OFFMARL_CACHE=/a/folder" in line


@pytest.mark.parametrize("name", ["OFFMARL_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_an_empty_folder_is_no_folder_here(shell, name, tmp_path):
    for other in ("OFFMARL_CACHE", "XDG_CACHE_HOME"):
        shell.pop(other, None)
    shell[name] = ""
    assert not cache_dir().is_relative_to(tmp_path) or name == "HOME"
    settle()
    assert cache_dir().is_absolute() and not cache_dir().is_relative_to(tmp_path)


@pytest.mark.parametrize("cache", ["/proc/nothing", "/dev/null/cache"])
def test_a_cache_that_cannot_be_written_is_refused_before_the_work(shell, capsys, cache, tmp_path):
    shell["OFFMARL_CACHE"] = cache
    words = ["run", "--suite", "smac", "--tasks", "smac/3m:good", "--algorithms", "bc", "--results", "results"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert cache in line and "not writable" in line
    assert not list((tmp_path / "results").iterdir())


def test_text_that_the_locale_cannot_show_is_escaped(tmp_path):
    place = tmp_path / "Ergebnisse für Ökonomen"
    call = [sys.executable, "-m", "offmarl.experiments.cli", "status", "--results", place]
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(call, env=os.environ | odd, capture_output=True)
    assert done.returncode == 2 and b"no such directory" in done.stderr and b"Traceback" not in done.stderr


# Without `settle`, as in a worker on another node or in somebody's program.
DIRECT = """
from offmarl.benchmarks.fingerprint import reference
from offmarl.benchmarks.tasks import tasks
print(reference(tasks()["smac/3m"])["rollout"])
"""
JAXES = {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0", "JAX_PLATFORMS": "x"}
JAXES |= {"JAX_RANDOM_SEED_OFFSET": "5", "JAX_ENABLE_CUSTOM_PRNG": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
JAXES |= {"JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_LEGACY_PRNG_KEY": "error", "JAX_DISABLE_JIT": "1"}


def test_the_simulator_pins_what_its_episodes_depend_on(marines):
    from offmarl.benchmarks.fingerprint import reference

    call = [sys.executable, "-c", DIRECT]
    odd = subprocess.run(call, env=os.environ | JAXES, capture_output=True, text=True, check=True).stdout
    assert odd.strip() == reference(marines)["rollout"]


# Under each of these a report, an evaluation or a recording broke, or recorded other episodes under the same key.
SHELLS = {
    "a notebook's": {"MPLBACKEND": "module://no_such_backend", "JAX_PLATFORMS": "cuda"},
    "one with other random numbers": {"JAX_ENABLE_X64": "1", "JAX_DEFAULT_PRNG_IMPL": "rbg", "XLA_FLAGS": "--x=1"},
}
PLAY = """
import sys
from offmarl.experiments.environment import settle
settle()
import matplotlib.figure
from offmarl.benchmarks.fingerprint import reference
from offmarl.benchmarks.tasks import tasks
print(*[reference(tasks()[name])["rollout"] for name in sys.argv[1:]])
"""


def played(shell):
    call = [sys.executable, "-c", PLAY, "smac/3m", "mamujoco/3hopper"]
    return subprocess.run(call, env={**os.environ, **shell}, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(scope="module")
def played_plainly():
    return played({})


@pytest.mark.parametrize("shell_of", SHELLS)
def test_the_same_is_played_whatever_the_shell_says(shell_of, played_plainly):
    assert len(played_plainly) == 2 and played(SHELLS[shell_of]) == played_plainly
