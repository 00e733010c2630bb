"""The gradient step that all methods share: Adam's rates, by network, falling, and resumed."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from offmarl.algorithms import registry
from offmarl.algorithms.icq import ICQ, Config
from offmarl.algorithms.mabcq import MABCQ
from offmarl.algorithms.matd3bc import MATD3BC
from offmarl.algorithms.om2p import OM2P
from offmarl.algorithms.parts.algorithm import clip_gradients
from offmarl.algorithms.parts.streams import SeedStreams

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


def test_rates_fall_evenly_to_zero_and_stay_there(build, make_batch):
    algorithm, seen = build(decay_steps=4, critic_learning_rate=0.0), []
    for _ in range(6):
        algorithm.begin_update()
        seen.append(float(algorithm.rates[5e-3]))
    assert seen == pytest.approx([5e-3, 3.75e-3, 2.5e-3, 1.25e-3, 0, 0])


def test_a_seeds_gradient_is_cut_to_the_limit_and_a_shorter_one_left_alone():
    """The norm is over all parameters of one seed; the network of seed 1 may have another."""
    net = nn.ParameterList([torch.zeros(2, 3), torch.zeros(2, 2, 2)])
    grads = [torch.randn(p.shape) for p in net]
    grads = [g * torch.tensor([9.0, 0.01]).view(2, *[1] * (g.ndim - 1)) for g in grads]
    for p, g in zip(net, grads):
        p.grad = g.clone()
    clip_gradients(net, 2, 0.5)
    norm = torch.cat([g[0].flatten() for g in grads]).norm()
    for p, g in zip(net, grads):
        assert_close(p.grad[0], 0.5 / norm * g[0])
        assert torch.equal(p.grad[1], g[1])
    clip_gradients(nn.ParameterList([torch.zeros(2, 3)]), 2, 0.5)  # without gradients there is nothing to cut


@pytest.mark.parametrize(("cls", "space"), [(MABCQ, "discrete"), (MATD3BC, "continuous")])
def test_what_is_reported_of_a_critic(make_spec, make_batch, cls, space):
    """Its mean over twins and agents at the data's actions, and the largest and mean value of its last pass."""
    algorithm = cls(make_spec(space), cls.Config(hidden=(16, 16)), [3, 5])
    batch, critic = make_batch(algorithm.spec), algorithm.nets["critic"]
    with torch.no_grad():
        if space == "continuous":
            expected = critic(batch.obs, batch.actions).mean((1, 2, 3, 4))
        else:
            chosen = torch.nn.functional.one_hot(batch.actions, 4)[:, None] * critic(batch.obs)
            expected = chosen.sum(-1).mean((1, 2, 3))
    assert_close(algorithm.mean_value(batch), expected)
    seen = []
    critic.register_forward_hook(lambda net, inputs, out: seen.append(out.detach()))
    metrics = algorithm.update(batch)
    assert_close(metrics["largest_q"], seen[-1].abs().flatten(1).amax(1))
    assert_close(metrics["mean_q"], seen[-1].flatten(1).mean(1))


def test_noise_is_the_authors_none_or_one_draw_for_all(make_spec):
    algorithm = OM2P(make_spec("continuous"), OM2P.Config(hidden=(16,)), [3, 5])
    own, again = (algorithm.acting_noise(400, 3, 4) for _ in range(2))
    assert (
        own.shape == (2, 400, 3, 4) and not torch.equal(own, again) and own.std().item() == pytest.approx(1, abs=0.05)
    )
    algorithm.play = "zero"
    assert torch.equal(algorithm.acting_noise(4, 3, 4), torch.zeros(2, 4, 3, 4))
    algorithm.play = "fixed"
    first, same, other = (algorithm.acting_noise(4, 3, 4, call=call) for call in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other) and first.shape == (2, 4, 3, 4)
    assert (first == first[:, :1]).all() and first.std() > 0.5
    streams = SeedStreams([1, 2], "exploration")
    with algorithm.exploring(streams):  # draws whatever the play
        fresh = algorithm.acting_noise(4, 3, 4)
    assert torch.equal(fresh, SeedStreams([1, 2], "exploration").normal(4, 3, 4))
    assert torch.equal(algorithm.acting_noise(4, 3, 4), first) and not algorithm.explores


def test_parameters_are_counted_for_one_seed(build):
    two, one = build(), ICQ(build().spec, Config(**RATES), [3])
    trained = sum(p.numel() for p in one.nets.parameters() if p.requires_grad)
    assert two.parameters() == one.parameters() == trained
    assert any(not p.requires_grad for p in one.nets.parameters())  # targets are not trained


def test_targets_move_by_the_rate(build):
    algorithm = build()
    with torch.no_grad():
        for p in algorithm.nets["target_critic"].parameters():
            p.normal_()
    before = [p.clone() for p in algorithm.nets["target_critic"].parameters()]
    now = list(algorithm.nets["critic"].parameters())
    algorithm.move_targets(0.25)
    for old, new, online in zip(before, algorithm.nets["target_critic"].parameters(), now):
        assert_close(new, 0.75 * old + 0.25 * online)


def test_a_step_descends_the_sum_of_the_terms_and_reports_numbers(build, make_batch):
    algorithm, again = build(), build()
    batch = make_batch(algorithm.spec)
    reported = algorithm.update(batch)
    assert not any(value.requires_grad for value in reported.values())
    trained = [p for p in again.nets.parameters() if p.requires_grad]
    grads = torch.autograd.grad(sum(loss.sum() for loss in again.losses(batch).values()), trained)
    for p, g in zip((p for p in algorithm.nets.parameters() if p.requires_grad), grads, strict=True):
        assert_close(p.grad, g)


def test_a_seeds_networks_are_its_part_of_every_weight(build):
    algorithm, alone = build(), ICQ(build().spec, Config(**RATES), [5])
    whole = algorithm.nets.state_dict()
    for name, value in algorithm.seed_state(1).items():
        assert torch.equal(value, whole[name][len(whole[name]) // 2 :].reshape(value.shape))
    alone.load_nets(algorithm.seed_state(1))
    assert alone.nfe() == 1 and ICQ.variant_names() == ["released"]
