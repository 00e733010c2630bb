"""Level-Based Foraging, watched: players and foods with their levels, and which food is left."""

from typing import Any

import numpy as np

from offmarl.benchmarks.frames.film import NOBODYS, OURS, Body, Scene

COLUMNS = {"x": 1.0, "y": 1.0, "there": 1.0}
MOVES = ["stay", "north", "south", "west", "east", "load"]


def scene(env: Any) -> Scene:
    """The players, then the foods. The field forgets what is eaten, so the environment is given their places."""
    env.sown = np.argwhere(env.field)
    players = [Body(f"level {player.level}", OURS, agent=i) for i, player in enumerate(env.players)]
    foods = [Body(f"food {env.field[row, column]}", NOBODYS) for row, column in env.sown]
    rows, columns = env.field_size
    return Scene("cells", 0.3, (-0.5, -0.5, columns - 0.5, rows - 0.5), COLUMNS, players + foods, MOVES)


def frame(env: Any) -> np.ndarray:
    """Their places, and whether they are there: [K,3]."""
    rows, columns = np.array([*(player.position for player in env.players), *env.sown]).T
    left = [True] * len(env.players) + [env.field[row, column] > 0 for row, column in env.sown]
    return np.stack([columns, env.field_size[0] - 1 - rows, left], 1)
