"""The particle worlds: physics, rewards and observations against closed forms and against a slow second writing."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offmarl.benchmarks.mpe import MpeEnv, ParticleWorld, ScriptedPrey
from offmarl.benchmarks.tasks import Task

SIZES = {"spread": (3, 3), "tag": (4, 2), "world": (4, 5)}  # agents, landmarks
SEES = {"spread": [18] * 3, "tag": [16] * 3 + [14], "world": [24] * 3 + [22]}
OFFMARL_PREY = os.environ.get("OFFMARL_PREY")
each = pytest.mark.parametrize("scenario", SIZES)
chases = pytest.mark.parametrize("scenario", ["tag", "world"])


def env_of(scenario, lanes, **options):
    sees = SEES[scenario][0]
    task = Task(f"mpe/{scenario}", "mpe", 3, sees, 3 * sees, 2, 25, "particles", discrete=False)
    return MpeEnv(task, lanes, **options)


def placed(scenario, agents, landmarks=None, velocities=None):
    """One episode as described; landmarks lie far away unless placed."""
    agents = np.array(agents, float)[None]
    far = np.full((1, SIZES[scenario][1], 2), 50.0) if landmarks is None else np.array(landmarks, float)[None]
    world = ParticleWorld(scenario, 1)
    world.set_state(agents, np.zeros_like(agents) if velocities is None else np.array(velocities, float)[None], far)
    return world


def rest(world):
    """Rewards [I] of a step without actions."""
    return world.step(np.zeros((1, world.I, 2)))[0]


# A second writing of one episode, with loops over plain numbers.

RADII = {"spread": [0.15] * 3, "tag": [0.075] * 3 + [0.05], "world": [0.075] * 3 + [0.045]}
LANDMARK_RADII = {"spread": [], "tag": [0.2, 0.2], "world": [0.2, 0.03, 0.03, 0.3, 0.3]}
BUMPS = {"spread": 0, "tag": 2, "world": 1}


def slow_step(scenario, places, speeds, landmarks, actions):
    """The next places and speeds."""
    moved, driven = [], []
    bodies = [*places, *landmarks[: BUMPS[scenario]]]
    radii = RADII[scenario] + LANDMARK_RADII[scenario]
    for i, (x, y) in enumerate(places):
        gain = 5.0 if scenario == "spread" else 9.0 if i < 3 else 16.0
        fx, fy = gain * actions[i][0], gain * actions[i][1]
        for j, (u, w) in enumerate(bodies):
            if j != i:
                distance = math.hypot(x - u, y - w)
                k = (distance - radii[i] - radii[j]) / 0.001
                depth = 0.001 * (max(-k, 0) + math.log1p(math.exp(-abs(k))))
                fx += 100 * depth * (x - u) / distance
                fy += 100 * depth * (y - w) / distance
        vx, vy = 0.75 * speeds[i][0] + 0.1 * fx, 0.75 * speeds[i][1] + 0.1 * fy
        limit = math.inf if scenario == "spread" else 1.0 if i < 3 else 1.3
        slower = min(1.0, limit / max(math.hypot(vx, vy), 1e-300))
        driven.append([vx * slower, vy * slower])
        moved.append([x + 0.1 * vx * slower, y + 0.1 * vy * slower])
    return moved, driven


def slow_rewards(scenario, places, landmarks):
    """What everyone gets for these places."""
    if scenario == "spread":
        common = sum(min(10, 1 / min(math.dist(a, m) for a in places)) for m in landmarks)
        return [common - 5 * sum(a is not b and math.dist(a, b) < 0.3 for b in places) for a in places]
    prey, catch, near = places[3], {"tag": 10, "world": 5}[scenario], 0.075 + RADII[scenario][3]
    team = sum(-0.1 * math.dist(p, prey) + (catch if math.dist(p, prey) < near else 0) for p in places[:3])
    own = -team
    for x in map(abs, prey):
        cost = 0 if x < 0.9 else 10 * (x - 0.9) if x < 1 else min(math.exp(2 * x - 2), 10)
        own -= cost * {"tag": 1, "world": 2}[scenario]
    if scenario == "world":
        meals = [math.dist(prey, f) for f in landmarks[1:3]]
        own += sum(2 for m in meals if m < 0.075) + 0.05 * min(meals)
    return [team, team, team, own]


def slow_view(scenario, places, speeds, landmarks, i):
    """What agent i sees."""
    x, y = places[i]
    seen = [*speeds[i], x, y]
    for u, w in [*landmarks, *(place for j, place in enumerate(places) if j != i)]:
        seen += [u - x, w - y]
    if scenario == "spread":
        return [*seen, 0, 0, 0, 0]
    if i < 3:
        seen += speeds[3]
    if scenario == "world":
        seen += [1 if math.dist(places[i], f) < RADII[scenario][i] + 0.3 else -1 for f in landmarks[3:]]
    return seen


@each
def test_trajectories_are_those_of_a_slow_second_writing(scenario):
    (agents, landmarks), episodes, rng = SIZES[scenario], 16, np.random.default_rng(3)
    crowd = np.linspace(0.1, 1.2, episodes)[:, None, None]  # from a heap to beyond the fence
    places = rng.uniform(-1, 1, (episodes, agents, 2)) * crowd
    marks = rng.uniform(-0.9, 0.9, (episodes, landmarks, 2)) * crowd
    speeds = rng.uniform(-1, 1, places.shape)
    world = ParticleWorld(scenario, episodes)
    world.set_state(places, speeds, marks)
    state = [(places[e].tolist(), speeds[e].tolist()) for e in range(episodes)]
    touched = 0
    for _ in range(25):
        actions = rng.uniform(-1, 1, places.shape)
        rewards = world.step(actions)
        seen = world.observe()
        for e in range(episodes):
            state[e] = slow_step(scenario, *state[e], marks[e].tolist(), actions[e].tolist())
            expected = slow_rewards(scenario, state[e][0], marks[e].tolist())
            assert rewards[e] == pytest.approx(expected, abs=1e-9)
            touched += rewards[e, 0] > 1 if scenario != "spread" else rewards[e].min() < rewards[e].max()
            for i in range(agents):
                assert seen[i][e] == pytest.approx(slow_view(scenario, *state[e], marks[e].tolist(), i), abs=1e-9)
    assert touched > 10


# Physics.


@pytest.mark.parametrize(("agent", "scenario", "speed"), [(0, "spread", 0.5), (0, "tag", 0.9), (3, "world", 1.3)])
def test_one_action_from_rest(agent, scenario, speed):
    world = placed(scenario, np.eye(SIZES[scenario][0])[:, :2] * 9 + np.arange(SIZES[scenario][0])[:, None])
    before, actions = world.agents.copy(), np.zeros((1, world.I, 2))
    actions[0, agent] = [0.0, -1.0]  # the prey would reach 1.6, but is held at its top speed
    world.step(actions)
    assert world.velocities[0, agent] == pytest.approx([0, -speed], abs=1e-12)
    assert (world.agents - before)[0, agent] == pytest.approx([0, -0.1 * speed], abs=1e-12)


def test_overlapping_agents_are_pushed_apart():
    world = placed("spread", [[0, 0], [0.2, 0], [9, 9]])  # 0.1 deep: a force of 10
    rest(world)
    assert world.velocities[0] == pytest.approx(np.array([[-1, 0], [1, 0], [0, 0]]), abs=1e-9)


def test_coincident_agents_do_not_break_the_world():
    assert np.isfinite(rest(placed("tag", np.zeros((4, 2)), np.zeros((2, 2))))).all()


def states(scenario, lowest=-1.5, highest=1.5):
    agents, landmarks = SIZES[scenario]
    numbers = st.floats(lowest, highest, width=32)
    return st.tuples(*(arrays(np.float64, (2, n, 2), elements=numbers) for n in (agents, agents, landmarks, agents)))


def moved(scenario, state):
    """The world after one step from (agents, velocities, landmarks, actions)."""
    world = ParticleWorld(scenario, 2)
    world.set_state(*state[:3])
    return world, world.step(state[3])


@each
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_nobody_exceeds_the_top_speed_and_the_new_velocity_moves(scenario, data):
    state = data.draw(states(scenario))
    world, _ = moved(scenario, state)
    assert np.array_equal(world.agents, state[0] + world.velocities * 0.1)
    if scenario != "spread":
        assert (np.linalg.norm(world.velocities, axis=-1) <= np.array([1, 1, 1, 1.3]) + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(state=states("spread"))
def test_contacts_leave_the_momentum_alone(state):
    world, _ = moved("spread", state)
    expected = (0.75 * state[1] + 0.5 * state[3]).sum(1)
    assert world.velocities.sum(1) == pytest.approx(expected, abs=1e-9)


@each
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_only_ones_own_place_tells_where_the_world_is(scenario, data):
    state = data.draw(states(scenario, -0.75, 0.75))
    grid = [np.round(part * 1024) / 1024 for part in state]  # differences stay exact when moved by whole numbers
    here, there = ParticleWorld(scenario, 2), ParticleWorld(scenario, 2)
    here.set_state(*grid[:3])
    there.set_state(grid[0] + [3, -2], grid[1], grid[2] + [3, -2])
    for one, other in zip(here.observe(), there.observe()):
        assert np.array_equal(one[:, 2:4] + [3, -2], other[:, 2:4])
        assert np.array_equal(np.delete(one, [2, 3], 1), np.delete(other, [2, 3], 1))


# Rewards in closed form.


def test_spread_pays_for_landmarks_near_an_agent():
    marks = [[0, 0], [2, 0], [4, 0]]
    assert rest(placed("spread", marks, marks)) == pytest.approx([30] * 3)
    assert rest(placed("spread", [[0, 0.05], [2, 0.5], [4, -1]], marks)) == pytest.approx([10 + 2 + 1] * 3)


def test_spread_fines_every_overlap():
    agents, speeds = [[-0.2, 0], [0.2, 0], [0, 3]], [[1, 0], [-1, 0], [0, 0]]  # two come within 0.25 of each other
    rewards = rest(placed("spread", agents, [[0, 3], [0, 13], [0, 23]], speeds))
    assert rewards == pytest.approx([10 + 0.1 + 0.05 - 5] * 2 + [10 + 0.1 + 0.05])


@pytest.mark.parametrize(("scenario", "hit"), [("tag", 10), ("world", 5)])
def test_predators_share_hits_and_closeness(scenario, hit):
    agents, speeds = [[0.185, 0], [0, -0.185], [0, 0.6], [0, 0]], [[-1, 0], [0, 1], [0, 0], [0, 0]]
    rewards = rest(placed(scenario, agents, velocities=speeds))  # two come within 0.11
    assert rewards[:3] == pytest.approx([2 * hit - 0.1 * (0.11 + 0.11 + 0.6)] * 3)
    food = 0.05 * math.hypot(50, 50) if scenario == "world" else 0
    assert rewards[3] == pytest.approx(food - rewards[0])


@pytest.mark.parametrize(("x", "cost"), [(0.89, 0), (0.95, 0.5), (-1.0, 1), (-1.5, math.e), (3.0, 10)])
def test_the_prey_pays_for_leaving_the_field(x, cost):
    for scenario, factor in (("tag", 1), ("world", 2)):
        agents, far = [[x, 9]] * 3 + [[x, 0]], np.full((SIZES[scenario][1], 2), 50.0)
        agents[0], agents[1] = [x + 9, 0], [x - 9, 0]
        food = 0.05 * math.hypot(50 - x, 50) if scenario == "world" else 0
        assert rest(placed(scenario, agents, far))[3] == pytest.approx(2.7 - factor * cost + food)


def test_the_prey_eats_and_hides():
    agents, marks = [[5, 5], [-5, 5], [5, -5], [0, 0]], [[9, 9], [0.06, 0], [0.5, 0], [0.3, 0], [5.3, 5.2]]
    world = placed("world", agents, marks)
    assert rest(world)[3] == pytest.approx(0.3 * math.hypot(5, 5) + 2 + 0.05 * 0.06)
    flags = [view[0, -2:].tolist() for view in world.observe()]
    assert flags == [[-1, 1], [-1, -1], [-1, -1], [1, -1]]


# The interface.


@each
def test_shapes_of_states_and_observations(scenario):
    world, (agents, landmarks) = ParticleWorld(scenario, 5), SIZES[scenario]
    places = np.zeros((5, agents, 2))
    world.set_state(places, places, np.zeros((5, landmarks, 2)))
    places += 1  # the world has its own copy
    assert [view.shape for view in world.observe()] == [(5, sees) for sees in SEES[scenario]]
    assert all(view.dtype == np.float64 and not view[:, 2:4].any() for view in world.observe())
    assert world.step(np.zeros((5, agents, 2))).shape == (5, agents)
    with pytest.raises(ValueError, match=r"velocities: shape \(4, 2\), should be \(5, "):
        world.set_state(places, np.zeros((4, 2)), np.zeros((5, landmarks, 2)))
    with pytest.raises(ValueError, match=r"actions: shape \(5, 2, 2\), should be \(5, "):
        world.step(np.zeros((5, 2, 2)))


@each
def test_starts_are_uniform_in_their_fields(scenario):
    world = ParticleWorld(scenario, 4000)
    world.reset(np.arange(4000))
    assert not world.velocities.any()
    for places, field in ((world.agents, 1.0), (world.landmarks, 1.0 if scenario == "spread" else 0.9)):
        assert np.abs(places).max() == pytest.approx(field, abs=2e-3)
        assert np.abs(places).max() < field
        assert places.mean((0, 1)) == pytest.approx([0, 0], abs=0.03)
        assert places.std() == pytest.approx(field / math.sqrt(3), rel=0.02)


def test_seeds_count_modulo_two_to_the_32():
    one, other = ParticleWorld("spread", 3), ParticleWorld("spread", 3)
    one.reset(np.array([-1, 2**32 + 5, 2**33 + 7]))
    other.reset(np.array([2**32 - 1, 5, 7]))
    assert np.array_equal(one.agents, other.agents)


def play(env, seeds, actions):
    """All views and rewards of episodes under given actions [T,E,3,2]."""
    views, rewards = [env.reset(np.asarray(seeds)).obs], []
    for joint in actions:
        step = env.step(joint)
        views.append(step.view.obs)
        rewards.append(step.reward)
    return np.stack(views), np.stack(rewards)


@each
def test_a_lane_depends_on_its_seed_and_actions_alone(scenario):
    actions = np.random.default_rng(0).uniform(-1, 1, (25, 6, 3, 2))
    views, rewards = play(env_of(scenario, 6), [5, 6, 7, 8, -1, 2**40], actions)
    order = [4, 2, 0]
    other = actions[:, order]
    other[:, 1] = 0
    again_views, again_rewards = play(env_of(scenario, 3), [-1, 99, 5], other)
    for one, two in ((views[:, order], again_views), (rewards[:, order], again_rewards)):
        assert np.array_equal(one[:, [0, 2]], two[:, [0, 2]])
        assert not np.array_equal(one[:, 1], two[:, 1])


@each
def test_the_clock_alone_ends_an_episode(scenario):
    env, sees = env_of(scenario, 4), SEES[scenario][0]
    for _ in range(2):
        view = env.reset(np.arange(4))
        for t in range(25):
            assert (view.obs.shape, view.obs.dtype, view.legal) == ((4, 3, sees), np.float32, None)
            assert (view.state.dtype, view.state.tolist()) == (np.float32, view.obs.reshape(4, -1).tolist())
            step = env.step(np.zeros((4, 3, 2), np.float32))
            assert (step.reward.shape, step.reward.dtype, step.won) == ((4, 3), np.float32, None)
            assert step.done.tolist() == step.timeout.tolist() == [t == 24] * 4
            view = step.view
    env.close()


def test_actions_beyond_their_range_are_clipped():
    env, wild = env_of("tag", 4), np.random.default_rng(0).uniform(-9, 9, (25, 4, 3, 2))
    assert np.array_equal(play(env, range(4), wild)[0], play(env, range(4), wild.clip(-1, 1))[0])


@chases
def test_the_environment_plays_the_prey(scenario):
    env, world = env_of(scenario, 8), ParticleWorld(scenario, 8)
    env.reset(np.arange(8))
    world.reset(np.arange(8))
    for _ in range(25):
        prey = ScriptedPrey(SIZES[scenario][1])(world.observe()[3])
        rewards = world.step(np.concatenate([np.zeros((8, 3, 2)), prey[:, None]], 1))
        step = env.step(np.zeros((8, 3, 2)))
        assert np.array_equal(step.reward, rewards[:, :3].astype(np.float32))
        assert np.array_equal(step.view.obs, np.stack(world.observe()[:3], 1).astype(np.float32))
