"""The gradient step that all methods share: Adam's rates, by network, falling, and resumed."""

import pytest

from offmarl.algorithms import registry
from offmarl.algorithms.icq import ICQ, Config

RATES = {"learning_rate": 5e-3, "critic_learning_rate": 1e-3, "max_grad_norm": 0.0, "hidden": (16, 16)}


@pytest.fixture
def build(make_spec):
    return lambda **over: ICQ(make_spec("continuous"), Config(**RATES | over), [3, 5])


def step_of(algorithm, batch):
    """The largest change of a weight in one update, by network."""
    before = {name: [p.clone() for p in net.parameters()] for name, net in algorithm.nets.items()}
    algorithm.update(batch)
    return {
        name: max(float((p - b).detach().abs().max()) for p, b in zip(net.parameters(), before[name]))
        for name, net in algorithm.nets.items()
    }


def test_a_network_may_have_a_learning_rate_of_its_own(build, make_batch):
    """The first step of Adam is the learning rate itself."""
    algorithm = build(adam_epsilon=1e-12)
    moved = step_of(algorithm, make_batch(algorithm.spec))
    assert moved["policy"] == pytest.approx(5e-3, rel=1e-2)
    assert [moved["critic"], moved["mixer"]] == pytest.approx([1e-3, 1e-3], rel=1e-2)
    same = build(critic_learning_rate=0.0, adam_epsilon=1e-12)
    assert len(same.rates) == 1 and step_of(same, make_batch(same.spec))["critic"] > 4e-3


def test_all_rates_fall_together_and_are_found_again(build, make_batch):
    algorithm = build(decay_steps=4)
    for draw in range(2):
        algorithm.update(make_batch(algorithm.spec, draw=draw))
    again = build(decay_steps=4)
    again.load_state_dict(algorithm.state_dict())
    for each in (algorithm, again):
        each.begin_update()  # the third of four: half of the rate
        assert sorted({float(rate) for rate in each.optimiser.rates}) == pytest.approx([5e-4, 2.5e-3])


@pytest.mark.parametrize("cls", registry().values(), ids=lambda cls: cls.name)
def test_rates_are_for_networks_that_exist_and_epsilon_is_the_configs(cls, make_spec, tiny):
    spec = make_spec(sorted(cls.actions)[0])
    algorithm = cls(spec, cls.Config(**tiny(cls), adam_epsilon=3e-7), [0])
    assert algorithm.learning_rates().keys() <= {*algorithm.nets, "mixer"}
    assert algorithm.optimiser.epsilon == 3e-7
