"""The user's environments as a BatchEnv: a row for each rule, and for each refusal."""

import numpy as np
import pytest
from gymnasium import spaces
from trap import FAULTS, Trap

from offmarl.benchmarks import own
from offmarl.benchmarks.frames.film import is_watched
from offmarl.benchmarks.own import OwnTask, TaskError, sizes
from offmarl.benchmarks.own.agent import LARGEST_JOINT, LARGEST_OBS, Agent
from offmarl.benchmarks.own.pettingzoo import envs
from offmarl.benchmarks.source import sources

FIRST = np.zeros((1, 3), int)


def lanes(count=1, made=Trap, **facts):
    """Lanes of a task with these facts; what `make` made is in `made`."""
    facts = {"name": "trap/one", "title": "Trap", "limit": 4, **facts, "make": lambda self: made()}
    return envs(type("Trapped", (OwnTask,), facts)("trap.py"), count)


def begun(count=1, made=Trap, **facts):
    env = lanes(count, made, **facts)
    return env, env.reset(np.arange(count))


def play(env, steps):
    return [env.step(np.zeros((env.lanes, 3), int)) for _ in range(steps)][-1]


def test_unequal_agents_are_padded_with_zeros_and_illegal_actions():
    env, view = begun()
    assert sizes(env) == {"agents": 3, "obs": 5, "state": 4, "actions": 4, "discrete": True}
    assert view.obs.dtype == np.float32 and view.obs[0, 1].tolist() == [0.5, 0.5, 0, 0, 0]
    assert view.obs[0, 2].tolist() == [0, 1, 0, 0, 1]  # two choices as one-hot
    assert view.legal[0].astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0]]


def test_a_file_may_have_pictures_of_each_lane():
    env, _ = begun(2, scene=lambda self, env: env.possible_agents, frame=lambda self, env: [[env.t, 1.0 / env.t]])
    play(env, 2)
    assert is_watched(env) and env.scene(1)[0] == "scout" and env.frame(1).tolist() == [[2, 0.5]]
    env.reset(np.arange(2))
    with pytest.raises(TaskError, match=r"trap.py: .*failed: ZeroDivisionError"):
        env.frame(0)
    assert not is_watched(lanes())


def test_pictures_of_ours_are_no_part_of_what_makes_a_run_stale():
    for task in own.house().values():
        assert {line.split()[0] for line in sources(task.file)} == {task.file.name}


def test_actions_reach_the_environment_in_its_own_spaces():
    env, _ = begun()
    env.step(np.array([[0, 2, 1]]))
    (sent,) = env._lanes[0].made.sent
    assert (sent["scout"], sent["flyer"], sent["tank"].tolist()) == (1, 1, [1, 0])


def test_choices_beyond_an_agents_own_are_its_last_and_parts_begin_where_their_space_does():
    agent = Agent("a", spaces.Box(0, 1, (1,)), spaces.MultiDiscrete([2, 3], start=[1, 5]))
    assert [agent.action(choice).tolist() for choice in (0, 4, 5, 9)] == [[1, 5], [2, 6], [2, 7], [2, 7]]
    agent = Agent("a", spaces.Box(0, 1, (1,)), spaces.Discrete(3, start=1))
    assert [agent.action(choice) for choice in (0, 2, 3, 4)] == [1, 3, 3, 3]


def test_what_agents_see_and_do_is_told_in_words():
    scout = "3 -> Discrete(3, start=1)"
    assert lanes().rules == {"scout": scout, "tank": "2 -> MultiDiscrete([2 2])", "flyer": "5 -> Discrete(2)"}


BYTES = spaces.Box(-100, 100, (2,), np.int8)


@pytest.mark.parametrize(
    ("space", "obs", "wrong"),
    [
        (BYTES, [3, 4], [0.5, 1]),
        (BYTES, np.array([3.0, 4.0]), [200, 1]),
        (spaces.Discrete(3), 2, -1),
        (spaces.MultiDiscrete([2, 3]), [1, 0], [2, 0]),
        (spaces.MultiDiscrete([2, 3], start=[1, 1]), np.array([1, 3]), np.array([1, 0])),
        (spaces.MultiBinary(2), [1, 0], [2, 0]),
        (spaces.Tuple([BYTES, spaces.Discrete(2)]), ([1, 2], 1), ([1, 2], 1, 1)),
        (spaces.Dict({"a": spaces.Tuple([BYTES, spaces.Discrete(2)])}), {"a": ([1, 2], 1)}, {"a": ([1.5, 2], 1)}),
    ],
)
def test_numbers_that_a_space_cannot_hold_are_refused(space, obs, wrong):
    agent = Agent("a", space, spaces.Discrete(2))
    assert agent.observe(obs, 1).size == agent.size
    with pytest.raises(TaskError, match="step 1: a's observation"):
        agent.observe(wrong, 1)


