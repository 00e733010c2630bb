"""Replays that are known in full."""

import numpy as np
import pytest

from offmarl.reports.records.replay import Header, Replay

COLUMNS = {
    "units": {"x": 0.02, "y": 0.02, "health": 0.1, "shield": 0.1, "target": 1.0, "fires": 1.0},
    "particles": {"x": 0.002, "y": 0.002},
    "cells": {"x": 1.0, "y": 1.0, "there": 1.0, "mark": 1.0, "heading": 1.0},
    "robot": {"x0": 0.02, "y0": 0.02, "z0": 0.02, "x1": 0.02, "y1": 0.02, "z1": 0.02, "ground": 1.0},
}


@pytest.fixture(scope="session")
def duel():
    """Make the replay of an episode of `steps` steps that pays a half each: two agents, and an enemy that dies."""

    def make(kind="units", steps=8, title="BC", **facts):
        columns, T = COLUMNS[kind], steps
        frames, t = np.zeros((T + 1, 3, len(columns))), np.linspace(0, 1, T + 1)
        frames[..., 0] = [10.0, 11.0, 14.0] + 2 * t[:, None]
        frames[..., 1] = [5.0, 7.0, 6.0]
        if kind == "units":
            frames[..., 2] = np.stack([45 - 20 * t, 45 + 0 * t, np.maximum(45 - 50 * t, 0)], 1)
            frames[..., 3], frames[1:, :, 4], frames[..., 4:5][0] = 10.0, [2, -1, 0], -1
            frames[1::2, 0, 5] = 1
        if kind == "cells":
            frames[..., 0], frames[..., 1], frames[..., 2] = frames[..., 0].round() - 8, [1, 2, 3], 1.0
            frames[..., 3], frames[..., 4] = t[:, None] > 0.5, [-1, 2, 1]
            frames[-1, 2, 2], facts = 0.0, {"area": [-0.5, -0.5, 9.5, 4.5], **facts}
        if kind == "robot":
            frames[..., 3:6], frames[..., -1] = frames[..., :3] + [0.5, 0, 0.5], t[:, None] > 0.5
        body = {"size": 0.375, "health": 45.0, "shield": 20.0, "sight": 9.0}
        bodies = [{"name": "marine", "side": k // 2, "agent": (0, 1, -1)[k], **body} for k in range(3)]
        head = {
            **{"task": "smac/3m", "quality": "good", "source": "embedded", "title": title, "episode": 7, "end": "won"},
            **{"kind": kind, "tick": 0.05, "area": [-1.5, -0.2, 1.5, 1.8], "return": 0.5 * T, "bodies": bodies},
            **{"columns": [{"name": name, "step": step} for name, step in columns.items()], "steps": T, "agents": 2},
            **{"actions": 1, "action_step": 1.0, "moves": ["none", "stop"], "stored": 0.5 * T, "same": True, **facts},
        }
        actions = np.stack([np.full((T, 1), 2.0), np.full((T, 1), 1.0)], 1)
        return Replay(Header(**head), frames, 0.5 * np.arange(T + 1), actions)

    return make
