"""Robots: what agents see, what they move, how episodes end, and the inertia of old."""

from dataclasses import replace
from importlib.metadata import version

import gymnasium
import mujoco
import numpy as np
import pytest

from offmarl.benchmarks import fingerprint as definitions
from offmarl.benchmarks.fingerprint import fingerprint
from offmarl.benchmarks.mamujoco import ROBOTS, build, set_inertia
from offmarl.benchmarks.tasks import make_env, tasks

OMIGA = ("6halfcheetah", "3hopper", "2ant")
LEGS = ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
JOINTS = {
    "6halfcheetah": [[leg] for leg in LEGS],
    "3hopper": [["thigh_joint"], ["leg_joint"], ["foot_joint"]],
    "2ant": [["hip_4", "ankle_4", "hip_1", "ankle_1"], ["hip_2", "ankle_2", "hip_3", "ankle_3"]],
    "2halfcheetah": [LEGS[:3], LEGS[3:]],
}


def task(name):
    return tasks()[f"mamujoco/{name}"]


def play(name, seeds, steps, scale=1.0, limit=1000):
    """An environment, its first view, and all steps under actions that lane 0 shares with every lone lane."""
    env = make_env(replace(task(name), limit=limit), len(seeds))
    rng, size = np.random.default_rng(7), (1, env.task.agents, env.task.actions)
    first = env.reset(np.array(seeds))
    return env, first, [env.step(np.repeat(scale * rng.uniform(-1, 1, size), len(seeds), 0)) for _ in range(steps)]


# What is seen.


@pytest.mark.parametrize(
    ("name", "obs", "state"),
    [("6halfcheetah", (6, 23), 17), ("3hopper", (3, 14), 11), ("2ant", (2, 113), 111), ("2halfcheetah", (2, 6), 17)],
)
def test_views_have_the_sizes_of_the_real_data(name, obs, state):
    env, first, (step,) = play(name, [0, 1, 2], 1)
    for view in (first, step.view):
        assert view.obs.shape == (3, *obs) == (3, env.task.agents, env.task.obs)
        assert view.state.shape == (3, state) == (3, env.task.state)
        assert view.obs.dtype == view.state.dtype == step.reward.dtype == np.float32
        assert view.legal is None
    assert step.reward.shape == (3,)
    assert step.won is None


@pytest.mark.parametrize("name", OMIGA)
def test_an_observation_is_the_state_and_the_id_standardised(name):
    env, _, steps = play(name, [4, 5], 10)
    obs, state = steps[-1].view.obs, steps[-1].view.state
    assert np.abs(obs.mean(-1)).max() < 1e-6
    assert obs.std(-1) == pytest.approx(1, abs=1e-6)
    for agent in range(env.task.agents):
        raw = np.concatenate([state, np.tile(np.eye(env.task.agents)[agent], (2, 1))], -1).astype(np.float64)
        expected = (raw - raw.mean(-1, keepdims=True)) / raw.std(-1, keepdims=True)
        assert obs[:, agent] == pytest.approx(expected, abs=1e-5)


def test_the_state_is_the_raw_one_and_hopper_clips_its_velocities():
    env, _, steps = play("3hopper", [0], 8)
    data = env.robots[0].data
    assert steps[-1].view.state[0] == pytest.approx(np.concatenate([data.qpos[1:], np.clip(data.qvel, -10, 10)]))
    assert np.abs(data.qvel).max() > 1


def test_the_ant_keeps_84_zero_contact_forces_before_standardisation():
    env, _, steps = play("2ant", [0], 60)
    view, data = steps[-1].view, env.robots[0].data
    assert data.ncon > 0  # it stands on the ground, and yet
    assert not view.state[0, 27:].any()
    assert view.state[0, :27] == pytest.approx(np.concatenate([data.qpos[2:], data.qvel]), abs=1e-6)
    assert np.unique(view.obs[0, 0, 27:111]).size == 1
    assert view.obs[0, 0, 27] != 0


def test_omars_agents_see_their_own_three_joints_and_nothing_else():
    from gymnasium_robotics import mamujoco_v1

    peer = mamujoco_v1.parallel_env("HalfCheetah", "2x3", agent_obsk=0, global_categories=())
    env = make_env(task("2halfcheetah"), 1)
    theirs, _ = peer.reset(seed=11)
    view, rng = env.reset(np.array([11])), np.random.default_rng(0)
    for _ in range(50):
        assert np.array_equal(view.obs[0, 0], view.state[0, [4, 13, 3, 12, 2, 11]])
        assert np.array_equal(view.obs[0, 1], view.state[0, [7, 16, 6, 15, 5, 14]])
        assert np.array_equal(view.obs[0], np.stack(list(theirs.values())).astype(np.float32))
        assert np.array_equal(view.state[0], peer.state().astype(np.float32))
        actions = rng.uniform(-1, 1, (1, 2, 3))
        theirs, reward, *_ = peer.step(dict(zip(peer.possible_agents, actions[0])))
        step = env.step(actions)
        view = step.view
        assert step.reward[0] == np.float32(reward["agent_0"])


