"""Frames show what the simulators compute, and watching changes nothing."""

import itertools

import numpy as np
import pytest

from offmarl.benchmarks.frames.film import NOBODY, WATCHED, Body, Film, Scene, watched
from offmarl.benchmarks.frames.smax import Watched
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import make_env, tasks
from offmarl.datasets.embedded.recipes import catalogue

ATTACK = 6


def play(env, act, seeds):
    """Every step until all episodes are over."""
    view, rng, steps, over = env.reset(np.array(seeds)), np.random.default_rng(0), [], False
    while not np.all(over):
        steps.append(env.step(act(view, rng)))
        view, over = steps[-1].view, over | steps[-1].done
    return steps


@pytest.fixture(scope="module")
def marines_at_war(marines):
    """A film of 20 battles by good marines, in two chunks, and their last steps."""
    film = Film(Watched(marines, 20), range(20))
    return film, play(film, catalogue()["smac/3m", "good"].team()[0], range(20))


def test_watching_a_battle_changes_nothing(marines_at_war, marines):
    film, seen = marines_at_war
    unseen = play(make_env(marines, 20), catalogue()["smac/3m", "good"].team()[0], range(20))
    for one, other in zip(seen, unseen, strict=True):
        assert all(map(np.array_equal, [*one.view, *one[1:5]], [*other.view, *other[1:5]]))
    assert {take.end for take in film.takes.values()} == {"won", "lost"}


def test_rewards_follow_from_the_units_of_the_frames(marines_at_war):
    """SMAC's reward (damage, 10 for a kill, 200 for the win, 20 in all), of what the frames show of the enemies."""
    film, _ = marines_at_war
    for take in film.takes.values():
        foes = np.array(take.frames)[:, 3:, 2]
        harm = -np.diff(foes, axis=0).sum(1) - 10 * np.diff((foes > 0).sum(1))
        harm[-1] += 200 * (take.end == "won")
        assert np.array(take.rewards) == pytest.approx(20 * harm / (3 * 45 + 30 + 200), abs=1e-5)


def test_every_hit_has_somebody_who_fired_at_it_and_orders_are_those_given(marines_at_war):
    film, _ = marines_at_war
    hits = 0
    for take in film.takes.values():
        for (before, after), actions in zip(itertools.pairwise(take.frames), take.actions, strict=True):
            target, fires = after[:, 4].astype(int), after[:, 5] == 1
            for k in np.flatnonzero(after[:, 2] < before[:, 2] - 1e-4):
                assert (fires & (target == k)).any()
                hits += 1
            for agent, action in enumerate(actions):
                assert target[agent] in ((3 + action - ATTACK, NOBODY) if action >= ATTACK else (NOBODY,))
                assert after[agent, 2] == 0 or action < ATTACK or target[agent] != NOBODY
            assert (target[(before[:, 2] == 0)] == NOBODY).all()
    assert hits > 500
    assert {body.sight for body in film.takes[0].scene.bodies} == {9.0}


@pytest.mark.parametrize("name", ["spread", "tag", "world"])
def test_particles_are_where_the_agents_see_themselves(name):
    film = Film(watched(tasks()[f"mpe/{name}"], 2), [1])
    last = play(film, uniform(film.env.task), [3, 4])[-1]
    take = film.takes[1]
    assert film.takes.keys() == {1} and len(take.frames) == 26 == len(take.actions) + 1
    assert take.frames[-1][:3] == pytest.approx(last.view.obs[1, :, 2:4], abs=1e-6)
    first_landmark = next(k for k, body in enumerate(take.scene.bodies) if body.side == 2)
    assert take.frames[-1][first_landmark] - take.frames[-1][0] == pytest.approx(last.view.obs[1, 0, 4:6], abs=1e-6)
    assert take.end == "time limit"


@pytest.mark.parametrize("name, segments, ends", [("6halfcheetah", 8, "xz"), ("3hopper", 4, "xz"), ("2ant", 13, "xyz")])
def test_segments_keep_their_length_and_rest_on_the_ground(name, segments, ends):
    task = tasks()[f"mamujoco/{name}"]
    film = Film(watched(task, 1), [0])
    film.reset(np.array([1]))
    for _ in range(60):  # falls, and stays down
        if film.step(np.zeros((1, task.agents, task.actions))).done[0]:
            break
    (take,) = film.takes.values()
    frames, D = np.array(take.frames), len(ends)
    assert frames.shape[1:] == (segments, 2 * D + 1) and list(take.scene.columns)[:D] == [f"{axis}0" for axis in ends]
    one, other, ground = frames[..., :D], frames[..., D : 2 * D], frames[..., -1] == 1
    length = np.linalg.norm(one - other, axis=-1)
    assert np.ptp(length, axis=0).max() < 1e-9
    radius = np.array([body.size for body in take.scene.bodies])
    lowest = np.minimum(one[..., -1], other[..., -1]) - radius
    assert ground.any() and (lowest[ground] < 0.02).all() and (lowest[~ground] > -1e-3).all()
    assert sorted({body.agent for body in take.scene.bodies} - {NOBODY}) == list(range(task.agents))


