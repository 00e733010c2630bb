"""What data alone say of policies that are known in full."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.part import halves
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.studies import selectors

SPEC = TaskSpec(agents=2, obs=3, state=3, actions=4, discrete=True)


def dataset(episodes=10, length=4):
    rng = np.random.default_rng(0)
    rows = []
    for e in range(episodes):
        legal = rng.random((length + 1, 2, 4)) < 0.5
        legal[..., 0] = True
        obs = rng.normal(size=(length + 1, 2, 3)).astype(np.float32)
        facts = {"obs": obs, "state": obs[:, 0], "legal": legal, "actions": np.zeros((length, 2), np.int64)}
        rows.append(facts | {"rewards": np.full((length, 2), e, np.float32), "done": True, "timeout": False})
    return from_episodes(rows, [0] * episodes)


def policy(name, **settings):
    kind = registry()[name]
    return kind(SPEC, kind.Config(hidden=(8,), **settings), [0], "cpu")


def test_the_split_is_by_whole_episodes_and_the_same_every_time():
    data = dataset()
    seen, unseen = halves(data, 0.9)
    assert len(seen.behaviour) == 9 and len(unseen.behaviour) == 1
    assert sorted([*seen.returns(), *unseen.returns()]) == sorted(data.returns())
    assert np.array_equal(halves(data, 0.9)[1].obs, unseen.obs) and halves(data, 1.0)[1] is None


def test_the_best_episodes_are_those_of_the_highest_returns():
    assert selectors.best_episodes(dataset()).returns().tolist() == [36.0]


@pytest.mark.parametrize("name", ["bc", "macql", "bc_rnn", "maicq", "qmix_cql"])
def test_choices_are_legal_and_agreement_counts_those_of_the_data(name):
    data, method = dataset(), policy(name)
    legal, own = torch.from_numpy(data.legal), selectors.choices(method, data)
    assert legal.gather(-1, own[..., None]).all()
    at = own[torch.from_numpy(data.rows)]
    data.actions[:] = at.numpy()
    if not method.acting_rule():
        assert selectors.agreement(method, data) == 1.0
        data.actions[: len(data) // 2] = (at[: len(data) // 2] + 1).numpy() % 4
        assert selectors.agreement(method, data) == pytest.approx(0.5)


VALUING = [one for one in registry().values() if one.mean_value is not Algorithm.mean_value]


@pytest.mark.parametrize("name", sorted(one.name for one in VALUING if "discrete" in one.actions))
def test_every_critic_values_its_policys_choices(name):
    data, method = dataset(), policy(name)
    value = selectors.own_value(method, Sampler(data, [0]).data, selectors.choices(method, data))
    assert value is not None and np.isfinite(value)


def test_a_policy_with_a_memory_remembers_its_episode_and_no_other():
    data, method = dataset(episodes=4), policy("bc_rnn", act_by="argmax")
    found, row = selectors.choices(method, data), 0
    for _ in range(4):
        memory = None
        for _ in range(5):  # four transitions, and what the last one led to
            obs, legal = torch.from_numpy(data.obs[None, None, row]), torch.from_numpy(data.legal[None, None, row])
            action, memory = method.act(obs, legal, memory)
            assert found[row].tolist() == action[0, 0].tolist()
            row += 1
    assert row == len(data.obs)


def test_a_critic_with_a_memory_values_the_windows_that_begin_with_an_episode():
    data, method = dataset(length=1), policy("maicq", horizon=2)
    rows, own = Sampler(data, [0]).data, selectors.choices(method, data)
    first = rows.rows[[0, *(torch.nonzero(rows.last)[:-1, 0] + 1).tolist()]]
    values, _ = method.step("critic", rows.obs[first][None], None)
    each = values.gather(-1, own[first][None, ..., None])[..., 0][:, None]
    wanted = method.nets["mixer"](each, rows.state[first][None]).mean().detach()
    assert selectors.own_value(method, rows, own) == pytest.approx(float(wanted), rel=1e-5)


def test_every_policy_of_a_pool_is_valued_whatever_it_remembers():
    names = ("bc", "macql", "bc_rnn", "qmix_cql")
    task = SimpleNamespace(**dataclasses.asdict(SPEC))
    found = selectors.values_of({name: policy(name) for name in names}, dataset(), task)
    assert [found["critic"][name] is None for name in names] == [True, False, True, False]
    assert all(np.isfinite(found["fitted_q"][name]) for name in names)


def test_data_without_a_reward_value_nobody():
    data = dataset()
    data.rewards[:] = 0
    found = selectors.values_of({"macql": policy("macql")}, data, SimpleNamespace(**dataclasses.asdict(SPEC)))
    assert found == {"critic": {"macql": None}, "fitted_q": {"macql": None}}


def test_a_critic_is_asked_for_the_policys_own_actions_at_first_observations():
    whole = dataset()
    data = Sampler(whole, [0]).data
    assert selectors.own_value(policy("bc"), data, selectors.choices(policy("bc"), whole)) is None
    method, first = policy("macql"), data.rows[[0, *(torch.nonzero(data.last)[:-1, 0] + 1).tolist()]]
    values = method.nets["critic"](data.obs[first][None])
    own = selectors.choices(method, whole)
    wanted = values.gather(-1, own[first][None, None, ..., None].expand(1, 2, -1, -1, -1)).mean().detach()
    assert selectors.own_value(method, data, own) == pytest.approx(float(wanted), rel=1e-5)
