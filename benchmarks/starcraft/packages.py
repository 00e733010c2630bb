"""The packages behind real StarCraft: how each is constructed, whether it is installed, and how to install it.

The packages themselves are imported in `starcraft.env`'s workers only.
Source: oxwhirl's smac and smacv2 and InstaDeep's og-marl as they are on GitHub; pysc2 4.0.0.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from json import loads
from pathlib import Path
from shlex import quote
from types import SimpleNamespace
from typing import Any

from offmarl.benchmarks.tasks import Task

# pysc2 takes any protobuf; the requirements of the other packages would replace it by 3.20.
PIP = f"{quote(sys.executable)} -m pip"
INSTALL = f'{PIP} install "pysc2==4.0.0" && {PIP} install --no-deps '
GAME = "wget http://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip && unzip -P iagreetotheeula SC2.4.10.zip -d "
PROGRAM, OLDEST_BUILD = "SC2_x64", 55958  # StarCraft II 3.16.1, the first that pysc2 starts


@dataclass(frozen=True)
class Package:
    """The differences between the packages."""

    module: str
    name: str  # of the class
    part: str  # a folder of the package, which others of its name do not have
    source: str  # what pip installs
    maps: tuple[str, str]  # on GitHub, and the game's folder in which to unpack them
    options: Callable[[Task], dict[str, Any]]  # of the constructor
    map: str = ""  # one file for all tasks, if not one for each
    each: bool = False  # agents have their own results and states; the data's state joins these


def plain(task: Task) -> dict[str, Any]:
    """SMAC's own settings."""
    return {"map_name": task.short}


def random_teams(task: Task) -> dict[str, Any]:
    """SMACv2's official settings, a new copy for every environment, because it writes into them."""
    teams = task.roster["teams"]
    sides = {"n_units": teams["size"], "n_enemies": teams["size"]}
    units = {"dist_type": "weighted_teams", "unit_types": list(teams["weights"]), "observe": True}
    units["weights"] = list(teams["weights"].values())
    # No team consists of these only. og-marl by mistake names the baneling for terran too, so that one team in 100 000
    # of its terran_5_vs_5 is medivacs only.
    units["exception_unit_types"] = [teams["exception"]]
    places = {"dist_type": "surrounded_and_reflect", "p": 0.5, "n_enemies": teams["size"], "map_x": 32, "map_y": 32}
    sight = {"conic_fov": False, "obs_own_pos": True, "use_unit_ranges": True, "min_attack_range": 2}
    teams = {**sides, "team_gen": units, "start_positions": places}
    return {"capability_config": teams, "map_name": f"10gen_{task.short.split('_')[0]}", "debug": False, **sight}


def omiga(task: Task) -> dict[str, Any]:
    """The settings of OMIGA's data. Its environment adds to the seed, so it needs one."""
    on = ("add_agent_id", "use_state_agent", "use_mustalive", "add_center_xy")
    off = ("use_stacked_frames", "use_obs_instead_of_state", "add_move_state", "add_local_obs", "add_distance_state")
    off = (*off, "add_enemy_action_state", "add_visible_state", "add_xy_state")
    flags = dict.fromkeys(on, True) | dict.fromkeys(off, False)
    return {"args": SimpleNamespace(map_name=task.short, stacked_frames=1, **flags), "seed": 0}


GIT, OMIGA = "git+https://github.com/", "og_marl.custom_environments.starcraft2_omiga.StarCraft2_Env"
MAPS = ("oxwhirl/smac/releases/download/v0.1-beta1/SMAC_Maps.zip", "Maps")
NEW_MAPS = ("oxwhirl/smacv2/releases/download/maps/SMAC_Maps.zip", "Maps/SMAC_Maps")
WRAPPER = ("smacv2.env.starcraft2.wrapper", "StarCraftCapabilityEnvWrapper", "env/starcraft2")
FORK = (OMIGA, "StarCraft2Env", "custom_environments/starcraft2_omiga")
PACKAGES = {
    "smac": Package("smac.env", "StarCraft2Env", "env/starcraft2", f"{GIT}oxwhirl/smac.git", MAPS, plain),
    "smacv2": Package(*WRAPPER, f"{GIT}oxwhirl/smacv2.git", NEW_MAPS, random_teams, map="32x32_flat"),
    # A wheel may leave the fork out, whose folder is no regular package.
    "smac_omiga": Package(*FORK, f"-e {GIT}instadeepai/og-marl.git#egg=og-marl", MAPS, omiga, each=True),
}


