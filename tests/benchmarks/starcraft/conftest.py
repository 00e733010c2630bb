"""The stand-in for StarCraft and its packages: what is installed, and what will go wrong."""

import gc
import json
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from offmarl.benchmarks.starcraft.env import StarCraftEnv
from offmarl.benchmarks.tasks import tasks

FILES = {
    "smac/__init__.py": None,
    "smac/env/__init__.py": "from smac.env.starcraft2.starcraft2 import StarCraft2Env\n",
    "smac/env/starcraft2/__init__.py": None,
    "smac/env/starcraft2/starcraft2.py": "",
    "smacv2/__init__.py": None,
    "smacv2/env/__init__.py": None,
    "smacv2/env/starcraft2/__init__.py": None,
    "smacv2/env/starcraft2/wrapper.py": "",
    "og_marl/__init__.py": None,
    "og_marl/custom_environments/starcraft2_omiga/StarCraft2_Env.py": "\n\nStarCraft2Env = OmigaEnv\n",
    "pysc2/__init__.py": None,
    "pysc2/lib/__init__.py": None,
    "pysc2/lib/units.py": "import enum\n\nTerran = enum.IntEnum('Terran', {'Marine': 48})\n\n\n"
    "def get_unit_type(number):\n    return Terran(number) if number in set(Terran) else None\n",
}


class World:
    """What is installed, what will go wrong, and what was noted."""

    def __init__(self, root):
        self.root, self.game, self.file, self.log = root, root / "StarCraftII", root / "plan.json", root / "log"
        source = Path(__file__).with_name("starcraft_stand_in.py").read_text()
        for name, text in FILES.items():
            self.write(root / "packages" / name, "" if text is None else text if "import" in text else source + text)
        for build in ("Base9999", "Base75689", "Base102"):
            self.write(self.game / "Versions" / build / "SC2_x64")
            (self.game / "Versions" / build / "SC2_x64").chmod(0o755)
        for task in tasks().values():
            self.write(self.game / f"Maps/SMAC_Maps/{task.short}.SC2Map")
        self.write(self.game / "Maps/SMAC_Maps/32x32_flat.SC2Map")
        self.log.touch()
        self.plan()

    @staticmethod
    def write(path, text=""):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def plan(self, **what):
        self.file.write_text(json.dumps({"log": str(self.log), **what}))

    def notes(self, key):
        return [note for line in self.log.read_text().splitlines() if key in (note := json.loads(line))]

    def alive(self, wanted=None):
        """Processes of workers and of games that still run; up to a minute is given for `wanted` of them to be left."""
        ids = {note["pid"] for note in self.notes("made")} | {note["game"] for note in self.notes("game")}
        deadline = time.monotonic() + 60
        while True:
            left = {pid for pid in ids if status(pid) != psutil.STATUS_ZOMBIE}
            if wanted is None or len(left) == wanted or time.monotonic() > deadline:
                return left
            time.sleep(0.02)


def status(pid):
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("SC2PATH", str(world.game))
    monkeypatch.setenv("STAND_IN", str(world.file))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    yield world
    gc.collect()
    assert not world.alive(wanted=0), "a process was left behind"
    assert not list((tmp_path / "scratch").glob("offmarl-game-*")), "a temporary folder was left behind"


@pytest.fixture
def make(world):
    """Environments that are closed after the test."""
    made = []

    def make(task, lanes=1):
        made.append(StarCraftEnv(task, lanes))
        return made[-1]

    yield make
    for env in made:
        env.close()