# What is moved.


@pytest.mark.parametrize("name", list(ROBOTS))
def test_each_action_reaches_its_own_joint(name):
    env = make_env(task(name), 1)
    model, data = env.robots[0].model, env.robots[0].data
    for agent, joints in enumerate(JOINTS[name]):
        for k, joint in enumerate(joints):
            env.reset(np.array([0]))
            actions = np.zeros((1, env.task.agents, env.task.actions))
            actions[0, agent, k] = 0.5
            env.step(actions)
            (moved,) = np.flatnonzero(data.ctrl)
            assert model.joint(model.actuator_trnid[moved, 0]).name == joint
            assert data.ctrl[moved] == 0.5


def test_actions_are_clipped_and_nan_is_refused():
    env = make_env(task("3hopper"), 2)
    env.reset(np.array([0, 1]))
    env.step(np.array([[[5.0], [-5.0], [0.2]]] * 2))
    assert np.array_equal(env.robots[1].data.ctrl, [1.0, -1.0, 0.2])
    with pytest.raises(ValueError, match="lane 1"):
        env.step(np.array([[[0.0]] * 3, [[0.0], [np.nan], [0.0]]]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OMIGA)
def test_trajectories_and_ends_are_gymnasiums(name):
    robot = ROBOTS[name]
    env, peer = make_env(task(name), 1), gymnasium.make(robot.gym, max_episode_steps=1000)
    env.reset(np.array([3]))
    peer.reset(seed=3)
    rng, over = np.random.default_rng(0), False
    while not over:
        actions = rng.uniform(-1, 1, (1, env.task.agents, env.task.actions))
        step = env.step(actions)
        state, reward, fell, late, _ = peer.step(actions.ravel())
        over = fell or late
        assert np.array_equal(step.view.state[0, : state.size], state.astype(np.float32))
        assert step.reward[0] == np.float32(reward)
        assert (step.done[0], step.timeout[0]) == (over, late and not fell)


# How episodes run.


@pytest.mark.parametrize("name", list(ROBOTS))
def test_a_lane_plays_as_if_it_were_alone_and_its_seed_decides(name):
    _, first, together = play(name, [1, 2, 1], 30)
    _, alone_first, alone = play(name, [2], 30)
    assert np.array_equal(first.obs[1], alone_first.obs[0])
    for many, one in zip(together, alone):
        assert np.array_equal(many.view.obs[1], one.view.obs[0])
        assert np.array_equal(many.view.state[0], many.view.state[2])
        assert (many.reward[1], many.done[1]) == (one.reward[0], one.done[0])
    assert not np.array_equal(first.state[0], first.state[1])


def test_an_environment_starts_again_as_new():
    env, _, _ = play("3hopper", [5, 6], 40)
    again = env.reset(np.array([5, 6]))
    _, first, _ = play("3hopper", [5, 6], 0)
    assert np.array_equal(again.obs, first.obs)
    assert not env.step(np.zeros((2, 3, 1))).done.any()


@pytest.mark.parametrize("name", ["6halfcheetah", "2halfcheetah"])
def test_a_cheetah_ends_by_the_clock_alone(name):
    _, _, steps = play(name, [0], 1001)
    assert not any(step.done[0] or step.timeout[0] for step in steps[:999])
    assert steps[999].done[0] and steps[999].timeout[0] and steps[999].reward[0] != 0
    assert steps[1000].done[0] and steps[1000].timeout[0] and steps[1000].reward[0] == 0


@pytest.mark.parametrize(("name", "axis", "fallen", "cost"), [("3hopper", 1, 0.1, 1e-3), ("2ant", 2, 1.5, 0.5)])
def test_the_step_of_a_fall_pays_for_survival_as_in_the_real_data(name, axis, fallen, cost):
    env = make_env(task(name), 1)
    env.reset(np.array([0]))
    data, actions = env.robots[0].data, np.full((1, env.task.agents, env.task.actions), 0.5)
    data.qpos[axis], before = fallen, data.qpos[0]  # no height to stand at
    step = env.step(actions)
    assert step.done[0] and not step.timeout[0]
    moved = (data.qpos[0] - before) / env.robots[0].dt
    assert step.reward[0] == pytest.approx(moved + 1 - cost * np.square(actions).sum(), abs=1e-3)


@pytest.mark.parametrize("name", ["3hopper", "2ant"])
def test_a_fall_is_an_end_and_no_timeout_and_the_robot_stays_down(name):
    seeds = list(range(8))
    env, _, steps = play(name, seeds, 300)
    done = np.stack([step.done for step in steps])
    fallen = done[-1]
    assert fallen.any()
    assert not any(step.timeout.any() for step in steps)
    lane = int(np.flatnonzero(fallen)[0])
    end = int(done[:, lane].argmax())
    assert done[end:, lane].all()
    assert steps[end].reward[lane] != 0
    assert not any(step.reward[lane] for step in steps[end + 1 :])
    assert all(np.array_equal(step.view.obs[lane], steps[end].view.obs[lane]) for step in steps[end:])
    *_, last = play(name, seeds, end + 1, limit=end + 1)[2]  # falls with the last action
    assert (last.done[lane], last.timeout[lane]) == (True, False)


# Physics.


def tensors(model):
    """Inertia of every body in its own frame: [bodies, 3, 3]."""
    turns = np.zeros((model.nbody, 9))
    for turn, quaternion in zip(turns, model.body_iquat):
        mujoco.mju_quat2Mat(turn, quaternion)
    turns = turns.reshape(-1, 3, 3)
    return turns * model.body_inertia[:, None] @ turns.swapaxes(1, 2)


@pytest.mark.parametrize("name", OMIGA)
def test_the_exact_formula_gives_back_the_compiled_model(name):
    one, other = build(ROBOTS[name]), build(ROBOTS[name])
    set_inertia(other.model, other.data, ROBOTS[name].weight, exact=True)
    for field in ("body_mass", "body_ipos", "dof_M0", "dof_invweight0"):
        assert getattr(other.model, field) == pytest.approx(getattr(one.model, field), rel=1e-11, abs=1e-12)
    assert tensors(other.model) == pytest.approx(tensors(one.model), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("3hopper", [3.53429174, 3.92699082, 2.71433605, 5.0893801]),
        ("6halfcheetah", [6.36031332, 1.53524804, 1.58093995, 1.0691906, 1.42558747, 1.17885117, 0.84986945]),
    ],
)
def test_legacy_bodies_have_the_masses_published_for_mujoco_2_0(name, published):
    env = make_env(replace(task(name), roster={"physics": "legacy"}), 2)
    for robot in env.robots:
        assert robot.model.body_mass[1:] == pytest.approx(published, abs=5e-9)
    env.reset(np.array([0, 1]))
    native = build(ROBOTS[name])
    assert np.abs(env.robots[0].model.body_inertia[1:] / native.model.body_inertia[1:] - 1).max() > 0.01
    step = env.step(np.ones((2, env.task.agents, 1)))
    assert step.view.state != pytest.approx(play(name, [0, 1], 1)[2][0].view.state)


