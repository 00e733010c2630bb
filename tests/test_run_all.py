"""run_all.sh as people start it: from odd folders and shells, on half-made and moved environments.

Python and pip are a stand-in that writes down what it was called with and fails where it is told to; what pip downloads
is not run here.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu torch"
STAND_IN = r"""#!/usr/bin/env bash
here="$(cd "$(dirname "$0")/.." 2>/dev/null && pwd)"
echo "$* | $(env | grep -E '^(PIP_|PYTHONPATH|CDPATH)' | tr '\n' ' ')" >>"$LOG"
case "$*" in
    *ensurepip*) exit "${NO_VENV:-0}" ;;
    *'find_spec("pip")'*) [ -e "$here/pip" ] ;;
    *'find_spec("torch")'*) [ -e "$here/torch" ] ;;
    --version) echo "Python 3.12.0" ;;
    "-m venv --clear "*)
        folder="$4"
        rm -rf "$folder" && mkdir -p "$folder/bin" "$folder/lib" && touch "$folder/pip" && cp "$0" "$folder/bin/python"
        printf '#!/usr/bin/env bash\necho "offmarl $*"\n' >"$folder/bin/offmarl" && chmod +x "$folder/bin/offmarl"
        [ -z "${HALF_VENV:-}" ] || { rm "$folder/pip"; exit 1; } ;;
    "-m pip "*torch*) exit "${NO_TORCH:-0}" ;;
    "-m pip "*) exit "${NO_PIP:-0}" ;;
