"""Scripted behaviours of the particle tasks: what they aim at, and what they earn."""

import numpy as np
import pytest

from offmarl.benchmarks.env import View
from offmarl.benchmarks.mpe import MpeEnv
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.embedded.controllers import ORDERS, Chase, Cover, controller, uniform

EPISODES = 256
SEES = {"spread": 18, "tag": 16, "world": 24}
RANDOM = {"random": True}
EXPLORING = [(0.05, 0.8), (0.1, 0.6), (0.15, 0.5), (0.25, 0.4), (0.35, 0.3), (0.45, 0.2)]
CREEPING = [(0.1, 0.8), (0.2, 0.5), (0.3, 0.3), (0.35, 0.3)]
RECIPES = {  # mean and deviation of the real dataset's returns, behaviours in turn
    "spread": {
        "random": (159.6, 60.5, [RANDOM]),
        "medium-replay": (203.7, 80.5, [RANDOM, *({"gain": g, "damping": 0.5, "noise": n} for g, n in EXPLORING)]),
        "medium": (
            273.4,
            92.1,
            [
                {"gain": g, "damping": 0.5, "noise": 0.2, "share": "shortest" if g < 0.5 else "nearest"}
                for g in (0.45, 0.6)
            ],
        ),
        "expert": (530.9, 71.4, [{"gain": 3.0, "share": "own"}, {"gain": 4.0, "damping": 1.5, "share": "own"}]),
    },
    "tag": {
        "medium-replay": (3.9, 20.3, [RANDOM, *({"speed": v, "noise": n} for v, n in [*CREEPING, (0.25, 0.4)])]),
        "medium": (116.4, 58.9, [{"speed": 0.65}, {"lead": -0.03}, {"speed": 0.55}]),
        "expert": (207.9, 77.5, [{"lead": 0.3}, {"lead": 0.6}]),
    },
    "world": {
        "medium-replay": (1.2, 13.5, [RANDOM, *({"speed": v, "noise": n} for v, n in [*CREEPING, (0.45, 0.3)])]),
        "medium": (65.9, 29.5, [{"speed": 0.7}, {"lead": -0.03}, {"speed": 0.65}]),
        "expert": (85.2, 31.1, [{"lead": 0.0}, {"speed": 0.8}]),
    },
}


@pytest.fixture(autouse=True)
def no_prey_file(monkeypatch):
    monkeypatch.delenv("OFFMARL_PREY", raising=False)


def task_of(scenario):
    sees = SEES[scenario]
    return Task(f"mpe/{scenario}", "mpe", 3, sees, 3 * sees, 2, 25, "particles", discrete=False)


def play(scenario, behaviours, episodes=EPISODES):
    """Observations [26,E,3,O], actions [25,E,3,2] and returns [E]; the behaviours take turns."""
    env, rng = MpeEnv(task_of(scenario), episodes), np.random.default_rng(0)
    turn = np.arange(episodes) % len(behaviours)
    view = env.reset(np.arange(episodes))
    seen, done, total = [view.obs], [], 0.0
    for _ in range(25):
        actions = np.empty((episodes, 3, 2), np.float32)
        for k, behaviour in enumerate(behaviours):
            own = turn == k
            actions[own] = behaviour(View(view.obs[own], view.state[own], None), rng)
        step = env.step(actions)
        view, total = step.view, total + step.reward.mean(-1)
        seen.append(view.obs)
        done.append(actions)
    return np.stack(seen), np.stack(done), total


def earns(scenario, **settings):
    """The mean return of one behaviour."""
    return play(scenario, [controller(task_of(scenario), **settings)])[2].mean()


