"""RWARE, watched: robots, where they look and whether they carry, and which shelves are asked for."""

from typing import Any

import numpy as np

from offmarl.benchmarks.frames.film import NOBODYS, OURS, Body, Scene

COLUMNS = {"x": 1.0, "y": 1.0, "mark": 1.0, "heading": 1.0}
MOVES = ["wait", "forward", "turn left", "turn right", "load or unload"]
CLOCKWISE = (0, 2, 3, 1)  # quarter turns from north of up, down, left and right


def scene(env: Any) -> Scene:
    """The robots, the shelves, and the counters."""
    robots = [Body("", OURS, agent=i) for i in range(env.n_agents)]
    bodies = robots + [Body("shelf", NOBODYS)] * len(env.shelfs) + [Body("counter", NOBODYS)] * len(env.goals)
    rows, columns = env.grid_size
    return Scene("cells", 0.1, (-0.5, -0.5, columns - 0.5, rows - 0.5), COLUMNS, bodies, MOVES)


def frame(env: Any) -> np.ndarray:
    """Their places, whether they carry or are asked for, and where they look: [K,4]."""
    asked = {shelf.id for shelf in env.request_queue}
    robots = [(robot.x, robot.y, robot.carrying_shelf is not None, CLOCKWISE[robot.dir.value]) for robot in env.agents]
    shelves = [(shelf.x, shelf.y, shelf.id in asked, -1) for shelf in env.shelfs]
    found = np.array(robots + shelves + [(x, y, False, -1) for x, y in env.goals])
    found[:, 1] = env.grid_size[0] - 1 - found[:, 1]
    return found
