"""What is missing of StarCraft and its packages is named with the command that installs it."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from starcraft_tasks import real

from offmarl.benchmarks.starcraft.env import StarCraftError
from offmarl.benchmarks.starcraft.packages import PACKAGES, facts, missing


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


def test_the_oldest_build_that_pysc2_starts_is_enough(world):
    change(world.game, "Versions/Base75689", "Versions/Base55958")
    shutil.rmtree(world.game / "Versions/Base9999")
    assert missing("smac", "3m") == ""


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
