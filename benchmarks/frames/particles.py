"""The particle worlds, watched: agents and landmarks."""

import numpy as np

from offmarl.benchmarks.frames.film import NOBODY, NOBODYS, OURS, THEIRS, Body, Scene
from offmarl.benchmarks.mpe import DT, FOOD, FORESTS, LEARNERS, MpeEnv

COLUMNS = {"x": 0.002, "y": 0.002}


class Watched(MpeEnv):
    """`MpeEnv` with pictures. They may leave the area, which is where they start."""

    def scene(self, lane: int) -> Scene:
        """The learners, their prey, and the landmarks."""
        rules, own, solid = self.world.rules, [], self.world.rules.solid
        for i, radius in enumerate(rules.radii):
            learner = i < LEARNERS
            own.append(Body("agent" if learner else "prey", THEIRS - learner, i if learner else NOBODY, radius))
        names = ["obstacle" if k < solid else "landmark" for k in range(len(rules.landmarks))]
        if self.world.scenario == "world":
            names[FOOD], names[FORESTS] = ["food"] * 2, ["forest"] * 2
        bodies = [Body(name, NOBODYS, NOBODY, radius) for name, radius in zip(names, rules.landmarks)]
        assert own[0].side == OURS
        return Scene("particles", DT, (-1.3, -1.3, 1.3, 1.3), COLUMNS, own + bodies)

    def frame(self, lane: int) -> np.ndarray:
        """Their places: [K,2]."""
        return np.concatenate([self.world.agents[lane], self.world.landmarks[lane]])
