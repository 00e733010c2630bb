"""Measures of data whose facts are known: closed forms, and the game `games/dial`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from dial import ACTIONS, Dial

from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.measures import measure
from offmarl.datasets.measures.coverage import coverage, overlap
from offmarl.datasets.measures.dependence import memory, nothing
from offmarl.datasets.measures.likelihood import fit, permuted, rows_of, sample
from offmarl.datasets.measures.returns import distribution, freedom, settled
from offmarl.experiments.studies.games import GAMES

SMALL = {"episodes": 120, "length": 15}


def episodes(*actions, rewards=None, obs=None):
    """Episodes of one agent with two actions, whose observation is its number of the step unless it is given."""
    found = []
    for k, taken in enumerate(actions):
        seen = np.arange(len(taken) + 1.0) if obs is None else np.asarray(obs[k])
        seen = seen.astype(np.float32)[:, None]
        paid = np.zeros(len(taken)) if rewards is None else np.asarray(rewards[k])
        columns = {"obs": seen[:, None], "state": seen, "legal": np.ones((len(seen), 1, 2), bool)}
        columns |= {"actions": np.array(taken)[:, None], "rewards": paid.astype(np.float32)[:, None]}
        found.append(columns | {"done": True, "timeout": False})
    return from_episodes(found, [0] * len(found))


@pytest.mark.parametrize("centres", [[0], [-3, 3], [-4, 0, 4]])
def test_modes_are_those_of_the_mixture(centres):
    values = np.random.default_rng(0).normal(np.resize(centres, 2000), 0.6)
    assert distribution(values)["modes"] == len(centres)


def test_values_that_are_nearly_all_equal_have_their_modes():
    values = np.append(20 + 1e-4 * np.random.default_rng(0).random(190), [18.1, 18.2])
    assert distribution(values)["modes"] == 1
    assert distribution(np.append(values, np.full(60, 18.0)))["modes"] == 2


def test_skew_and_kurtosis_are_those_of_the_exponential_distribution():
    values = np.random.default_rng(0).exponential(size=200_000)
    facts = distribution(values)
    assert facts["skew"] == pytest.approx(2, abs=0.1)
    assert facts["kurtosis"] == pytest.approx(6, abs=1.0)
    assert distribution(np.full(5, 0.1))["skew"] is None


def test_pairs_are_counted_by_state_and_action():
    data = episodes([0, 0, 1], [0, 0, 0], [0, 1, 1])
    facts = coverage(data)  # (0,0) three times; (1,0) twice; (2,1) twice; (2,0); (1,1)
    assert facts["saco"] == facts["oaco"] == 5 / 9
    assert facts["curve"] == [2, 3]  # once, 2 to 3 times
    assert overlap(data, episodes([0])) == (3 / 9, 1.0)


def test_zeros_of_either_sign_are_one_observation():
    assert coverage(episodes([0], [0], obs=[[0.0, 1.0], [-0.0, 1.0]]))["saco"] == 0.5


def test_agents_without_a_choice_have_nothing_in_common():
    data = episodes([0, 0], [0, 0])
    data.legal[..., 1] = data.obs[..., 0] > 0  # no choice in the first step
    assert overlap(data, episodes([0])) == (0.0, 0.0)


def test_transitions_after_the_last_reward_are_settled():
    data = episodes([0] * 4, [0] * 4, rewards=[[0, 2, 0, 0], [0, 0, 0, 0]])
    assert settled(data) == 6 / 8
    assert settled(episodes([0] * 3, rewards=[[1, 1, 5]])) == 0


def test_entropy_follows_the_actions_over_time():
    data = episodes(*[[k % 2, 0] for k in range(10)])
    facts = freedom(data)
    assert facts["entropy"][0] == pytest.approx(np.log(2))
    assert facts["entropy"][5] == 0.0
    assert facts["even"][0] == pytest.approx(np.log(2))
    assert facts["entropy"][1] is None  # no step falls into this tenth


def test_a_permutation_stays_in_its_group_and_near_its_context():
    rng = np.random.default_rng(0)
    groups, contexts = rng.integers(3, size=3000), rng.random((3000, 2))
    taken = permuted(groups, contexts)
    assert np.array_equal(np.sort(taken), np.arange(3000))
    assert np.array_equal(groups[taken], groups)
    assert (taken != np.arange(3000)).mean() > 0.7
    assert np.linalg.norm(contexts[taken] - contexts, axis=1).mean() < 0.1  # of two random ones: 0.52


def test_histories_hold_the_past_of_the_same_episode_alone():
    data = episodes([0, 1, 1], *[[0, 0]] * 9)
    found = sample(data)
    assert found.history.shape == (21, 1, 12)  # twice a step and once the average: observation, actions, whether
    first = np.flatnonzero(np.append(True, np.diff(found.episode) != 0))
    assert (found.history[first] == found.history[first[0]]).all()
    assert set(found.part[first]) == {0, 1, 2}


@pytest.fixture(scope="module")
def at_rest():
    """Independent random policies."""
    return measure.measure(Dial(coupling=0.0, **SMALL).dataset())


@pytest.mark.parametrize("name", ["coordination", "memory"])
def test_independent_random_policies_need_neither(at_rest, name):
    assert abs(at_rest[name]["nats"]) < 0.02
    assert at_rest["conventions"]["number"] == 1
    assert at_rest["uncertainty"] == pytest.approx(2 * np.log(ACTIONS), rel=0.02)


def test_each_measure_finds_its_dial(at_rest):
    dial = Dial(coupling=0.6, conventions=2, memory=0.7, **SMALL)
    found = measure.measure(dial.dataset())
    assert found["coordination"]["nats"] == pytest.approx(dial.coupling, rel=0.4)
    assert found["memory"]["nats"] == pytest.approx(dial.memory_nats(), rel=0.4)
    assert found["conventions"] == found["conventions"] | {"number": 2, "recorded_by": 2}
    assert found["coverage"]["oaco"] == pytest.approx(at_rest["coverage"]["oaco"], rel=0.05)


def test_a_weak_memory_is_seen():
    seen = sample(Dial(memory=0.2).dataset())  # 0.1 nats
    rows = rows_of(seen)
    found = memory(seen, rows, fit(rows, nothing(rows)))
    assert 0.1 > found["nats"] > 3 * found["error"] > 0


def test_the_coordination_game_needs_it():
    """Figure 14's, of one step an episode: the closed form of its shares."""
    shares = {(0, 1): 0.45, (1, 0): 0.45, (1, 1): 0.05, (0, 0): 0.05}
    rng = np.random.default_rng(0)
    found = measure.measure(GAMES["coordination"](rng, 3000).dataset())
    mutual = sum(p * np.log(p / 0.25) for p in shares.values())
    assert found["coordination"]["nats"] == pytest.approx(mutual, rel=0.1)
    assert found["memory"]["nats"] == pytest.approx(0, abs=0.01)


