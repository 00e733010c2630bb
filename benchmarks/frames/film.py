"""Films: what some episodes looked like while anybody played them.

A watched environment is a `BatchEnv` with two more functions: `scene(lane)`, what stays the same in an episode, and
`frame(lane)`, one row of numbers for each body. Ours are adapters of the same simulators that nothing else imports, so
that nothing is paid where nobody watches; an adapter that has both functions itself is watched as it is.
Shapes: E lanes, T actions, K bodies, C columns, I agents, A actions of one agent.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np

from offmarl.benchmarks.env import BatchEnv, Step, View
from offmarl.benchmarks.tasks import ENGINES, Task, lanes_of, make_env

OURS, THEIRS, NOBODYS = range(3)  # whose a body is
NOBODY = -1  # a target, or an agent, that there is not
WATCHED = {  # by engine: the module with its adapter
    **{"smax": "smax", "particles": "particles", "mujoco": "robots"},
    **dict.fromkeys(("smac", "smacv2", "smac_omiga"), "starcraft"),
}
# Of "units": `fires`: whether it struck in the last action; `target`: the body it was ordered to attack, or NOBODY.
UNIT_COLUMNS = {"x": 0.02, "y": 0.02, "health": 0.1, "shield": 0.1, "target": 1.0, "fires": 1.0}
UNIT_MOVES = ["none", "stop", "north", "south", "east", "west"]


class Body(NamedTuple):
    """A unit, a particle, a landmark, or a segment of a robot."""

    name: str  # its kind
    side: int  # OURS, THEIRS or NOBODYS
    agent: int = NOBODY  # which agent it is, or is moved by
    size: float = 0.0  # radius
    health: float = 0.0  # at the start
    shield: float = 0.0
    sight: float = 0.0


class Scene(NamedTuple):
    """What stays the same in an episode.

    `kind` says how it is drawn: "units", "particles", "robot" (segments), or "cells" (a board whose cells have whole
    numbers `x`, `y` in their middle; it may have columns `there`: 0 of a body that is gone, `mark`: 1 of one that
    stands out, and `heading`: quarter turns from north to where it looks, or -1). `area` is (left, bottom, right, top);
    a robot's is seen from the middle of its first segment, a metre to the side as half a metre to the right and 0.3 up.
    `columns` are what a frame has of every body, each with the step to which it may be rounded.
    """

    kind: str
    tick: float  # seconds between two frames
    area: tuple[float, float, float, float]
    columns: dict[str, float]
    bodies: list[Body]
    moves: list[str] = []  # the names of the first discrete actions; those that follow are attacks on THEIRS, in order


class Watched(BatchEnv, Protocol):
    """An adapter that can be watched."""

    def scene(self, lane: int) -> Scene:
        """What stays the same in the episode that has just begun in a lane."""
        ...

    def frame(self, lane: int) -> np.ndarray:
        """What it looks like now: [K,C]. After the end it is the last frame of the episode."""
        ...


def watched(task: Task, episodes: int) -> Watched:
    """The task's environment, to be watched for so many episodes. Raises ValueError for one that has no pictures."""
    if task.engine in WATCHED or task.engine not in ENGINES:  # tasks by a file may have pictures
        env: Any = watched_or_not(task, 1, episodes)
        if is_watched(env):
            return env
        env.close()
    who = task.engine if task.engine in ENGINES else "its file, without scene() and frame(),"
    raise ValueError(f"{task.name}: {who} has no pictures")


def watched_or_not(task: Task, seeds: int, episodes: int) -> BatchEnv:
    """The task's environment as `make_env` makes it, with pictures where it has any."""
    if name := WATCHED.get(task.engine):
        adapter = import_module(f"offmarl.benchmarks.frames.{name}").Watched
        return adapter(task, lanes_of(adapter, seeds, episodes))
    return make_env(task, seeds, episodes)


def is_watched(env: BatchEnv) -> bool:
    """Whether an adapter has pictures."""
    return hasattr(env, "scene") and hasattr(env, "frame")


@dataclass
class Take:
    """One episode."""

    scene: Scene
    frames: list[np.ndarray]  # [K,C], T + 1 of them
    actions: list[np.ndarray] = field(default_factory=list)  # [I] or [I,A]
    rewards: list[float] = field(default_factory=list)  # of the team
    end: str = ""  # won, lost (what can be won), time limit, over, or broken (its game crashed)

    @property
    def return_(self) -> float:
        """The undiscounted return, rounded as evaluations store it."""
        return round(float(np.sum(self.rewards)), 5)


class Film:
    """A watched environment, which films `episodes` as they are numbered by lane and wave, or all; a `BatchEnv`.

    A `careful` one that fails with pictures lets the episodes go on without them, and has the `fault`.
    """

    def __init__(self, env: Any, episodes: Collection[int] | None = None, careful: bool = False):
        self.env, self.lanes, self.waves, self.careful = env, env.lanes, 0, careful
        self.fault: Exception | None = None
        self.wanted = None if episodes is None else set(episodes)
        self.takes: dict[int, Take] = {}  # by episode

    def reset(self, seeds: np.ndarray) -> View:
        """Start an episode in every lane."""
        view = self.env.reset(seeds)
        numbers = {lane: self.waves * self.lanes + lane for lane in range(self.lanes)}
        self.rolling = {lane: n for lane, n in numbers.items() if self.wanted is None or n in self.wanted}
        with self._caring():
            self.takes |= {n: Take(self.env.scene(lane), [self.env.frame(lane)]) for lane, n in self.rolling.items()}
        self.waves += 1
        return view

    def step(self, actions: np.ndarray) -> Step:
        """Advance every episode by one joint action."""
        step = self.env.step(actions)
        with self._caring():
            for lane, number in list(self.rolling.items()):
                take = self.takes[number]
                take.frames.append(self.env.frame(lane))
                take.actions.append(np.array(actions[lane]))
                take.rewards.append(float(np.mean(step.reward[lane])))
                if step.done[lane]:
                    take.end = _end(step, lane)
                    del self.rolling[lane]
        return step

    @contextmanager
    def _caring(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self.careful:
                raise
            self.fault, self.wanted = error, set()
            self.takes, self.rolling = {}, {}

    def close(self) -> None:
        """Release the simulator."""
        self.env.close()


def _end(step: Any, lane: int) -> str:
    if step.void is not None and step.void[lane]:
        return "broken"
    if step.won is not None and step.won[lane]:
        return "won"
    return "time limit" if step.timeout[lane] else "over" if step.won is None else "lost"
