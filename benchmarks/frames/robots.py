"""MuJoCo's robots, watched: segments and what touches the ground, from the bodies' transforms. No OpenGL is needed."""

from typing import Any

import mujoco
import numpy as np

from offmarl.benchmarks.frames.film import NOBODY, OURS, Body, Scene
from offmarl.benchmarks.mamujoco import MaMujocoEnv

mj: Any = mujoco  # compiled: type checkers do not see its functions
FLOOR = 0  # the geom
ENDS = {"x": 0, "y": 1, "z": 2}
GRAIN = 0.02  # metres to which places are rounded


class Watched(MaMujocoEnv):
    """`MaMujocoEnv` with pictures: the two ends of every segment, and whether it touches the ground.

    A robot that moves in a plane has no column `y`. A ball is a segment whose ends are the same.
    """

    def scene(self, lane: int) -> Scene:
        """The segments, and the agents whose actuators move them."""
        model, bodies = self.robots[lane].model, []
        joints = model.jnt_bodyid[model.actuator_trnid[:, 0]]
        for g in range(1, model.ngeom):
            moved_by = np.flatnonzero(joints == model.geom_bodyid[g])
            agent = int(moved_by[0]) // self.task.actions if len(moved_by) else NOBODY
            name = str(mj.mj_id2name(model, mj.mjtObj.mjOBJ_GEOM, g)).removesuffix("_geom").replace("_", " ")
            bodies.append(Body(name, OURS, agent, float(model.geom_size[g, 0])))
        names = [f"{axis}{end}" for end in (0, 1) for axis in self._axes(model)]
        columns = {**dict.fromkeys(names, GRAIN), "ground": 1.0}
        area = (-1.6, -0.8, 1.6, 1.2) if "y0" in columns else (-1.5, -0.2, 1.5, 1.8)
        return Scene("robot", float(self.robots[lane].dt), area, columns, bodies)

    def frame(self, lane: int) -> np.ndarray:
        """The segments now: [K,C]."""
        model, data = self.robots[lane].model, self.robots[lane].data
        capsule = model.geom_type == mj.mjtGeom.mjGEOM_CAPSULE
        half = np.where(capsule, model.geom_size[:, 1], 0.0)[:, None] * data.geom_xmat.reshape(-1, 3, 3)[:, :, 2]
        axes = [ENDS[axis] for axis in self._axes(model)]
        pairs = [pair for pair in data.contact.geom if FLOOR in pair]
        ground = np.isin(np.arange(model.ngeom), np.ravel(pairs))[:, None]
        return np.concatenate([(data.geom_xpos - half)[:, axes], (data.geom_xpos + half)[:, axes], ground], 1)[1:]

    @staticmethod
    def _axes(model: Any) -> str:
        return "xyz" if model.jnt_type[0] == mj.mjtJoint.mjJNT_FREE else "xz"
