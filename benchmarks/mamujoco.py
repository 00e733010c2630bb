"""MA-MuJoCo: one robot, its actuators divided among agents, as in the data of OMIGA and of OMAR.

OMIGA's tasks use plain gymnasium and not gymnasium-robotics' MaMuJoCo, whose observations and division of the ant
differ: here every agent observes the complete raw state and its own one-hot id, standardised over its features, and the
joint action joins the agents' actions. OMAR's cheetah (`2halfcheetah`) is gymnasium-robotics' `2x3`, where an agent
observes position and velocity of its own three joints, not normalised. The state is the robot's raw one in every task,
or the first agent's observation where the data have that (OMIGA's).

Physics is `native`, or `legacy`: the capsule inertia of MuJoCo before 2.1.2, in which the real data were recorded,
restored at run time. Source: OMIGA's mujoco_multi.py; MuJoCo's changelog, 2.1.2.
Shapes: E lanes, I agents, O observation, G state, A actions of one agent.
"""

import contextlib
import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import load_env_creator

from offmarl.benchmarks.env import Step, View
from offmarl.benchmarks.tasks import Task

mj: Any = mujoco  # compiled: type checkers do not see its functions


@dataclass(frozen=True)
class Robot:
    """The robot of a task."""

    gym: str  # gymnasium's id
    contacts: int = 0  # contact forces at the end of the state; zero in the data, because MuJoCo 2.0 left them out
    partition: str = ""  # gymnasium-robotics' name of the division whose local observations are used
    weight: float | None = None  # kg that its XML file scales the robot to


ROBOTS = {
    "6halfcheetah": Robot("HalfCheetah-v5", weight=14.0),
    "3hopper": Robot("Hopper-v4"),
    "2ant": Robot("Ant-v4", contacts=84),
    "2halfcheetah": Robot("HalfCheetah-v5", partition="2x3", weight=14.0),
}


class MaMujocoEnv:
    """`lanes` robots stepped one after another; a `BatchEnv`. Raises ValueError for an unknown physics.

    A lane whose episode is over keeps its last view and gets no reward.
    """

    def __init__(self, task: Task, lanes: int):
        self.task, self.lanes = task, lanes
        robot = ROBOTS[task.short]
        self.robots = [build(robot, task.roster.get("physics", "native")) for _ in range(lanes)]
        self._own = local_features(robot.gym, robot.partition) if robot.partition else None
        self._sensed = self.robots[0].observation_space.shape[0]
        self._state = np.zeros((lanes, self._sensed + robot.contacts))
        self._id = np.broadcast_to(np.eye(task.agents), (lanes, task.agents, task.agents))
        self._done, self._timeout, self._clock = np.ones(lanes, bool), np.zeros(lanes, bool), 0

    def reset(self, seeds: np.ndarray) -> View:
        """Put every robot at its start, each disturbed by its own seed: [E]."""
        for e, seed in enumerate(seeds):
            self._state[e, : self._sensed] = self.robots[e].reset(seed=int(seed) % 2**32)[0]
        self._done, self._timeout, self._clock = np.zeros(self.lanes, bool), np.zeros(self.lanes, bool), 0
        return self._view()

    def step(self, actions: np.ndarray) -> Step:
        """Joint actions [E,I,A], clipped to [-1, 1]. Raises ValueError when an action is NaN."""
        joint = np.clip(np.asarray(actions, np.float64).reshape(self.lanes, -1), -1.0, 1.0)
        if np.isnan(joint).any():
            raise ValueError(f"{self.task.name}, lane {np.isnan(joint).any(1).argmax()}: an action is NaN")
        reward, fell = np.zeros(self.lanes, np.float32), self._done & ~self._timeout
        for e in np.flatnonzero(~self._done):
            self._state[e, : self._sensed], reward[e], fell[e], *_ = self.robots[e].step(joint[e])
        self._clock += 1
        self._timeout |= ~fell & (self._clock >= self.task.limit)
        self._done = fell | self._timeout
        return Step(self._view(), reward, self._done.copy(), self._timeout.copy(), None)

    def close(self) -> None:
        """Release what a robot may have opened for rendering."""
        for robot in self.robots:
            robot.close()

    def _view(self) -> View:
        state = self._state.astype(np.float32)
        if self._own is not None:
            return View(state[:, self._own], state, None)
        seen = np.concatenate([np.repeat(self._state[:, None], self.task.agents, 1), self._id], -1)
        seen -= seen.mean(-1, keepdims=True)
        seen /= np.sqrt(np.square(seen).mean(-1, keepdims=True))
        obs = seen.astype(np.float32)
        return View(obs, state if self.task.state == state.shape[1] else obs[:, 0], None)


