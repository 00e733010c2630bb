"""The scripts of foragers and warehouse robots: where they go, and that a better quality earns more."""

import dataclasses

import numpy as np
import pytest

from offmarl.benchmarks.env import View
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.embedded import warehouse
from offmarl.datasets.embedded.foraging import LOAD, Foragers
from offmarl.datasets.embedded.recipes import catalogue
from offmarl.datasets.embedded.warehouse import COUNTER, DOWN, EAST, LEFT, QUEUE, RIGHT, TOGGLE, UP, Robots

STEP = {UP: (0, -1), DOWN: (0, 1), LEFT: (-1, 0), RIGHT: (1, 0)}
HIGHWAY = [(x, y) for x in range(EAST + 1) for y in range(COUNTER + 1) if x % 3 == 0 or y % 9 == 0 or y == COUNTER]
HIGHWAY += [(x, y) for x in (4, 5) for y in range(1, QUEUE)]


def drive(place, to_counter, steps=80):
    """The cells of the way round."""
    for _ in range(steps):
        yield place
        move = STEP[warehouse._way(*place, to_counter)]
        place = place[0] + move[0], place[1] + move[1]


@pytest.mark.parametrize("start", HIGHWAY, ids=str)
def test_the_way_round_stays_on_the_highway_passes_all_shelves_and_the_counter(start):
    cells = set(drive(start, to_counter=False))
    assert cells <= set(HIGHWAY) and {(x, y) for x in (0, 3, 6, 9) for y in range(1, QUEUE)} <= cells
    assert {(4, COUNTER), (5, COUNTER)} & set(drive(start, to_counter=True))


def robot(x, y, heading, carries=0, highway=1, **cells):
    """What a robot sees; in its nine `cells` r is a requested shelf, s another, a a robot."""
    obs = np.zeros((1, 1, 71), np.float32)
    obs[0, 0, :3], obs[0, 0, 3 + heading], obs[0, 0, 7] = (x, y, carries), 1, highway
    for name, what in cells.items():
        cell = obs[0, 0, 8 + 7 * int(name[1:]) :]
        cell[0], cell[5], cell[6] = what == "a", what in "rs", what == "r"
    return obs


@pytest.mark.parametrize(
    ("seen", "mirrored", "action"),
    [
        (robot(0, 4, UP), False, 1),
        (robot(0, 4, UP, c5="r"), False, 3),  # turns to the requested shelf
        (robot(0, 4, RIGHT, c5="r"), False, 1),
        (robot(1, 4, RIGHT, highway=0, c4="r"), False, TOGGLE),
        (robot(1, 4, LEFT, carries=1, highway=0, c4="r"), False, 1),  # out to the aisle
        (robot(0, 4, UP, carries=1, c4="s", c5="s"), False, 1),  # no free place here
        (robot(0, 4, RIGHT, carries=1, c4="s"), False, 1),  # a free place
        (robot(1, 4, RIGHT, carries=1, highway=0, c4="s"), False, TOGGLE),
        (robot(9, 4, UP), True, 1),
        (robot(0, 4, DOWN), True, 1),
    ],
)
def test_robots_fetch_deliver_and_bring_back(seen, mirrored, action):
    view = View(seen, seen[:, 0], np.ones((1, 1, 5), bool))
    assert Robots(tasks()["rware/tiny-2ag"], mirrored)(view, np.random.default_rng(0)) == action


@pytest.mark.parametrize(("food", "aims"), [("nearest", 1), ("first", 0), ("last", 2)])
def test_foragers_go_to_the_food_of_their_convention_and_load_beside_it(food, aims):
    foods, places = [[1, 1, 3], [4, 4, 3], [6, 5, 3]], [[4, 2, 1], [4, 6, 2]]
    obs = np.array([[*sum(foods, []), *places[i], *places[1 - i]] for i in (0, 1)], np.float32)[None]
    legal = np.ones((1, 2, 6), bool)
    act, rng = Foragers(tasks()["lbf/8x8-2p-3f-coop"], food), np.random.default_rng(0)
    moves = {0: (0, 0), 1: (-1, 0), 2: (1, 0), 3: (0, -1), 4: (0, 1)}
    for _ in range(20):
        actions = act(View(obs, obs[:, 0], legal), rng)[0]
        if (actions == LOAD).all():
            break
        obs[0, [0, 1], 9:11] += [moves[a] if a != LOAD else (0, 0) for a in actions]
        obs[0, [0, 1], 12:14] = obs[0, [1, 0], 9:11]
    assert (np.abs(obs[0, :, 9:11] - foods[aims][:2]).sum(-1) == 1).all() and (obs[0, 0, 9:11] != obs[0, 1, 9:11]).any()


@pytest.mark.parametrize(
    ("name", "episodes"), [("lbf/8x8-2p-2f-coop", 32), ("lbf/10x10-3p-3f-coop", 24), ("rware/tiny-2ag", 2)]
)
def test_a_better_quality_earns_more(name, episodes, monkeypatch, tmp_path):
    means = []
    for quality in ("poor", "medium", "good"):
        recipe = dataclasses.replace(catalogue()[name, quality], episodes=episodes, lanes=episodes)
        means.append(recipe.record(lambda _: None).returns().mean())
    assert means[0] < means[1] < means[2]
