"""The tasks of the harness, read from tasks.yaml, the user's own, and the simulators that play them."""

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Literal

from offmarl.benchmarks import own
from offmarl.benchmarks.env import BatchEnv
from offmarl.benchmarks.smax.units import RULES
from offmarl.benchmarks.yaml_files import Pair, Strict, known_name, packaged

OWN_RULES = 2  # version of what the adapter of tasks by a file adds: since 2 the living may choose after a time-out


@dataclass(frozen=True)
class Task:
    """One environment setting; equal names are equal tasks. `actions` is a number, or a dimension where continuous."""

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
    score: list[float] | None = field(compare=False, default=None)  # returns that count as 0 and 100
    note: str = field(compare=False, default="")

    @property
    def space(self) -> str:
        """The kind of actions: discrete or continuous."""
        return "discrete" if self.discrete else "continuous"

    @property
    def short(self) -> str:
        """The name without its family: 3m."""
        return self.name.split("/", 1)[1]

    @property
    def simulator(self) -> "Engine":
        """What plays it."""
        return ENGINES[self.engine]

    @property
    def played(self) -> bool:
        """Whether it has a simulator; else there are only data."""
        return True


@dataclass(frozen=True)
class UserTask(Task):
    """A task by a file in `own` or of the user's, whose `roster` holds its rules; with another `code` it is another."""

    code: str = ""

    @property
    def simulator(self) -> "Engine":
        """What its file makes."""
        own_task = own.find(self.name)
        return Engine(own_task.title, "own.pettingzoo:env_of", tuple(own_task.packages), rules=OWN_RULES)

    @property
    def played(self) -> bool:
        """Whether its file makes one."""
        return own.find(self.name).played


@dataclass(frozen=True)
class Engine:
    """A simulator: the label of its results, its adapter as module:class, the packages whose versions decide them.

    One that must be installed separately names a module with `missing` (what to install) and `facts` (versions).
    """

    label: str
    adapter: str
    packages: tuple[str, ...] = ()
    presence: str = ""
    rules: int = 0  # the version of the rules that we add, if any


ENGINES = {
    "smax": Engine("SMAX", "smax.env:SmaxEnv", ("jaxmarl", "jax"), rules=RULES),
    "particles": Engine("OMAR's particle worlds, rewritten", "mpe:MpeEnv", ("numpy",)),
    "mujoco": Engine("MuJoCo", "mamujoco:MaMujocoEnv", ("mujoco", "gymnasium", "gymnasium-robotics")),
    "smac": Engine("SMAC", "starcraft.env:StarCraftEnv", presence="starcraft.packages"),
    "smacv2": Engine("SMACv2", "starcraft.env:StarCraftEnv", presence="starcraft.packages"),
    "smac_omiga": Engine("OMIGA's SMAC", "starcraft.env:StarCraftEnv", presence="starcraft.packages"),
}


class Teams(Strict):
    """SMACv2's random teams, equal for both sides."""

    size: int
    exception: str  # a team never consists of these alone
    weights: dict[str, float]


class Roster(Strict):
    """What a simulator needs to know of a task besides its sizes."""

    type_bits: int = 0
    enemy_bits: list[str] = []  # the enemies' types in the order of their bits, where it is not the allies'
    starts: list[Pair] = []  # the points on which the two sides of a fixed roster begin
    corridor: Pair | None = None
    allies: dict[str, int] = {}
    enemies: dict[str, int] = {}
    teams: Teams | None = None
    prey: int = 0
    physics: Literal["native", "legacy"] = "native"
    rules: int = 0  # of a task whose returns have changed: the version since


class TaskEntry(Strict):
    """A task as tasks.yaml has it; see `Task`."""

    family: str
    agents: int
    obs: int
    state: int
    actions: int
    limit: int
    engine: Annotated[str, known_name("engine", ENGINES)]
    discrete: bool = True
    roster: Roster = Roster()
    score: Pair | None = None
    note: str = ""


def tasks() -> dict[str, Task]:
    """All tasks by name: ours, then the user's own.

    Raises FileError naming the key of tasks.yaml that is wrong, and the reason; TaskError for a file of the user's.
    """
    return _all_tasks(tuple(own.registry().values()))


@cache
def _all_tasks(users: tuple[own.OwnTask, ...]) -> dict[str, Task]:
    entries = packaged(dict[str, TaskEntry], "offmarl.benchmarks", "tasks.yaml")
    ours = {name: Task(name, **entry.model_dump(exclude_unset=True)) for name, entry in entries.items()}
    ours |= {name: _user_task(task) for name, task in own.house().items()}
    families = {task.family for task in ours.values()}
    for user in users:
        if user.family in families:
            raise own.TaskError(f"{user.place}: {user.name}: the family '{user.family}' is offmarl's; name another")
    return ours | {user.name: _user_task(user) for user in users}


def _user_task(user: own.OwnTask) -> UserTask:
    """The task of a file, with the sizes that it states or that its simulator shows."""
    sizes, rules = user.sizes or {}, {"reward": user.reward, "clock": user.clock}
    try:
        if not sizes:
            env = adapter_module("own.pettingzoo").envs(user, 1)
            sizes, rules = own.sizes(env), {**rules, "agents": getattr(env, "rules", {})}
            env.close()
    except (Exception, SystemExit) as error:
        told = str(error) if isinstance(error, own.TaskError) else f"cannot be made ({own.first_line(error)})"
        raise own.TaskError(f"{user.place}: {user.name}: {told.removeprefix(f'{user.place}: ')}") from error
    score = None if user.score is None else list(user.score)
    facts = {"limit": user.limit, "engine": "own", "roster": rules, "score": score, "code": user.code}
    return UserTask(user.name, user.family, **sizes, **facts)


def unavailable(task: Task) -> str:
    """Why the task's simulator cannot run here and what to do; empty where it can. Imports no simulator."""
    engine = task.simulator
    if engine.presence:
        return adapter_module(engine.presence).missing(task.engine, task.short)
    return own.missing(engine.packages)


def make_env(task: Task, seeds: int, episodes: int = 1) -> BatchEnv:
    """The task's environment, with one lane for each of `episodes` episodes of `seeds` seeds.

    Simulators that are too heavy for that have fewer lanes: `episodes_at_once` for each seed.
    Raises TaskError for a task without a simulator.
    """
    adapter = _adapter(task)
    return adapter(task, lanes_of(adapter, seeds, episodes))


def lanes_of(adapter: Any, seeds: int, episodes: int) -> int:
    """The lanes for so many episodes of each seed, or as many as the adapter can have."""
    return seeds * min(episodes, getattr(adapter, "episodes_at_once", episodes))


def make_single(task: Task) -> BatchEnv:
    """The task's environment with one lane that steps alone, to time it: others may step lanes in larger chunks."""
    adapter = _adapter(task)
    return getattr(adapter, "single", lambda task: adapter(task, 1))(task)


def _adapter(task: Task) -> Any:
    if not task.played:
        raise own.TaskError(f"{task.name}: has no environment, only data: nothing can be played")
    module, name = task.simulator.adapter.split(":")
    return getattr(adapter_module(module), name)


def adapter_module(name: str) -> Any:
    """A module of this folder. Adapters are imported here only."""
    return import_module(f"offmarl.benchmarks.{name}")
