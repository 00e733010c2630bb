"""What the figures of a dataset show: shares of actions over time, and where units start and die."""

import numpy as np
import pytest
from dial import Dial

from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.measures.pictures import CELLS, PLACES, TENTHS, pictures

GAME = Task("games/dial", "games", 2, 9, 18, 8, 20, "game")


def battle(paths, actions):
    """An episode of 3m whose units are at these places [T + 1, 6, 2], or dead where that is NaN; actions [T, 3]."""
    task, paths = tasks()["smac/3m"], np.asarray(paths, float)
    alive = np.isfinite(paths[..., 0])
    place = np.nan_to_num((paths - 16) / 32)
    state = np.zeros((len(paths), task.state), np.float32)
    mine, theirs = state[:, :12].reshape(-1, 3, 4), state[:, 12:21].reshape(-1, 3, 3)
    mine[..., 0], mine[..., 2:] = alive[:, :3], place[:, :3] * alive[:, :3, None]
    theirs[..., 0], theirs[..., 1:] = alive[:, 3:], place[:, 3:] * alive[:, 3:, None]
    steps = len(paths) - 1
    return {
        "obs": np.zeros((steps + 1, 3, task.obs), np.float32),
        "state": state,
        "legal": np.ones((steps + 1, 3, task.actions), bool),
        "actions": np.array(actions),
        "rewards": np.ones((steps, 3), np.float32),
        "done": np.True_,
        "timeout": np.False_,
    }


def test_units_are_counted_where_they_start_and_where_they_die():
    gone = [np.nan, np.nan]
    home, there = [[4.1, 8.1]] * 3, [[28.1, 8.1]] * 3
    met = [[10.1, 20.1], gone, [4.1, 8.1], gone, [28.1, 8.1], [99.0, 8.1]]
    last = [gone, gone, [4.1, 8.1], gone, [28.1, 8.1], gone]
    data = from_episodes([battle([home + there, met, last], [[2, 6, 1], [7, 0, 1]])], [0])
    found = pictures(data, tasks()["smac/3m"])["places"]
    counts = {(side, what): np.array(found[side][what]) for side in ("ours", "theirs") for what in ("start", "death")}
    cell = 32 / PLACES
    assert counts["ours", "start"][int(8.1 / cell), int(4.1 / cell)] == 3 == counts["ours", "start"].sum()
    assert counts["ours", "death"][int(20.1 / cell), int(10.1 / cell)] == 1
    assert counts["ours", "death"][int(8.1 / cell), int(4.1 / cell)] == 1
    assert counts["theirs", "death"].sum() == 2 and counts["theirs", "death"][int(8.1 / cell), -1] == 1  # at the edge


def test_actions_are_shares_by_agent_and_time():
    paths = [[[4, 8]] * 3 + [[28, 8]] * 3] * 11
    moves = [[2, 6, 1]] * 5 + [[0, 7, 5]] * 5
    data = from_episodes([battle(paths, moves)], [0])
    found = pictures(data, tasks()["smac/3m"])["actions"]
    assert found["names"] == ["dead", "stop", "move", "attack"]
    first, second, third = np.array(found["shares"])
    assert first[0].tolist() == [0, 0, 1, 0] and first[-1].tolist() == [1, 0, 0, 0]
    assert (second == [0, 0, 0, 1]).all()
    assert third[0].tolist() == [0, 1, 0, 0] and third[-1].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("continuous", [False, True])
def test_other_tasks_have_their_commonest_actions_or_thirds(continuous):
    found = pictures(Dial(episodes=40, continuous=continuous).dataset(), GAME)
    shares = np.array(found["actions"]["shares"])
    assert shares.shape == (2, TENTHS, 3 if continuous else 6)
    assert shares.sum(-1) == pytest.approx(1, abs=1e-3)
    assert found["actions"]["names"][-1] == ("above ⅓" if continuous else "others")
    assert "places" not in found and "lengths" not in found  # all are equally long
    assert sum(found["returns"]["counts"]) == 40 and found["episodes"] == 40


def test_episodes_are_counted_by_length_and_return():
    rows = [battle([[[4, 8]] * 6] * (n + 1), [[1, 1, 1]] * n) for n in (2, 2, 9)]
    counts = np.array(pictures(from_episodes(rows, [0] * 3), tasks()["smac/3m"])["lengths"]["counts"])
    assert counts.shape == (CELLS, CELLS) and counts[0, 0] == 2 and counts[-1, -1] == 1  # each step pays 1
