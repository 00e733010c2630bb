import math
from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.bc_rnn import BCRNN, Config

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec, make_data):
    def make(space="discrete", **over):
        algorithm = BCRNN(make_spec(space), Config(**{"hidden": (16,), "horizon": 7, **over}), SEEDS)
        algorithm.prepare(make_data(algorithm.spec, episodes=8, length=5))
        return algorithm

    return make


def window(data, number, horizon):
    """The rows of a window, and the transitions that start there; None where an episode ends."""
    row = int(data.rows[number])
    starts = {int(r): k for k, r in enumerate(data.rows)}
    return [(r, starts.get(r)) for r in range(row, min(row + horizon, len(data.obs)))]


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_loss_is_the_likelihood_of_the_datas_actions_after_their_episodes_past(build, make_batch, space):
    """By hand: every agent's own past in the window, step by step, with an empty memory at an episode's start."""
    algorithm = build(space)
    data, batch, found = algorithm.windows.data, make_batch(algorithm.spec), []
    for s in range(2):
        for number in batch.number[s]:
            memory = None
            for row, k in window(data, number, 7):
                memory = None if row % 6 == 0 else memory  # an episode has six rows
                out, memory = algorithm.step("policy", data.obs[row].expand(2, 1, -1, -1), memory)
                if k is None:
                    continue
                if space == "discrete":
                    law = torch.distributions.Categorical(logits=out[s, 0])
                    found.append((s, -law.log_prob(data.actions[k]).mean()))
                else:
                    law = torch.distributions.Normal(out[s, 0], 1.0)
                    constant = 0.5 * 4 * math.log(2 * math.pi)  # of four dimensions
                    found.append((s, -law.log_prob(data.actions[k]).sum(-1).mean() - constant))
    expected = [torch.stack([loss for which, loss in found if which == s]).mean() for s in range(2)]
    assert_close(algorithm.losses(batch)["policy"], torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_actions_depend_on_the_past_of_their_episode(build, views):
    algorithm = build("continuous")
    obs = views[0][:, :12]
    _, memory = algorithm.act(obs)
    again, _ = algorithm.act(obs, None, memory)
    other, _ = algorithm.act(obs, None, memory.flip(1))
    assert (again != other).flatten(2).any(-1).all()
    assert torch.equal(again, algorithm.act(obs, None, memory)[0])


@pytest.fixture
def views(look, make_spec):
    return look(make_spec())


@pytest.mark.parametrize("play", ["own", "zero"])
def test_argmax_and_play_without_noise_take_the_most_likely_legal_action(build, play, views):
    algorithm = build(act_by="argmax" if play == "own" else "sample")
    algorithm.play = play
    obs, legal = views
    likely = algorithm.step("policy", obs, None)[0].softmax(-1) * legal
    assert torch.equal(algorithm.act(obs, legal)[0], likely.argmax(-1))


@pytest.mark.parametrize(
    ("act_by", "play", "explores", "samples"),
    [
        ("sample", "own", False, True),
        ("sample", "own", True, True),
        ("argmax", "own", True, True),
        ("sample", "zero", True, True),
        ("argmax", "own", False, False),
        ("sample", "zero", False, False),
    ],
)
def test_own_play_and_exploring_sample_legal_actions_by_their_probabilities(build, act_by, play, explores, samples):
    algorithm, count = build(act_by=act_by), 5000
    algorithm.play = play
    odds = torch.tensor([0.15, 0.3, 0.05, 0.5])
    last = algorithm.nets["policy"].last
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(odds.log().expand_as(last.bias))
    legal = torch.tensor([True, True, True, False]).expand(2, count, 3, 4)
    with algorithm.exploring(algorithm.streams) if explores else nullcontext():
        actions, _ = algorithm.act(torch.randn(2, count, 3, 5), legal)
    shares = torch.nn.functional.one_hot(actions, 4).float().mean(1)  # of every agent of every seed
    expected = torch.tensor([0.3, 0.6, 0.1, 0.0]) if samples else torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert_close(shares, expected.expand(2, 3, 4), rtol=0, atol=0.03 if samples else 0)  # over four deviations