@pytest.mark.parametrize("scenario", SEES)
def test_returns_lie_near_the_real_datasets_and_in_their_order(scenario):
    means = []
    for mean, deviation, entries in RECIPES[scenario].values():
        returns = play(scenario, [controller(task_of(scenario), **entry) for entry in entries])[2]
        assert returns.mean() == pytest.approx(mean, abs=4 * deviation / EPISODES**0.5)
        assert 0.65 < returns.std() / deviation < 1.35
        means.append(returns.mean())
    assert means == sorted(means)


@pytest.mark.parametrize(
    ("scenario", "behaviour"),
    [
        ("spread", uniform),
        ("spread", Cover(noise=0.5)),
        ("tag", Chase(noise=0.5)),
        ("world", Chase()),
        ("tag", uniform),
    ],
)
def test_actions_are_in_range_and_repeat_themselves(scenario, behaviour):
    (_, first, _), (_, again, _) = (play(scenario, [behaviour], 32) for _ in range(2))
    assert first.dtype == np.float32
    assert first.shape == (25, 32, 3, 2)
    assert 0.9 < np.abs(first).max() <= 1
    assert np.array_equal(first, again)


@pytest.mark.parametrize(("scenario", "behaviour"), [("spread", Cover()), ("tag", Chase()), ("world", Chase())])
def test_an_episode_is_played_alike_in_any_company(scenario, behaviour):
    seen, done, _ = play(scenario, [behaviour], 32)
    for t in (0, 7, 24):
        alone = behaviour(View(seen[t, 5:8], seen[t, 5:8].reshape(3, -1), None), np.random.default_rng(1))
        assert np.array_equal(alone, done[t, 5:8])


def test_recipes_name_controllers():
    spread, tag = task_of("spread"), task_of("tag")
    assert controller(spread, gain=0.5, share="nearest") == Cover(gain=0.5, share="nearest")
    assert controller(tag, lead=0.1) == Chase(lead=0.1)
    assert controller(spread, random=True) is controller(tag, random=True) is uniform


# Spread.


def spread_view(agents, landmarks, velocities=((0, 0),) * 3):
    """One episode's view."""
    rows = []
    for i, (place, velocity) in enumerate(zip(agents, velocities)):
        others = [np.subtract(agents[j], place) for j in range(3) if j != i]
        rows.append(np.concatenate([velocity, place, *np.subtract(landmarks, place), *others, np.zeros(4)]))
    obs = np.array([rows], np.float32)
    return View(obs, obs.reshape(1, -1), None)


def goals(behaviour, obs):
    """Every agent's landmark [..., E, 3] and the total ways of all assignments [..., E, 6]."""
    way = obs[..., 4:10].reshape(*obs.shape[:-1], 3, 2)
    far = np.linalg.norm(way, axis=-1)
    landmarks = obs[..., 0, 2:4, None] + np.moveaxis(way[..., 0, :, :], -2, -1)
    flat = [part.reshape(-1, *part.shape[-2:]) for part in (far, landmarks)]
    return behaviour.goals(*flat).reshape(far.shape[:-1]), far[..., np.arange(3), ORDERS].sum(-1)


def test_agents_drive_to_their_own_landmark_and_brake():
    rng = np.random.default_rng(0)
    view = spread_view([[0, 0], [1, 0], [2, 0]], [[2, 0.2], [0, 0.1], [1, 0.3]], [[0, 0], [0.1, 0], [0, 0]])
    assert Cover(gain=2.0)(view, rng)[0] == pytest.approx(np.array([[0, 0.2], [-0.1, 0.6], [0, 0.4]]), abs=1e-6)
    assert Cover(gain=0.5, damping=0.0)(view, rng)[0] == pytest.approx(
        np.array([[0, 0.05], [0, 0.15], [0, 0.1]]), abs=1e-6
    )


def test_without_agreement_agents_meet_at_the_nearest_landmark():
    view = spread_view([[0, 0], [0.2, 0], [0.4, 0]], [[0.2, 0.3], [3, 0], [-3, 0]])
    actions = Cover(gain=1.0, share="nearest")(view, np.random.default_rng(0))
    assert actions[0] == pytest.approx(np.array([[0.2, 0.3], [0, 0.3], [-0.2, 0.3]]), abs=1e-6)


