"""Evaluation counts what was played and nothing else."""

import contextlib
import dataclasses
import inspect

import numpy as np
import pytest
import torch

from offmarl.algorithms.madiff_d import MADiffD
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.benchmarks import rollout
from offmarl.benchmarks.rollout import agent_rewards, evaluate, lane_seeds, waves

SMALL_PLANNER = {"hidden": (16,), "width": 8, "multipliers": (1,), "norm_groups": 2, "horizon": 2}


class Plain:
    """Draws nothing, and takes nothing from rewards."""

    def rewarded(self, memory, rewards):
        return memory

    def acting_for(self, lanes, total):
        return contextlib.nullcontext()


class FirstLegal(Plain):
    """Attack the first enemy in reach, or else go east; remembers how often it was asked."""

    def act(self, obs, legal=None, memory=None):
        attack = legal[..., 6:]
        east = torch.where(legal[..., 4], 4, torch.where(legal[..., 1], 1, 0))
        return torch.where(attack.any(-1), 6 + attack.long().argmax(-1), east), (memory or 0) + 1


class Listener(Plain):
    """Takes action 0 and keeps what it was given."""

    def __init__(self):
        self.obs, self.memories, self.rewards = [], [], []

    def act(self, obs, legal=None, memory=None):
        self.obs.append(obs)
        self.memories.append(memory)
        return torch.zeros(obs.shape[:3], dtype=torch.int64), len(self.memories)

    def rewarded(self, memory, rewards):
        self.rewards.append(rewards)
        return memory


def test_every_seed_has_its_own_lane_seeds_whichever_seeds_play_with_it():
    seeds = lane_seeds([0, 7, 3], 5).reshape(3, 5)
    assert np.array_equal(seeds[1], lane_seeds([7], 5))
    assert np.array_equal(seeds[2], lane_seeds([3], 64)[:5])


def test_lane_seeds_are_those_of_stored_runs():
    assert lane_seeds([2], 3, first=4).tolist() == [500_200_013, 500_200_014, 500_200_015]
    assert lane_seeds([0], 1).tolist() == [500_000_003]


def test_lane_seeds_differ_between_all_seeds_and_episodes():
    seeds = lane_seeds(list(range(50)), 320)
    assert len(set(seeds.tolist())) == 50 * 320


def test_evaluation_battles_are_none_of_the_recorded_ones():
    from offmarl.datasets.embedded.recipes import catalogue

    last = max(recipe.seed() + recipe.episodes + 64 for recipe in catalogue().values())
    assert lane_seeds([0], 1).min() > last


@pytest.mark.parametrize("apart", [False, True])
def test_returns_lengths_and_victories_end_with_the_episode(countdown, apart):
    env = countdown(12, apart)
    outcome = evaluate(Listener(), env, [0, 1, 2])
    for seed, episodes in zip([0, 1, 2], outcome, strict=True):
        for k, s in enumerate(lane_seeds([seed], 4).tolist()):
            length = 1 + s % 4
            assert episodes.lengths[k] == length
            expected = float(np.sum(np.float32(s) + np.arange(length, dtype=np.float32), dtype=np.float64))
            assert episodes.returns[k] == pytest.approx(expected, rel=1e-6)
            assert episodes.won[k] == (s % 2 == 1)


def test_the_policy_learns_of_its_rewards(countdown):
    policy = Listener()
    evaluate(policy, countdown(12), [0, 1, 2])
    first = np.float32([lane_seeds([seed], 4) for seed in (0, 1, 2)])
    assert np.array_equal(policy.rewards[0].numpy(), np.repeat(first[..., None], 3, -1))
    obs = torch.zeros(2, 2, 3, 5)
    own = np.arange(12.0).reshape(4, 3)
    assert agent_rewards(own, obs).flatten().tolist() == own.ravel().tolist()


def test_a_game_without_victories_has_none(countdown):
    outcome = evaluate(Listener(), countdown(4, victory=False), [0])
    assert outcome[0].won is None


