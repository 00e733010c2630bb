"""`offmarl doctor` on what is here, and on stand-ins for what may be here."""

import shutil
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from miniature_data import hopper

from offmarl.datasets.catalogue import SOURCES, catalogue
from offmarl.experiments.cli import main
from offmarl.experiments.commands import doctor


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """No game, no prey, no public data."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    for name in ("SC2PATH", "OFFMARL_PREY"):
        monkeypatch.delenv(name, raising=False)


MAPS = ("Maps/SMAC_Maps/3m.SC2Map", "Maps/SMAC_Maps/32x32_flat.SC2Map")


def run(capsys):
    """Exit code and lines of the command."""
    return main(["doctor"]), capsys.readouterr().out.splitlines()


def check(name, section=""):
    """The one item of that name."""
    (item,) = [item for item in doctor.examine() if item.name == name and section in item.section]
    return item


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
        (root / name).chmod(0o755)


def install(root, monkeypatch, name, version, *files):
    """A distribution as pip leaves it."""
    write(root, f"{name}/__init__.py", *files)
    folder = root / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if str(root) not in sys.path:
        monkeypatch.syspath_prepend(root)


def require(monkeypatch, *more):
    """Have offmarl depend on more."""
    before = metadata.requires("offmarl")
    monkeypatch.setattr(metadata, "requires", lambda name: [*before, *more])


def test_here_every_package_is_fine_and_the_embedded_default_can_run(capsys):
    items = doctor.examine()
    names = [item.name for item in items if item.section == "Python and packages"]
    assert names[0] == "Python" and len(names) == 1 + sum("extra" not in text for text in metadata.requires("offmarl"))
    assert {item.state for item in items if item.name in names} == {"ok"}
    assert check("numpy>=2.0").found == metadata.version("numpy")
    code, shown = run(capsys)
    assert code == 0
    assert f"  ok  embedded{' ' * 19}ready" in "\n".join(shown)


def test_lines_stand_in_columns_under_their_sections(capsys):
    items, (_, shown) = doctor.examine(), run(capsys)
    assert [line for line in shown if not line.startswith(" ")] == list(dict.fromkeys(item.section for item in items))
    rows = [line for line in shown if line.startswith("  ") and line[2] != " "]
    assert len(rows) == len(items)
    for row, item in zip(rows, items):
        assert row[:6] == {"ok": "  ok  ", "missing": "  --  ", "warning": "  !!  "}[item.state]
        start = 8 + max(len(item.name) for item in items)
        assert row[6:start].strip() == item.name and row[start] != " "
    assert [line.strip() for line in shown if "to fix" in line] == [f"to fix: {i.fix}" for i in items if i.fix]


def test_the_last_lines_are_those_of_every_source(capsys):
    _, shown = run(capsys)
    sources = [source for source in SOURCES if catalogue(source)]
    assert [line.split()[1] for line in shown[-len(sources) :]] == sources
    assert shown[-3].endswith("0 of 15 datasets; 15 need StarCraft")
    assert shown[-1].endswith("0 of 17 datasets; 0 need StarCraft")


def test_a_missing_package_is_named_with_its_command_and_the_code_is_1(monkeypatch, capsys):
    require(monkeypatch, "offmarl-no-such-package[all]>=3")
    item = check("offmarl-no-such-package[all]>=3")
    assert (item.state, item.found) == ("missing", "missing")
    assert item.fix.startswith('pip install "offmarl-no-such-package[all]>=3"')
    code, shown = run(capsys)
    assert code == 1
    assert [line for line in shown if "embedded" in line and "missing: offmarl-no-such-package" in line]


@pytest.mark.parametrize(
    ("requirement", "state"),
    [("thing>=1", "ok"), ("thing[extra]<3,>=2.0", "ok"), ("thing==2.0.1", "ok"), ("thing<2", "warning")]
    + [("thing==2.0.2", "warning"), ("thing >= 2.1", "warning"), ('thing<2; extra == "test"', None)],
)
def test_versions_are_held_against_what_is_required(tmp_path, monkeypatch, capsys, requirement, state):
    install(tmp_path, monkeypatch, "thing", "2.0.1+cpu")
    require(monkeypatch, requirement)
    found = [item for item in doctor.examine() if item.name == requirement]
    assert [item.state for item in found] == ([state] if state else [])
    if state == "warning":
        assert found[0].found == "2.0.1+cpu does not fit" and f'pip install "{requirement}"' in found[0].fix
    assert run(capsys)[0] == 0


def test_without_packaging_presence_is_enough(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    require(monkeypatch, "numpy<1", "offmarl-no-such-package")
    assert check("numpy<1").state == "ok"
    assert check("offmarl-no-such-package").state == "missing"


def test_another_python_is_a_warning(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert check("Python").state == "warning" and "3.11" in check("Python").fix


@pytest.mark.parametrize("pysc2", [False, True])
def test_the_optimiser_of_the_same_name_is_recognised(tmp_path, monkeypatch, pysc2):
    install(tmp_path, monkeypatch, "smac", "2.3.1", "smac/facade/__init__.py")
    if pysc2:
        install(tmp_path, monkeypatch, "pysc2", "4.0.0")
    item = check("smac")
    assert item.state == "warning"
    assert item.found == "this `smac` 2.3.1 is AutoML's optimiser, not StarCraft"
    assert item.fix.count("pip uninstall -y smac") == 1 and "oxwhirl/smac.git" in item.fix
    assert check("smacv2").state == "missing"


def test_real_starcraft_reads_as_fine_where_all_of_it_is(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "smac", "1.0.0", "smac/env/starcraft2/__init__.py")
    install(tmp_path, monkeypatch, "pysc2", "4.0.0")
    write(tmp_path / "SC2", "Versions/Base75689/SC2_x64", "Versions/Base9999/SC2_x64", *MAPS)
    monkeypatch.setenv("SC2PATH", str(tmp_path / "SC2"))
    assert check("smac")[2:] == ("ok", "smac 1.0.0, pysc2 4.0.0, starcraft Base75689", "")
    game = check("game and maps")
    assert (game.state, game.fix) == ("ok", "")
    assert game.found.startswith(f"Base75689, 2 maps in {tmp_path / 'SC2'} ")
    assert check("smacv2").state == check("smac_omiga").state == "missing"


def test_without_sc2path_the_default_is_checked(tmp_path, monkeypatch):
    game = check("game and maps")
    assert game.state == "missing" and "SC2PATH" in game.fix
    assert f"in {tmp_path / 'home/StarCraftII'} (default; set $SC2PATH)" in game.found
    write(tmp_path / "home/StarCraftII", "Versions/Base75689/SC2_x64")
    assert check("game and maps").state == "missing"  # no maps yet
    write(tmp_path / "home/StarCraftII", *MAPS)
    assert check("game and maps").state == "ok"


def test_public_data_are_counted_with_their_size(tmp_path, capsys):
    assert check("omiga", "Public").found == "0 of 15 datasets, 0.00 GB"
    write(tmp_path / "data", "omiga/mamujoco/3hopper.vlt/Expert/metadata.json")
    chunk = f"d/{'0' * 32}"
    write(tmp_path / "data", f"omiga/mamujoco/3hopper.vlt/Expert/{chunk}")
    with open(tmp_path / f"data/omiga/mamujoco/3hopper.vlt/Expert/{chunk}", "wb") as file:
        file.truncate(30_000_000)
    item = check("omiga", "Public")
    assert (item.state, item.found) == ("missing", "0 of 15 datasets, 0.03 GB, 1 damaged (data list)")
    assert item.fix.startswith("offmarl data get --source omiga ")
    assert check("omiga", "run now").found == "0 of 15 datasets; 3 need StarCraft"
    shutil.rmtree(tmp_path / "data")
    hopper(catalogue("omiga")["mamujoco/3hopper", "expert"])
    assert check("omiga", "Public").found == "1 of 15 datasets, 0.00 GB"
    assert check("omiga", "run now").found == "1 of 15 datasets; 3 need StarCraft"
    assert check("og_marl", "Public").found == "0 of 15 datasets, 0.00 GB"
    assert run(capsys)[0] == 0


def test_prey_that_is_missing_or_broken_is_said(tmp_path, monkeypatch):
    item = check("OMAR's prey")
    assert item.state == "missing"
    assert item.fix.startswith("offmarl data get --source omar --tasks mpe/tag,mpe/world")
    for text in (None, "noise"):
        file = tmp_path / "prey.npz"
        monkeypatch.setenv("OFFMARL_PREY", str(file))
        if text:
            file.write_text(text)
        item = check("OMAR's prey")
        assert item.state == "warning" and item.fix
        assert f"{file}: not a pretrained prey" in item.found and "unset OFFMARL_PREY" in item.found


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=9_900_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    item = check("disk of public data")
    assert (item.state, item.found) == ("warning", f"9.9 GB free at {tmp_path / 'data'} ($OFFMARL_DATA)")
    assert "OFFMARL_DATA" in item.fix
    usage.free *= 2
    assert check("disk of public data").state == "ok"


def test_cached_datasets_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path / "cache"))
    assert check("datasets").found.startswith("0 files, 0.00 GB")
    write(tmp_path / "cache/data", "one.npz", "two/obs.npy")
    assert check("datasets").found == f"2 files, 0.00 GB in {tmp_path / 'cache/data'}"


def test_cards_are_counted_and_a_cpu_build_beside_a_driver_is_a_warning(monkeypatch):
    card = SimpleNamespace(name="NVIDIA H100", total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: card)
    assert check("GPU")[2:] == ("ok", "2 x NVIDIA H100 of 80 GB", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert check("GPU")[2:] == ("ok", "none; CPU", "")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    item = check("GPU")
    assert item.state == "warning" and torch.__version__ in item.found and "pip install" in item.fix


def test_a_check_that_fails_is_a_warning_in_one_line(monkeypatch, capsys):
    def broken():
        raise OSError("libcudart.so: cannot open\nTraceback and more")

    monkeypatch.setattr(doctor, "_gpu", broken)
    item = check("GPU")
    assert (item.state, item.found) == ("warning", "OSError: libcudart.so: cannot open")
    assert run(capsys)[0] == 0  # the default needs none
    monkeypatch.setattr("offmarl.datasets.catalogue.originals", lambda source: broken())
    assert run(capsys)[0] == 1


def python(code):
    """The words that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_simulator_and_no_ray_is_imported():
    code = "import sys; from offmarl.experiments.commands import doctor; doctor.examine(); "
    heavy = ["ray", "jax", "jaxlib", "jaxmarl", "mujoco", "gymnasium", "pysc2", "pandas", "matplotlib"]
    assert python(f"{code}print(*[name for name in {heavy} if name in sys.modules])") == []


def test_without_torch_all_else_is_still_checked():
    code = (
        "import sys; sys.modules['torch'] = None; from offmarl.experiments.commands import doctor; "
        "print(*['_'.join(i.name.split()) for i in doctor.examine() if 'import of torch' in i.found])"
    )
    assert python(code) == ["GPU"]