esac
"""


class Clone:
    """A clone with the script alone, and the stand-in for Python."""

    def __init__(self, base):
        self.base, self.folder, self.log = base, base / "Ordner mit Ümlaut" / "clone", base / "calls"
        self.folder.mkdir(parents=True)
        for name in ("run_all.sh", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, self.folder)
        self.python = base / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        tools = base / "bin"  # no nvidia-smi among them
        tools.mkdir()
        names = "bash sh env grep tr rm mkdir touch cp mv cat cksum dirname readlink uname chmod sed"
        for name in names.split():
            (tools / name).symlink_to(shutil.which(name))
        self.tools = tools

    def run(self, *words, call=("./run_all.sh",), cwd=None, **settings):
        settings = {"PATH": str(self.tools), "LOG": str(self.log), "PYTHON": str(self.python), "HOME": "/", **settings}
        self.log.write_text("")
        return subprocess.run([*call, *words], cwd=cwd or self.folder, env=settings, capture_output=True, text=True)

    @property
    def calls(self):
        return self.log.read_text().splitlines()

    @property
    def made_anew(self):
        return any("-m venv" in line for line in self.calls)


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_the_first_call_sets_up_and_the_second_does_not(clone):
    first = clone.run("--suite", "smac")
    assert (first.returncode, first.stdout) == (0, "offmarl run --suite smac\n")
    assert clone.made_anew and any("--editable" in line for line in clone.calls)
    second = clone.run("report", "--suite", "smac")
    assert (second.returncode, second.stdout) == (0, "offmarl report --suite smac\n")
    assert not any("-m pip" in line or "-m venv" in line for line in clone.calls)


def test_a_moved_clone_makes_its_environment_anew(clone):
    clone.run("doctor")
    moved = clone.folder.rename(clone.base / "elsewhere")
    done = clone.run("doctor", cwd=moved)
    assert (done.returncode, done.stdout) == (0, "offmarl doctor\n")
    assert clone.made_anew


@pytest.mark.parametrize("lost", ["pip", "bin/python", "home"])
def test_an_environment_that_lost_a_part_is_made_anew(clone, lost):
    clone.run("doctor")
    (clone.folder / ".venv" / lost).unlink()
    assert clone.run("doctor").returncode == 0
    assert clone.made_anew


def test_half_an_environment_is_said_and_mended_by_the_same_command(clone):
    half = clone.run("doctor", HALF_VENV="1")
    assert half.returncode == 2 and half.stderr.splitlines()[-1].startswith("run_all.sh: ")
    assert clone.run("doctor").stdout == "offmarl doctor\n"


def test_a_failed_installation_is_said_and_tried_again(clone):
    failed = clone.run("doctor", NO_PIP="1")
    assert failed.returncode == 2 and "the same command tries again" in failed.stderr.splitlines()[-1]
    assert clone.run("doctor").returncode == 0
    assert any("--editable" in line for line in clone.calls)


def test_without_venv_the_package_to_install_is_named(clone):
    refused = clone.run("doctor", NO_VENV="1")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "python3-venv" in line and not (clone.folder / ".venv").exists()


def test_what_the_callers_shell_says_of_python_and_pip_stays_outside(clone):
    (clone.base / "run_all.sh").mkdir()
    foreign = {"CDPATH": str(clone.base), "PIP_USER": "1", "PIP_TARGET": "/nowhere", "PYTHONPATH": "/nowhere"}
    foreign |= {"PIP_DRY_RUN": "1", "PIP_REQUIRE_HASHES": "1"}
    done = clone.run("doctor", call=("bash", "run_all.sh"), PIP_INDEX_URL="https://mirror", **foreign)
    assert (done.returncode, done.stdout) == (0, "offmarl doctor\n")
    (install,) = [line for line in clone.calls if "--editable" in line]
    kept = ["PIP_INDEX_URL=https://mirror", "PIP_REQUIRE_HASHES=0", "PIP_USER=0"]
    assert sorted(install.partition(" | ")[2].split()) == kept


def test_it_runs_through_a_link_and_under_sh(clone):
    link = clone.base / "link"
    link.symlink_to(clone.folder / "run_all.sh")
    assert clone.run("doctor", call=(str(link),), cwd="/").stdout == "offmarl doctor\n"
    assert (clone.folder / ".venv").is_dir()
    assert clone.run("doctor", call=("sh", "run_all.sh")).stdout == "offmarl doctor\n"


@pytest.mark.parametrize(("choice", "cpu"), [({}, True), ({"TORCH": "cpu"}, True), ({"TORCH": "cuda"}, False)])
def test_without_an_nvidia_driver_pip_is_asked_for_the_cpu_build_of_torch(clone, choice, cpu):
    if not choice and Path("/proc/driver/nvidia/version").exists():
        cpu = False
    done = clone.run("doctor", **choice)
    assert done.returncode == 0
    assert any(CPU_INDEX in line for line in clone.calls) == cpu
    assert ("CPU build" in done.stderr) == cpu


def test_a_driver_takes_the_usual_build(clone):
    (clone.tools / "nvidia-smi").symlink_to(shutil.which("true") or "/bin/true")
    clone.run("doctor")
    assert not any(CPU_INDEX in line for line in clone.calls)


def test_where_the_cpu_build_cannot_be_had_the_set_up_goes_on(clone):
    done = clone.run("doctor", TORCH="cpu", NO_TORCH="1")
    assert (done.returncode, done.stdout) == (0, "offmarl doctor\n")
    assert "going on with the default one" in done.stderr


def test_an_unknown_build_is_refused(clone):
    refused = clone.run("doctor", TORCH="tpu")
    assert refused.returncode == 2 and "TORCH=tpu: write cpu or cuda" in refused.stderr


def test_scripts_keep_their_line_ends_wherever_they_are_checked_out():
    said = subprocess.run(
        ["git", "check-attr", "eol", "run_all.sh", ".ci/run"], cwd=ROOT, capture_output=True, text=True
    )
    if said.returncode:  # not a checkout
        assert b"\r" not in (ROOT / "run_all.sh").read_bytes()
        return
    assert [line.rsplit(": ", 1)[1] for line in said.stdout.splitlines()] == ["lf", "lf"]
    assert os.access(ROOT / "run_all.sh", os.X_OK)
