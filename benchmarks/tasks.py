"""The tasks of the harness, read from tasks.yaml."""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.metadata import requires, version

import yaml

from offmarl.benchmarks.env import BatchEnv


@dataclass(frozen=True)
class Task:
    """One environment setting. Equal names are equal tasks.

    `actions` counts discrete actions, or is the dimension of a continuous one.
    """

    name: str
    family: str = field(compare=False)
    agents: int = field(compare=False)
    obs: int = field(compare=False)
    state: int = field(compare=False)
    actions: int = field(compare=False)
    limit: int = field(compare=False)
    engine: str = field(compare=False)
    discrete: bool = field(compare=False, default=True)
    roster: dict = field(compare=False, default_factory=dict)
    score: tuple[float, float] | None = field(compare=False, default=None)  # returns that count as 0 and 100
    note: str = field(compare=False, default="")

    @property
    def short(self) -> str:
        """The name without its family: 3m."""
        return self.name.split("/", 1)[1]


@cache
def tasks() -> dict[str, Task]:
    """All tasks by name."""
    text = resources.files("offmarl.benchmarks").joinpath("tasks.yaml").read_text()
    return {name: Task(name, **facts) for name, facts in yaml.safe_load(text).items()}


# Label, and the packages that decide the simulation.
ENGINES = {
    "smax": ("SMAX", ("jaxmarl", "jax")),
    "particles": ("OMAR's particle worlds, rewritten", ("numpy",)),
    "mujoco": ("MuJoCo", ("mujoco", "gymnasium", "gymnasium-robotics")),
}


def fingerprint(task: Task) -> dict[str, str]:
    """The embedded simulator's label and versions, without importing it.

    `unlocked` names the packages of another version than offmarl requires: simulators change between versions.
    """
    label, packages = ENGINES[task.engine]
    facts = {"engine": label, **{name: version(name) for name in packages}}
    strangers = [name for name in packages if _locked().get(name, facts[name]) != facts[name]]
    if strangers:
        facts["unlocked"] = ", ".join(f"{name} {facts[name]} instead of {_locked()[name]}" for name in strangers)
    if "prey" in task.roster:
        from offmarl.benchmarks.mpe import load_prey

        facts["prey"] = load_prey(task.short).name
    return facts


@cache
def _locked() -> dict[str, str]:
    """The packages that offmarl requires in one version only, and that version."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)$", "\n".join(requires("offmarl") or []), re.MULTILINE))


def engine(task: Task) -> type:
    """The adapter class of the task's embedded simulator, which is imported only here."""
    if task.engine == "smax":
        from offmarl.benchmarks.smax import SmaxEnv

        return SmaxEnv
    if task.engine == "particles":
        from offmarl.benchmarks.mpe import MpeEnv

        return MpeEnv
    if task.engine == "mujoco":
        from offmarl.benchmarks.mamujoco import MaMujocoEnv

        return MaMujocoEnv
    raise ValueError(f"tasks.yaml, {task.name}: unknown engine '{task.engine}'")


def make_env(task: Task, lanes: int) -> BatchEnv:
    """The task's embedded environment with `lanes` parallel episodes."""
    return engine(task)(task, lanes)