def test_every_seed_is_a_start_of_its_own():
    starts = make_env(task("3hopper"), 4).reset(np.array([1, 1 + 64, 1 + 2**20, -1])).state
    assert len(np.unique(starts, axis=0)) == 4


def test_masses_and_inertias_scale_with_the_weight():
    free, heavy = build(ROBOTS["3hopper"]), build(ROBOTS["3hopper"])
    set_inertia(free.model, free.data, None)
    set_inertia(heavy.model, heavy.data, 2 * free.model.body_mass.sum())
    assert np.allclose(heavy.model.body_mass, 2 * free.model.body_mass)
    assert np.allclose(heavy.model.body_inertia, 2 * free.model.body_inertia)


def test_an_unknown_physics_is_refused():
    with pytest.raises(ValueError, match="'modern'.*native or legacy"):
        make_env(replace(task("3hopper"), roster={"physics": "modern"}), 1)


def test_results_carry_the_version_of_mujoco_and_say_when_it_is_not_the_locked_one(monkeypatch):
    facts = fingerprint(task("2ant"))
    assert facts["mujoco"] == mujoco.__version__ and "unlocked" not in facts
    assert facts["rules"] == "2" and "rules" not in fingerprint(task("3hopper"))  # only the ant's returns have changed
    monkeypatch.setattr(definitions, "version", lambda name: "3.5.0" if name == "mujoco" else version(name))
    assert fingerprint(task("2ant"))["mujoco"] == "3.5.0"
    assert fingerprint(task("2ant"))["unlocked"] == "mujoco 3.5.0 instead of 3.4.0"
