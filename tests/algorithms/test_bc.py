import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from offmarl.algorithms.bc import BC, Config

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(seeds=SEEDS, space="discrete", **over):
        return BC(make_spec(space), Config(**{"hidden": (16, 16), **over}), seeds)

    return make


@pytest.fixture
def views():
    """A few situations of distinct legal actions, each met in many episodes: obs, legal, and the situations."""
    obs, legal = 2 * torch.randn(2, 1, 3, 5), torch.rand(2, 1, 3, 4) < 0.7
    legal[..., :2] = True
    legal[:, :, 0, 3] = False
    return obs.expand(-1, 20000, -1, -1), legal.expand(-1, 20000, -1, -1)


def test_the_loss_is_the_cross_entropy_of_the_datas_actions(build, make_batch):
    algorithm = build()
    batch = make_batch(algorithm.spec)
    loss = algorithm.losses(batch)["policy"]
    logits = algorithm.nets["policy"](batch.obs)
    for s in range(2):
        expected = [-F.log_softmax(logits[s, b, i], -1)[batch.actions[s, b, i]] for b in range(8) for i in range(3)]
        assert_close(loss[s], torch.stack(expected).mean())


def test_the_loss_knows_no_mask_reward_or_successor(build, make_batch):
    algorithm = build()
    batch, other = make_batch(algorithm.spec), make_batch(algorithm.spec, draw=1)
    mixed = other._replace(obs=batch.obs, actions=batch.actions, legal=None)
    assert torch.equal(algorithm.losses(batch)["policy"], algorithm.losses(mixed)["policy"])


@pytest.mark.parametrize("play", ["own", "zero"])
def test_argmax_and_play_without_noise_take_the_most_likely_legal_action(build, play):
    algorithm = build(act_by="argmax" if play == "own" else "sample")
    algorithm.play = play
    obs, legal = torch.randn(2, 50, 3, 5), torch.rand(2, 50, 3, 4) < 0.5
    legal[..., 0] = True
    likely = algorithm.nets["policy"](obs).softmax(-1) * legal
    assert torch.equal(algorithm.act(obs, legal)[0], likely.argmax(-1))


def test_samples_follow_the_softmax_over_legal_actions(build, views):
    algorithm = build()
    obs, legal = views
    shares = F.one_hot(algorithm.act(obs, legal)[0], 4).float().mean(1)
    likely = algorithm.nets["policy"](obs[:, :1])[:, 0].detach().exp() * legal[:, 0]
    likely /= likely.sum(-1, keepdim=True)
    assert likely[legal[:, 0]].min() < 0.2 and likely.max() > 0.5  # far from uniform
    assert_close(shares, likely, rtol=0, atol=0.015)  # four deviations of a share
    assert (shares[~legal[:, 0]] == 0).all()


def test_samples_differ_between_seeds_and_calls(build, views):
    algorithm = build(act_by="sample")
    obs, legal = (x[:1, :100].expand(2, -1, -1, -1) for x in views)
    algorithm.load_nets({n: v[:1].expand_as(v) for n, v in algorithm.nets.state_dict().items()})  # one network
    one, other = algorithm.act(obs, legal)[0], algorithm.act(obs, legal)[0]
    assert not torch.equal(one[0], one[1]) and not torch.equal(one, other)
    alone = build(SEEDS[1:], act_by="sample")
    alone.load_nets(algorithm.seed_state(1))
    assert torch.equal(alone.act(obs[1:], legal[1:])[0][0], one[1])


def test_training_recovers_a_rule_of_the_observation(build, make_batch):
    algorithm = build(learning_rate=1e-2)
    for draw in range(200):
        batch = make_batch(algorithm.spec, size=64, draw=draw)
        algorithm.update(batch._replace(actions=batch.obs[..., :4].argmax(-1)))
    obs = make_batch(algorithm.spec, size=64, draw=999).obs
    algorithm.play = "zero"
    assert (algorithm.act(obs)[0] == obs[..., :4].argmax(-1)).float().mean() > 0.85


def test_training_recovers_the_shares_of_a_mixed_behaviour(build, make_batch):
    algorithm, wanted = build(learning_rate=1e-2), torch.tensor([0.6, 0.3, 0.1, 0.0])
    for draw in range(150):
        batch = make_batch(algorithm.spec, size=64, draw=draw)
        actions = torch.multinomial(wanted, batch.actions.numel(), replacement=True).view(batch.actions.shape)
        algorithm.update(batch._replace(obs=torch.zeros_like(batch.obs), actions=actions))
    logits = algorithm.nets["policy"](torch.zeros(2, 1, 3, 5))
    assert_close(logits.softmax(-1).detach(), wanted.expand(2, 1, 3, 4), rtol=0, atol=0.08)


# Continuous actions


def test_the_continuous_loss_is_the_likelihood_of_a_unit_gaussian(build, make_batch):
    algorithm = build(space="continuous")
    batch = make_batch(algorithm.spec)
    likely = torch.distributions.Normal(algorithm.nets["policy"](batch.obs), 1.0).log_prob(batch.actions)
    constant = 0.5 * 4 * math.log(2 * math.pi)  # of four dimensions
    assert_close(algorithm.losses(batch)["policy"], -likely.sum(-1).mean((1, 2)) - constant)


@pytest.mark.parametrize("act_by", ["argmax", "sample"])
def test_the_continuous_action_is_the_clipped_mean(build, act_by):
    algorithm = build(space="continuous", act_by=act_by)
    obs = 3 * torch.randn(2, 50, 3, 5)
    mean = algorithm.nets["policy"](obs)
    assert mean.abs().max() > 1
    assert torch.equal(algorithm.act(obs)[0], mean.clamp(-1, 1))


def test_training_recovers_a_continuous_rule(build, make_batch):
    algorithm = build(space="continuous", learning_rate=1e-2)
    for draw in range(200):
        batch = make_batch(algorithm.spec, size=64, draw=draw)
        algorithm.update(batch._replace(actions=batch.obs[..., :4].tanh()))
    obs = make_batch(algorithm.spec, size=64, draw=999).obs
    assert (algorithm.act(obs)[0] - obs[..., :4].tanh()).abs().mean() < 0.15
