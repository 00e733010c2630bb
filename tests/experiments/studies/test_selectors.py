"""What data alone say of policies that are known in full."""

import numpy as np
import pytest
import torch

from offmarl.algorithms import registry
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


def policy(name):
    kind = registry()[name]
    return kind(SPEC, kind.Config(hidden=(8,)), [0], "cpu")


def test_the_split_is_by_whole_episodes_and_the_same_every_time():
    data = dataset()
    seen, unseen = halves(data, 0.9)
    assert len(seen.behaviour) == 9 and len(unseen.behaviour) == 1
    assert sorted([*seen.returns(), *unseen.returns()]) == sorted(data.returns())
    assert np.array_equal(halves(data, 0.9)[1].obs, unseen.obs) and halves(data, 1.0)[1] is None


def test_the_best_episodes_are_those_of_the_highest_returns():
    assert selectors.best_episodes(dataset()).returns().tolist() == [36.0]


@pytest.mark.parametrize("name", ["bc", "macql"])
def test_choices_are_legal_and_agreement_counts_those_of_the_data(name):
    data, method = dataset(), policy(name)
    obs, legal = torch.from_numpy(data.obs), torch.from_numpy(data.legal)
    own = selectors.choices(method, obs, legal)
    assert legal.gather(-1, own[..., None]).all()
    at = own[torch.from_numpy(data.rows)]
    data.actions[:] = at.numpy()
    if not method.acting_rule():
        assert selectors.agreement(method, data) == 1.0
        data.actions[: len(data) // 2] = (at[: len(data) // 2] + 1).numpy() % 4
        assert selectors.agreement(method, data) == pytest.approx(0.5)


def test_a_critic_is_asked_for_the_policys_own_actions_at_first_observations():
    data = Sampler(dataset(), [0]).data
    assert selectors.own_value(policy("bc"), data) is None
    method, first = policy("macql"), data.rows[[0, *(torch.nonzero(data.last)[:-1, 0] + 1).tolist()]]
    values = method.nets["critic"](data.obs[first][None])
    own = selectors.choices(method, data.obs[first], data.legal[first])
    wanted = values.gather(-1, own[None, None, ..., None].expand(1, 2, -1, -1, -1)).mean().detach()
    assert selectors.own_value(method, data) == pytest.approx(float(wanted), rel=1e-5)