def missing(engine: str, short: str = "*") -> str:
    """All that the engine lacks for its map `short`, with the commands that install it, in one line; or empty."""
    return "; ".join([*package_lacks(engine), *game_lacks(engine, short)])


def package_lacks(engine: str) -> list[str]:
    """What of the engine's Python packages is missing, and the command that installs it."""
    package = PACKAGES[engine]
    name, install = package.module.split(".")[0], INSTALL + package.source
    if (spec := find_spec(name)) is None or find_spec("pysc2") is None:
        return [f"the Python package {name if spec is None else 'pysc2'} is not installed: {install}"]
    if not _genuine(package):
        other = "AutoML's optimiser, not StarCraft's" if engine == "smac" else f"has no {package.part}"
        return [f"the Python package {name} ({spec.origin}) is {other}: {PIP} uninstall -y {name} && {install}"]
    return []


def game_lacks(engine: str, short: str = "*") -> list[str]:
    """What of the game, and of the engine's map `short`, pysc2 would not find or start, and what to do."""
    package, lacks = PACKAGES[engine], []
    try:
        builds = _builds()
    except ValueError as error:
        return [str(error)]
    program = home() / f"Versions/Base{max(builds, default=0):05}" / PROGRAM
    if not builds:
        why = "has no Versions/Base*:" if os.environ.get("SC2PATH") else "is not set and there is none in"
        lacks.append(f"StarCraft II: SC2PATH {why} {home()}: {game_command()}")
    elif max(builds) < OLDEST_BUILD:
        lacks.append(f"StarCraft II: {program.parent} is older than 3.16.1: {game_command()}")
    elif not program.is_file():
        lacks.append(f"StarCraft II: no {program}, of the newest version there: {game_command()}")
    elif not os.access(program, os.X_OK):
        lacks.append(f"StarCraft II: {program} is not executable: chmod +x {quote(str(program))}")
    folder, name = home() / "Maps/SMAC_Maps", package.map or short
    if not any(file.is_file() and file.suffix == ".SC2Map" for file in folder.glob(f"{name}.SC2Map")):
        lacks.append(f"no {folder}/{name}.SC2Map: {_map_command(package, name)}")
    return lacks


def game_command() -> str:
    """The command that puts the game where it is looked for."""
    place = home().absolute().parent
    export = f" && export SC2PATH={quote(f'{place}/StarCraftII')}" if os.environ.get("SC2PATH") else ""
    return f"{GAME}{quote(str(place))}{export}"


def _map_command(package: Package, name: str) -> str:
    """How the map comes to where it is looked for: from another folder or spelling, or from GitHub."""
    wanted = home() / f"Maps/SMAC_Maps/{name}.SC2Map"
    for found in sorted(home().glob("[Mm][Aa][Pp][Ss]/**/*")):
        if found.is_file() and name != "*" and found.name.lower() == wanted.name.lower():
            return f"mkdir -p {quote(str(wanted.parent))} && mv {quote(str(found))} {quote(str(wanted))}"
    address, folder = f"https://github.com/{package.maps[0]}", quote(str(home() / package.maps[1]))
    return f"wget -O maps.zip {address} && mkdir -p {folder} && unzip -o maps.zip -d {folder}"


def _builds() -> list[int]:
    """The builds of the game, of which pysc2 takes the newest. Raises ValueError for a folder that ends pysc2."""
    found = []
    for folder in sorted((home() / "Versions").glob("Base*")):
        if not folder.name[4:].isdecimal():
            raise ValueError(f"StarCraft II: {folder} is no version of the game: move it elsewhere")
        found.append(int(folder.name[4:]))
    return found


def facts(engine: str) -> dict[str, str]:
    """Versions of the package, of pysc2 and of the game, as far as they are found, without an import."""
    package, found = PACKAGES[engine], {}
    for name in (*[package.module.split(".")[0]] * _genuine(package), "pysc2"):
        with suppress(metadata.PackageNotFoundError):
            installed = metadata.distribution(name)
            commit = loads(installed.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id", "")
            found[name] = f"{installed.version} {commit[:8]}".strip()
    with suppress(ValueError):
        found |= {"starcraft": f"Base{max(_builds())}"}
    return found


def home() -> Path:
    """The folder of the game."""
    return Path(os.environ.get("SC2PATH") or "~/StarCraftII").expanduser()


def _genuine(package: Package) -> bool:
    """Whether the package is installed, and not another one of its name."""
    spec = find_spec(package.module.split(".")[0])
    return any((Path(folder) / package.part).is_dir() for folder in (spec and spec.submodule_search_locations) or ())