def test_a_policy_sees_its_seeds_lanes_and_gets_its_memory_back(countdown):
    policy = Listener()
    evaluate(policy, countdown(8), [5, 2])
    assert policy.memories == [None, *range(1, len(policy.memories))]
    first = policy.obs[0]
    assert first.shape == (2, 4, 3, 3)
    told = first[:, :, 0, 0].numpy()
    assert np.array_equal(told, lane_seeds([5, 2], 4).reshape(2, 4).astype(np.float32))


def test_returns_of_battles_equal_a_plain_loop(battles):
    episodes = evaluate(FirstLegal(), battles, [4])[0]
    view, policy = battles.reset(lane_seeds([4], battles.lanes)), FirstLegal()
    rewards, dones, wins = [], [], []
    for _ in range(battles.task.limit):
        actions, _ = policy.act(torch.from_numpy(view.obs), torch.from_numpy(view.legal))
        step = battles.step(actions.numpy())
        view = step.view
        rewards.append(step.reward), dones.append(step.done), wins.append(step.won)
    for lane in range(battles.lanes):
        end = next(t for t, done in enumerate(dones) if done[lane])
        assert episodes.lengths[lane] == end + 1
        assert episodes.returns[lane] == pytest.approx(sum(float(r[lane]) for r in rewards[: end + 1]), abs=1e-5)
        assert episodes.won[lane] == bool(wins[end][lane])
    assert len(set(episodes.lengths)) > 3  # lanes did finish at different times
    assert {True, False} == set(episodes.won)


def test_grouping_of_seeds_does_not_change_a_seeds_returns(battles):
    together = evaluate(FirstLegal(), battles, [3, 5])
    alone = evaluate(FirstLegal(), battles, [5])[0]
    half = battles.lanes // 2
    assert together[1].returns == alone.returns[:half]
    assert together[1].lengths == alone.lengths[:half]
    assert together[0].returns != together[1].returns


def test_evaluation_repeats_itself(battles):
    assert evaluate(FirstLegal(), battles, [1, 2]) == evaluate(FirstLegal(), battles, [1, 2])


def test_the_protocol_of_environments_is_what_the_adapter_offers(battles):
    from offmarl.benchmarks.env import BatchEnv

    for name in ("reset", "step", "close"):
        promised = list(inspect.signature(getattr(BatchEnv, name)).parameters)
        assert list(inspect.signature(getattr(type(battles), name)).parameters) == promised


def test_few_lanes_play_the_same_episodes_in_waves(countdown):
    assert evaluate(Listener(), countdown(4), [0, 5], episodes=7) == [
        dataclasses.replace(e, returns=e.returns[:7], won=e.won[:7], lengths=e.lengths[:7])
        for e in evaluate(Listener(), countdown(16), [0, 5])
    ]


class Breaking:
    """A countdown whose games break off in the given waves, in lane 0, with a return that must not count."""

    def __init__(self, game, waves):
        self.game, self.lanes, self.waves, self.wave = game, game.lanes, waves, -1

    def reset(self, seeds):
        self.wave += 1
        return self.game.reset(seeds)

    def step(self, actions):
        step = self.game.step(actions)
        void = np.zeros(self.lanes, bool)
        void[0] = self.wave in self.waves
        return step._replace(void=void, done=step.done | void, reward=np.where(void, -1e9, step.reward))


def test_episodes_that_broke_off_are_played_anew(countdown):
    outcome = evaluate(Listener(), Breaking(countdown(2), {0, 1}), [3], episodes=4)[0]
    seeds = [lane_seeds([3], 6)[k] for k in (1, 3, 4, 5)]
    assert outcome.lengths == [1 + s % 4 for s in seeds]
    assert min(outcome.returns) > 0


@pytest.mark.parametrize("crashes", [4, 5])
def test_as_many_games_may_break_off_as_are_wanted_of_all_seeds(countdown, crashes):
    """Two episodes of two seeds, and one lane of the first seed that breaks off in the first waves."""
    env = Breaking(countdown(2), set(range(crashes)))
    if crashes > 4:
        with pytest.raises(RuntimeError, match="5 evaluation episodes crashed before 2 of every seed"):
            evaluate(Listener(), env, [3, 5], episodes=2)
    else:
        first, second = evaluate(Listener(), env, [3, 5], episodes=2)
        assert first.lengths == [1 + s % 4 for s in lane_seeds([3], 6).tolist()[4:]]
        assert second.lengths == [1 + s % 4 for s in lane_seeds([5], 2).tolist()]