def test_a_mask_has_an_entry_for_each_action_also_of_an_agent_with_one():
    agent = Agent("a", spaces.Box(0, 1, (1,)), spaces.Discrete(1))
    assert agent.mask([0], 1).tolist() == [False]
    with pytest.raises(TaskError, match="step 3: a's mask has 0 entries for 1 actions"):
        agent.mask(1, 3)


def test_as_many_joint_choices_as_are_told_can_be_used():
    assert Agent("a", spaces.Box(0, 1, (1,)), spaces.MultiDiscrete([2, 4, 8, 8])).width == LARGEST_JOINT
    with pytest.raises(TaskError, match="513 joint choices; at most 512"):
        Agent("a", spaces.Box(0, 1, (1,)), spaces.MultiDiscrete([19, 27]))


def test_the_largest_observation_is_taken_and_one_more_number_is_an_image():
    assert Agent("a", spaces.Box(0, 1, (LARGEST_OBS,)), spaces.Discrete(2)).size == LARGEST_OBS
    with pytest.raises(TaskError, match="looks like an image"):
        Agent("a", spaces.Box(0, 1, (LARGEST_OBS + 1,)), spaces.Discrete(2))


def test_a_fresh_environment_is_made_for_every_episode_and_no_other():
    made = []

    def make():
        made.append(Trap())
        return made[-1]

    env = lanes(made=make, fresh=True)
    for episodes in (1, 2, 3):
        env.reset(np.arange(1))
        assert len(made) == episodes


def test_a_state_that_is_missing_from_the_first_is_refused():
    class Gone(Trap):
        def reset(self, seed):
            seen = super().reset(seed)
            self.agents = []
            return seen

    with pytest.raises(TaskError, match=r"trap.py: .*the bodies are gone"):
        begun(made=Gone, state=lambda self, env: env.state())


def test_the_dead_see_what_is_left_then_nothing_and_may_only_do_what_is_never_sent():
    env, _ = begun()
    died = play(env, 2)
    assert died.view.obs[0, 0, 0] == 2 and died.view.legal[0, 0].tolist() == [True, False, False, False]
    after = play(env, 1)
    assert not after.view.obs[0, 0].any() and after.view.legal[0, 0].sum() == 1 and after.reward.tolist() == [[0, 2, 3]]
    assert "scout" not in env._lanes[0].made.sent[-1]


@pytest.mark.parametrize(
    ("limit", "clock", "steps", "timeout"), [(4, "limit", 4, True), (4, "env", 4, False), (3, "env", 3, True)]
)
def test_the_clock_is_a_time_out_even_if_the_environment_calls_it_an_end(limit, clock, steps, timeout):
    env, _ = begun(limit=limit, clock=clock)
    assert not play(env, steps - 1).done[0]
    last = play(env, 1)
    assert (last.done[0], last.timeout[0]) == (True, timeout)


def test_an_end_before_the_limit_is_one():
    env, _ = begun(limit=9)
    last = play(env, 4)
    assert (last.done[0], last.timeout[0]) == (True, False) and last.view.legal[0].sum(-1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_an_environments_own_end_of_all_counts_whether_agents_stay_listed_and_have_choices_or_not(cut, listed):
    class Ends(Trap):
        def step(self, actions):
            players = list(self.agents)
            obs, rewards, _, _, infos = super().step(actions)
            self.agents = players if listed else []
            flags = dict.fromkeys(players, not cut), dict.fromkeys(players, cut)
            return obs, rewards, *flags, infos

    last = play(begun(made=lambda: Ends("no action"), limit=9)[0], 1)
    assert (last.done[0], last.timeout[0]) == (True, cut)
    assert last.view.legal[0, 1].tolist() == [True, False, False, False]


def test_after_a_time_out_living_agents_keep_their_choices():
    env, _ = begun(made=lambda: Trap(length=9), limit=3)
    assert play(env, 3).view.legal[0].astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]]
    told, _ = begun(limit=4)  # the environment calls its clock an end
    assert play(told, 4).view.legal[0].astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]]
    own, _ = begun(limit=4, clock="env")
    assert play(own, 4).view.legal[0, :, 1:].sum() == 0