@pytest.mark.parametrize("name", ["2halfcheetah", "6halfcheetah", "3hopper", "2ant"])
def test_a_running_robot_stays_within_its_picture(name):
    """As `_robot` of reports/replays/gif.py draws it, for a hundred steps of the expert."""
    recipe = catalogue()[f"mamujoco/{name}", "expert"]
    film, act, rng = Film(watched(recipe.task, 1), [0]), recipe.team()[0], np.random.default_rng(0)
    view = film.reset(np.array([0]))
    for _ in range(100):
        view = film.step(act(view, rng)).view
    scene, seen = film.env.scene(0), np.array(film.takes[0].frames)
    column = dict(zip(scene.columns, np.moveaxis(seen, -1, 0)))
    places = [[column.get(f"{axis}{end}", np.zeros_like(column["x0"])) for end in (0, 1)] for axis in "xyz"]
    x, y = (place - np.mean(place, 0)[:, :1] for place in np.array(places[:2]))
    right_of, above = x + 0.5 * y, places[2] + 0.3 * y
    left, bottom, right, top = scene.area
    assert left < right_of.min() and right_of.max() < right
    assert bottom < above.min() and above.max() < top


def test_foragers_are_where_they_see_themselves_and_what_they_eat_is_gone():
    task = tasks()["lbf/8x8-2p-3f-coop"]
    film = Film(watched(task, 4), range(4))
    last = play(film, catalogue()[task.name, "good"].team()[0], range(4))[-1]
    for lane, take in film.takes.items():
        me, food = last.view.obs[lane, 0, 9:12], last.view.obs[lane, 0, :9].reshape(3, 3)
        row, column, level = me
        assert take.frames[-1][0].tolist() == [column, 7 - row, 1] and take.scene.bodies[0].name == f"level {level:.0f}"
        assert take.frames[-1][2:, 2].sum() == (food[:, 2] > 0).sum()
        left = {(column, 7 - row) for row, column, level in food if level}
        assert {tuple(place[:2]) for place in take.frames[-1][2:] if place[2]} == left
        assert (take.end == "won") == (not left) and take.frames[0][:, 2].all()
        paid = np.flatnonzero(take.rewards)
        assert {t + 1 for t in paid} == {
            t for t in range(1, len(take.frames)) if np.ptp([f[2:, 2].sum() for f in take.frames[t - 1 : t + 1]])
        }
    film.close()


def test_robots_are_where_they_see_themselves_and_shelves_are_asked_for():
    task = tasks()["rware/tiny-2ag"]
    film, act, rng = (
        Film(watched(task, 1), [0]),
        catalogue()["rware/tiny-2ag", "good"].team()[0],
        np.random.default_rng(0),
    )
    view, carried = film.reset(np.array([3])), 0
    for _ in range(60):
        shown = film.takes[0].frames[-1]
        x, y, carries, _, down, left, right = view.obs[0, :, :7].T
        assert np.array_equal(shown[:2], np.stack([x, 10 - y, carries, right + 2 * down + 3 * left], 1))
        carried += int(carries.sum())
        assert shown[2:, 2].sum() == 2 and (shown[2:, 3] == -1).all()  # two requests at a time
        for robot in shown[:2][carries > 0]:
            assert (shown[2:, :2] == robot[:2]).all(1).any()  # a shelf moves along
        view = film.step(act(view, rng)).view
    assert carried > 10 and [body.name for body in film.takes[0].scene.bodies[-2:]] == ["counter", "counter"]
    film.close()


class Clock:
    """What `Countdown` looks like: one body at the time of the episode."""

    def scene(self, lane):
        return Scene("particles", 1.0, (0, 0, 1, 1), {"x": 1.0}, [Body("clock", 0)])

    def frame(self, lane):
        return np.array([[float(self.t)]])


def test_episodes_are_filmed_by_number_over_all_waves(countdown):
    env = type("Watched", (Clock, type(countdown(3))), {})(3)
    film = Film(env, [1, 5])
    for seeds in ([4, 5, 6], [7, 8, 9]):  # of episodes 0 to 5
        film.reset(np.array(seeds))
        for _ in range(5):  # beyond the end, where rewards are poison
            film.step(np.zeros((3, 3), int))
    assert [(n, take.return_, take.end, len(take.frames)) for n, take in film.takes.items()] == [
        (1, 5 + 6, "won", 3),
        (5, 9 + 10, "won", 3),
    ]
    assert film.takes[5].frames[-1] == 2


def test_an_engine_without_pictures_is_named(marines, monkeypatch):
    monkeypatch.delitem(WATCHED, "smax")
    with pytest.raises(ValueError, match="smac/3m: smax has no pictures"):
        watched(marines, 1)


def test_a_task_of_ones_own_is_watched_where_its_adapter_has_pictures(countdown, marines, monkeypatch):
    import dataclasses

    from offmarl.benchmarks.frames import film

    own = dataclasses.replace(marines, engine="own")
    monkeypatch.setattr(film, "make_env", lambda task, seeds, episodes: countdown(episodes))
    with pytest.raises(ValueError, match=r"smac/3m: its file, without scene\(\) and frame\(\), has no pictures"):
        watched(own, 2)
    monkeypatch.setattr(film, "make_env", lambda task, seeds, episodes: type("Own", (Clock, type(countdown(1))), {})(2))
    assert watched(own, 2).lanes == 2
