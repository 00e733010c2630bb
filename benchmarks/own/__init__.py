"""Tasks of your own: a class in a file of yours, found as methods are.

Files are named by OFFMARL_TASKS (separated as in PATH; `--task FILE` adds one); installed packages name modules by
entry points of the group `offmarl.tasks`.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat, PositiveInt

from offmarl.benchmarks.env import BatchEnv
from offmarl.benchmarks.source import first_line as first_line  # for those who run a task of the user's
from offmarl.benchmarks.source import modules_from_elsewhere, sources, sum_of
from offmarl.benchmarks.yaml_files import FileError, Strict, unknown, validated

PATHS, GROUP = "OFFMARL_TASKS", "offmarl.tasks"
FAMILIES = ("foraging", "warehouse")  # modules of this folder with tasks that come with offmarl
HOOKS = ("make", "batch", "legal", "state", "won", "scene", "frame")
NO_SIMULATOR = "write make() or batch(lanes); or, of data alone, sizes = dict(agents=…, obs=…, state=…, actions=…)"
LONGEST = 10**6  # actions of an episode
WORD = r"[a-z0-9][A-Za-z0-9_-]*"


class TaskError(FileError):
    """A task of the user's cannot be used; the message says where, why and how to mend it."""


class OwnTask:
    """A task: its facts are class attributes, `make` or `batch` is its simulator; with neither there are only data.

    Facts that are not in this class are refused, but for names with a leading underscore.
    """

    name: str  # family/task, as the command line and tables call it
    title: str  # the simulator's label in tables
    limit: int  # actions after which the clock ends an episode
    reward: str = "apart"  # what every agent gets: its own reward, or the `sum` or `mean` of all agents'
    clock: str = "limit"  # an end at the limit is a time-out; "env": only where the environment says `truncated`
    fresh: bool = False  # make a new environment for every episode, where reset(seed) depends on the one before
    packages: Sequence[str] = ()  # distributions whose versions decide the numbers
    datasets: Mapping[str, str] = {}  # quality to a file, from the folder of the task's file
    score: tuple[float, float] | None = None  # returns that count as 0 and 100, as a random and an expert policy's
    sizes: Mapping[str, int] | None = None  # as `Sizes` has them; None: asked of the environment

    def make(self) -> Any:
        """An environment: PettingZoo's ParallelEnv, or Gymnasium's with Tuple spaces."""
        raise NotImplementedError

    def batch(self, lanes: int) -> BatchEnv:
        """Instead of `make`: `lanes` episodes stepped at once, which keep the limit and the rewards' rule themselves.

        In a continuous task it has an attribute `actions`: the numbers of an agent's action, each in [-1, 1].
        """
        raise NotImplementedError

    def legal(self, env: Any) -> Any:
        """The masks of all agents [I][A], of what `make` returned. None: those in observations or infos, else all."""
        return None

    def state(self, env: Any) -> Any:
        """The state, of what `make` returned. None: its `state()` if it has one, else all observations joined."""
        return None

    def won(self, env: Any, info: Any) -> bool | None:
        """At the end of an episode, whether it was won. None where the task cannot be won."""
        return None

    def scene(self, env: Any) -> Any:
        """Of the episode that has just begun, what stays the same: a `Scene` of benchmarks/frames/film.py."""
        raise NotImplementedError

    def frame(self, env: Any) -> Any:
        """What it looks like now: a row of numbers for each body of the scene. Asked only where it is watched."""
        raise NotImplementedError

    def __init__(self, place: str = "", file: Path = Path()):
        self.place, self.file = place, file  # as messages call it; its source

    @property
    def batched(self) -> bool:
        """Whether it has `batch`."""
        return type(self).batch is not OwnTask.batch

    @property
    def played(self) -> bool:
        """Whether it has a simulator."""
        return self.batched or type(self).make is not OwnTask.make

    @property
    def pictured(self) -> bool:
        """Whether it has pictures of what `make` returns."""
        return type(self).frame is not OwnTask.frame

    @property
    def code(self) -> str:
        """The sum of the file's form, with what it imports from its folder."""
        return sum_of(sources(self.file))

    @property
    def family(self) -> str:
        """The name's first part."""
        return self.name.split("/")[0]


class Sizes(Strict):
    """The sizes of a task, as `Task` has them."""

    agents: PositiveInt
    obs: PositiveInt
    state: PositiveInt
    actions: PositiveInt
    discrete: bool = True