def build(robot: Robot, physics: str = "native") -> Any:
    """One robot of gymnasium, without wrappers (the time limit is ours)."""
    if physics not in ("native", "legacy"):
        raise ValueError(f"physics '{physics}': should be native or legacy")
    create: Any = load_env_creator(str(gymnasium.spec(robot.gym).entry_point))
    env = create()
    if physics == "legacy":
        set_inertia(env.model, env.data, robot.weight)
    return env


@cache
def local_features(gym: str, partition: str) -> np.ndarray:
    """Where each agent's own joints lie in the state: [I,O], in gymnasium-robotics' order (and OMAR's)."""
    with contextlib.redirect_stderr(io.StringIO()):  # its import warns of robots that we do not use
        from gymnasium_robotics import mamujoco_v1
    env = mamujoco_v1.parallel_env(gym.split("-")[0], partition, agent_obsk=0, global_categories=())
    return np.stack(list(env.observation_factorization.values()))


def set_inertia(model: Any, data: Any, weight: float | None, exact: bool = False) -> None:
    """Compute masses and inertias of all bodies from their geoms anew, with capsules as MuJoCo took them before 2.1.2.

    The robot is scaled to `weight` kg; None keeps the density. `exact` takes capsules as they are, as MuJoCo compiled.
    """
    geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g]]
    density = model.body_mass.sum() / sum(_solid(model, g, exact=True)[0] for g in geoms)
    parts: dict[int, list[int]] = {}
    for g in geoms:
        parts.setdefault(int(model.geom_bodyid[g]), []).append(g)
    for body, own in parts.items():
        solids = [_solid(model, g, exact) for g in own]
        volume = sum(v for v, _ in solids)
        centre = sum(v * model.geom_pos[g] for g, (v, _) in zip(own, solids)) / volume
        tensor = np.zeros((3, 3))
        for g, (v, about_itself) in zip(own, solids):
            turn, offset = np.zeros(9), model.geom_pos[g] - centre
            mj.mju_quat2Mat(turn, model.geom_quat[g])
            turn = turn.reshape(3, 3)
            tensor += turn * about_itself @ turn.T + v * (offset @ offset * np.eye(3) - np.outer(offset, offset))
        model.body_mass[body], model.body_ipos[body] = density * volume, centre
        mj.mju_eig3(model.body_inertia[body], np.zeros(9), model.body_iquat[body], density * tensor.ravel())
    if weight is not None:
        scale = weight / model.body_mass.sum()
        model.body_mass *= scale
        model.body_inertia *= scale
    mj.mj_setConst(model, data)


def _solid(model: Any, geom: int, exact: bool) -> tuple[float, np.ndarray]:
    """Volume of a sphere or capsule, and its inertia [3] at density 1 about its own axes.

    Before 2.1.2 a capsule was taken as a cylinder of its radius that is longer by the radius.
    Raises ValueError when the geom has another shape.
    """
    radius, half = model.geom_size[geom][:2]
    ball = 4 / 3 * np.pi * radius**3
    if model.geom_type[geom] == mj.mjtGeom.mjGEOM_SPHERE:
        return ball, np.full(3, 0.4 * ball * radius**2)
    if model.geom_type[geom] != mj.mjtGeom.mjGEOM_CAPSULE:
        raise ValueError(f"geom {geom}: only spheres and capsules are known here")
    length = 2 * half if exact else 2 * half + radius
    tube = np.pi * radius**2 * length
    across, along = tube * (3 * radius**2 + length**2) / 12, tube * radius**2 / 2
    if not exact:
        return tube, np.array([across, across, along])
    caps = ball * (0.4 * radius**2 + 0.375 * radius * length + 0.25 * length**2)
    return tube + ball, np.array([across + caps, across + caps, along + 0.4 * ball * radius**2])