def test_continuous_actions_are_measured_alike():
    dial = Dial(coupling=0.9, conventions=2, continuous=True)
    found = measure.measure(dial.dataset())
    assert 0.3 < found["coordination"]["nats"] < dial.coupling
    assert abs(found["memory"]["nats"]) < 0.03
    assert found["conventions"]["number"] == 2


def test_too_few_episodes_leave_networks_out():
    found = measure.measure(Dial(episodes=5).dataset())
    assert "coordination" not in found
    assert json.loads(json.dumps(found))["lengths"]["mean"] == 20


def test_measures_are_kept_until_the_data_change(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(measure, "measure", lambda data: made.append(data) or {"number": len(made)})
    card, place = {"sha256": "one"}, tmp_path / "data.npz"
    entry = SimpleNamespace(
        place=lambda: place, card=lambda: card, sums=lambda card: {place.name: card["sha256"]}, quality="good"
    )
    assert [measure.measures(entry, "data", card)["number"] for _ in range(2)] == [1, 1]
    assert measure.stored(entry) == {"number": 1}
    card["sha256"] = "two"
    assert measure.stored(entry) is None
    assert measure.measures(entry, "data", card)["number"] == 2
    (tmp_path / "data.measures.json").write_text("{")
    assert measure.measures(entry, "data", card)["number"] == 3


def test_datasets_that_act_alike_do_not_differ():
    one, other, unlike = (Dial(seed=k, **SMALL).dataset() for k in range(3))
    unlike.actions //= 4  # two of eight
    assert abs(measure.relation(one, other)["difference"]) < 0.02
    together = np.repeat([5 / 16, 1 / 16], [2, 6])
    of_both = -(together * np.log(together)).sum() - (np.log(8) + np.log(2)) / 2
    assert measure.relation(one, unlike)["difference"] == pytest.approx(2 * of_both, rel=0.1)