def _apart(score: tuple[float, float]) -> tuple[float, float]:
    if score[0] == score[1]:
        raise ValueError("the returns that count as 0 and 100 must differ")
    if score[0] > score[1]:  # records of it would count as damaged
        raise ValueError("the return that counts as 100 must be the higher one")
    return score


class Facts(Strict):
    """The facts of a task, for their check."""

    name: Annotated[str, Field(pattern=f"^{WORD}/{WORD}$")]
    title: Annotated[str, Field(pattern=r"^[^\n|]+$")]  # a cell of tables
    limit: Annotated[int, Field(gt=0, le=LONGEST)]
    reward: Literal["apart", "sum", "mean"]
    clock: Literal["limit", "env"]
    fresh: bool
    packages: Sequence[str]
    datasets: Mapping[Annotated[str, Field(pattern=f"^{WORD}$")], str]
    score: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_apart)] | None
    sizes: Sizes | None


@cache
def house() -> dict[str, OwnTask]:
    """The tasks of this folder, which come with offmarl and need packages of their own, by name."""
    modules = (import_module(f"{__name__}.{name}") for name in FAMILIES)
    tasks = [kind("", Path(module.__file__ or "")) for module in modules for kind in _kinds(module)]
    return {task.name: task for task in tasks}


def find(name: str) -> OwnTask:
    """A task of this folder or of the user's own."""
    return house().get(name) or registry()[name]


def missing(packages: Sequence[str]) -> str:
    """Which of some packages are not installed, and what installs them; empty where all are."""
    absent = [name for name in packages if not _installed(name)]
    return f"needs {', '.join(absent)}: pip install {' '.join(absent)}" if absent else ""


@cache
def registry() -> dict[str, OwnTask]:
    """The user's tasks by name.

    Raises:
        TaskError: if two tasks have one name, or one cannot be used.
    """
    found: dict[str, OwnTask] = {}
    for place, module in modules_from_elsewhere(PATHS, GROUP, TaskError):
        if not (kinds := _kinds(module)):
            raise TaskError(f"{place}: has no subclass of OwnTask with a name")
        for kind in kinds:
            task = kind(place, Path(module.__file__ or ""))
            _check(place, task)
            if task.name in found:
                raise TaskError(f"{place}: the name '{task.name}' is taken by {found[task.name].place}")
            found[task.name] = task
    return found


def _check(place: str, task: OwnTask) -> None:
    """Check a task's facts, that it has one simulator, and that its packages are here."""
    kind = type(task)
    known = [*Facts.model_fields, *HOOKS]
    for name in (name for base in kind.__mro__[: kind.__mro__.index(OwnTask)] for name in vars(base)):
        if not name.startswith("_") and name not in known:
            raise TaskError(f"{place}: {unknown('fact', name, known)}; a helper's name begins with an underscore")
    facts = {name: getattr(task, name) for name in Facts.model_fields if hasattr(task, name)}
    try:
        validated(Facts, place, facts)
    except FileError as error:
        raise TaskError(str(error)) from error
    if task.batched and kind.make is not OwnTask.make:
        raise TaskError(f"{place}: {task.name}: write either make() or batch(lanes)")
    if task.pictured != (kind.scene is not OwnTask.scene):
        raise TaskError(f"{place}: {task.name}: pictures need both scene(env) and frame(env)")
    if not task.played and task.sizes is None:
        raise TaskError(f"{place}: {task.name}: {NO_SIMULATOR}")
    if task.batched and (task.reward, task.clock, task.fresh) != ("apart", "limit", False):
        raise TaskError(f"{place}: {task.name}: batch() itself decides: leave out reward, clock and fresh")
    if reason := missing(task.packages):
        raise TaskError(f"{place}: {reason}")


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _kinds(module: ModuleType) -> list[type[OwnTask]]:
    """The tasks that a module defines: subclasses of OwnTask with a name."""
    classes = (item for item in vars(module).values() if isinstance(item, type) and issubclass(item, OwnTask))
    return [item for item in classes if item.__module__ == module.__name__ and hasattr(item, "name")]


def sizes(env: BatchEnv) -> dict[str, Any]:
    """The sizes of a task, as `Task` has them, from the first views of an environment."""
    view = env.reset(np.arange(env.lanes))
    discrete = view.legal is not None
    actions = view.legal.shape[-1] if view.legal is not None else getattr(env, "actions", None)
    if actions is None:
        raise TaskError("its views have no `legal`, so it is continuous: give it an attribute `actions`")
    _, agents, obs = view.obs.shape
    return {"agents": agents, "obs": obs, "state": view.state.shape[1], "actions": actions, "discrete": discrete}