@pytest.mark.parametrize(("episodes", "pauses"), [(4, 0), (5, 1), (12, 2), (None, 0)])
def test_between_waves_there_is_a_pause_and_after_the_last_there_is_none(countdown, episodes, pauses):
    assert len(list(waves(Listener(), countdown(8), [0, 1], episodes=episodes))) == pauses


class Keeping(Plain):
    """Keeps what it was asked for, and a memory of every lane: the seed that its game began with."""

    def __init__(self, memory):
        self.memory, self.games, self.lanes = memory, [], []

    def act(self, obs, legal=None, memory=None):
        self.games.append(obs[:, :, 0, 0].numpy())
        if self.memory == "lanes":
            assert memory is None or np.array_equal(memory[..., 0], self.games[-1])
            memory = obs[:, :, 0, :1] if memory is None else memory
        return torch.zeros(obs.shape[:3], dtype=torch.int64), {"whole": 1} if self.memory == "team" else memory

    def acting_for(self, lanes, total):
        self.lanes.append((lanes, total))
        return super().acting_for(lanes, total)


@pytest.mark.parametrize("memory", ["none", "lanes", "team"])
@pytest.mark.parametrize("each", [8, 14, 18, 33])
def test_running_episodes_and_no_more_than_eight_a_seed_beside_them_are_asked(countdown, each, memory):
    """Of two seeds with `each` lanes, that end at different steps. A memory of no lanes keeps all of them."""
    policy, width = Keeping(memory), each
    outcome = evaluate(policy, countdown(2 * each), [0, 1])
    seeds = lane_seeds([0, 1], each).reshape(2, each)
    for step, (games, (lanes, total)) in enumerate(zip(policy.games, policy.lanes, strict=True)):
        running = seeds % 4 >= step
        needed = 8 * -(-running.sum(1).max() // 8)
        width = width if memory == "team" else min(width, needed)
        assert games.shape == lanes.shape == (2, width) and total == each
        assert np.array_equal(games, np.take_along_axis(seeds, lanes.numpy(), 1).astype(np.float32))
        for own, asked in zip(running, lanes.numpy()):
            assert set(np.flatnonzero(own)) <= set(asked.tolist()) and (np.diff(asked) > 0).all()
    assert [e.lengths for e in outcome] == (1 + seeds % 4).tolist()


def test_returns_have_five_decimals(countdown):
    class Thirds(type(countdown(1))):
        def step(self, actions):
            return super().step(actions)._replace(reward=np.full(self.lanes, 1 / 3))

    lengths = 1 + lane_seeds([0], 4) % 4
    assert evaluate(Listener(), Thirds(4), [0])[0].returns == [round(float(n) / 3, 5) for n in lengths]


def test_finished_lanes_are_not_asked_and_change_nothing(battles, monkeypatch):
    task = battles.task
    spec = TaskSpec(task.agents, task.obs, task.state, task.actions, True)
    found, asked = [], []
    for multiple in (8, 1000):
        monkeypatch.setattr(rollout, "ASKED", multiple)
        method = MADiffD(spec, MADiffD.Config(diffusion_steps=3, ddim_calls=2, history=2, **SMALL_PLANNER), [3, 5])
        act, rows = method.act, []
        method.act = lambda obs, *rest, act=act, rows=rows: (rows.append(obs.shape[1]), act(obs, *rest))[1]
        found.append(evaluate(method, battles, [3, 5]))
        asked.append(rows)
    assert found[0] == found[1]
    assert len(set(found[0][0].lengths)) > 5
    assert set(asked[1]) == {32} and {8, 32} <= set(asked[0]) and len(asked[0]) == len(asked[1])
    assert sorted(asked[0], reverse=True) == asked[0]