def test_by_convention_each_agent_has_its_own_landmark_wherever_it_lies():
    cover = Cover(share="own")
    goal, _ = goals(cover, play("spread", [cover], 20)[0])
    assert (goal == [0, 1, 2]).all()


def test_short_assignments_are_drawn_from_and_kept():
    cover = Cover()
    goal, total = goals(cover, play("spread", [cover], 1000)[0][:25])
    assert (np.sort(goal[0], -1) == [0, 1, 2]).all()
    chosen = (goal[..., None, :] == ORDERS).all(-1)
    way, shortest = total[chosen].reshape(25, -1), total.min(-1)
    assert (way <= shortest + 0.24 + 1e-5).all()
    assert 0.25 < (way[0] > shortest[0] + 1e-5).mean() < 0.45  # several modes
    assert (goal == goal[0]).all((0, 2)).mean() > 0.93
    shortest_only, _ = goals(Cover(whim=0.0), play("spread", [cover], 100)[0][0])
    assert np.array_equal(shortest_only, ORDERS[total[0, :100].argmin(-1)])


def test_weaker_controllers_cover_worse():
    returns = [earns("spread", gain=gain, damping=0.5) for gain in (0.1, 0.3, 0.6, 1.0)]
    assert returns == sorted(returns)
    assert earns("spread", share="nearest") < earns("spread") - 100


# Tag and World.


def chase_view(scenario, way, drift, velocity=(0, 0)):
    """Three equal predators who see the prey that way off."""
    row = np.zeros(SEES[scenario])
    prey = {"tag": 12, "world": 18}[scenario]
    row[:2], row[prey : prey + 2], row[prey + 2 : prey + 4] = velocity, way, drift
    obs = np.tile(row, (1, 3, 1)).astype(np.float32)
    return View(obs, obs.reshape(1, -1), None)


@pytest.mark.parametrize("scenario", ["tag", "world"])
@pytest.mark.parametrize(
    ("settings", "way", "drift", "wish"),
    [
        ({"speed": 0.5}, [2, 0], [0, 0], [0.5, 0]),
        ({"speed": 0.5, "lead": 0.0}, [0, -2], [1, 1], [0, -0.5]),
        ({"speed": 0.5, "lead": 0.3}, [0.6, 0.3], [0, -1], [0.5, 0]),
        ({"speed": 0.5, "lead": 3.0}, [0.4, 0], [-0.25, 0.75], [0.5 / 2**0.5, 0.5 / 2**0.5]),  # 0.4 s ahead
        ({"speed": 0.5, "lead": -1.0}, [0.5, 1], [0.5, 0], [0, 0.5]),
    ],
)
def test_predators_aim_where_their_lead_says(scenario, settings, way, drift, wish):
    view = chase_view(scenario, way, drift, velocity=[0.2, -0.1])
    expected = (np.array(wish) - 0.75 * np.array([0.2, -0.1])) / 0.9
    assert Chase(**settings)(view, np.random.default_rng(0))[0] == pytest.approx(np.tile(expected, (3, 1)), abs=1e-6)


def test_a_predator_keeps_the_speed_of_its_drive():
    drive = Chase(speed=0.6)
    seen = play("tag", [drive], 64)[0]
    speed = np.linalg.norm(seen[1:, :, :, :2], axis=-1)
    assert np.median(speed) == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("scenario", ["tag", "world"])
def test_slower_and_later_chases_catch_less(scenario):
    speeds = [earns(scenario, speed=speed) for speed in (0.1, 0.4, 0.6, 0.8, 1.0)]
    leads = [earns(scenario, lead=lead) for lead in (-0.3, -0.03, 0.0, 0.3)]
    assert speeds == sorted(speeds)
    assert leads == sorted(leads)