def test_the_state_is_the_environments_and_the_last_one_stands():
    env, view = begun(limit=9)
    assert view.state.tolist() == [[0, 1, 2, 3]] == play(env, 4).view.state.tolist()


def test_without_a_state_observations_are_joined_and_a_function_comes_first():
    class Stateless(Trap):
        def state(self):
            raise NotImplementedError

    _, view = begun(made=Stateless)
    assert view.state[0].tolist() == view.obs[0].ravel().tolist()
    assert begun(state=lambda self, env: [env.t, 7])[1].state.tolist() == [[0, 7]]


def test_a_function_of_the_task_gives_masks_and_victories():
    env, view = begun(legal=lambda self, env: [[0, 0, 1], [1, 0, 0, 0], [1, 1]], won=lambda self, env, info: env.t == 4)
    assert view.legal[0].astype(int).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert play(env, 3).won is None and play(env, 1).won.tolist() == [True]


@pytest.mark.parametrize(("reward", "paid"), [("apart", [1, 2, 3]), ("sum", [6, 6, 6]), ("mean", [2, 2, 2])])
def test_rewards_follow_the_tasks_rule(reward, paid):
    assert play(begun(reward=reward)[0], 1).reward.tolist() == [paid]


def test_lanes_have_their_own_seeds_and_one_that_is_over_stands_still():
    env = lanes(2, limit=9)
    both = env.reset(np.array([5, 6])).obs[:, 0, 1]
    assert both[0] != both[1] and both[0] == lanes().reset(np.array([5])).obs[0, 0, 1]
    late = lanes(2, made=iter([Trap(length=2), Trap(length=9)]).__next__, limit=9)
    late.reset(np.array([0, 1]))
    assert play(late, 2).done.tolist() == [True, False]
    after = play(late, 1)
    assert after.reward.sum(1).tolist() == [0, 5] and after.done.tolist() == [True, False]
    assert len(late._lanes[0].made.sent) == 2


class Balance:
    """Gymnasium's way: Tuple spaces, lists of rewards, one end for all."""

    observation_space = spaces.Tuple([spaces.Box(-1, 1, (2,), np.float32)] * 2)
    action_space = spaces.Tuple([spaces.Box(np.array([0.0, -4.0]), np.array([1.0, 4.0]), dtype=np.float64)] * 2)

    def reset(self, seed):
        self.t = 0
        return (np.zeros(2, np.float32),) * 2, {}

    def step(self, actions):
        self.t, self.got = self.t + 1, actions
        return (np.ones(2, np.float32),) * 2, [1.0, 2.0], self.t == 2, False, {}

    @property
    def unwrapped(self):
        return self

    def close(self):
        pass


def test_a_gymnasium_environment_with_tuples_plays_and_boxes_are_scaled():
    env = lanes(made=Balance, limit=9)
    assert sizes(env) == {"agents": 2, "obs": 2, "state": 4, "actions": 2, "discrete": False}
    first = env.step(np.array([[[-3, 1], [0, 3]]], np.float32))
    assert [part.tolist() for part in env._lanes[0].made.got] == [[0, 4], [0.5, 4]]
    last = env.step(np.zeros((1, 2, 2), np.float32))
    assert first.reward.tolist() == [[1, 2]] and (first.done[0], last.done[0], last.timeout[0]) == (False, True, False)


def test_in_a_gymnasium_environment_one_agents_end_stops_nothing_and_a_cut_of_the_last_is_a_time_out():
    class Apart(Balance):
        def step(self, actions):
            obs, reward, over, _, info = super().step(actions)
            return obs, reward, [True, False], [False, over], info

    env = lanes(made=Apart, limit=9)
    env.reset(np.array([0]))
    first, last = (env.step(np.zeros((1, 2, 2), np.float32)) for _ in range(2))
    assert (first.done[0], last.done[0], last.timeout[0]) == (False, True, True)


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
def test_what_cannot_be_used_is_refused_in_a_line(fault, reason):
    with pytest.raises(TaskError, match=reason) as refusal:
        play(begun(made=lambda: Trap(fault), limit=9)[0], 4)
    assert "\n" not in str(refusal.value)


def test_what_is_no_environment_is_refused():
    with pytest.raises(TaskError, match="list: neither a ParallelEnv"):
        lanes(made=list)
