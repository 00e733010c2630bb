"""Diffusion BC's loss and chain, written out."""

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.diffusion_bc import Config, DiffusionBC
from offmarl.algorithms.parts.diffusion import cosine, ddim, denoise, embed

STEPS = 6


@pytest.fixture
def build(make_spec):
    def make(space="continuous", **over):
        return DiffusionBC(make_spec(space), Config(**{"hidden": (16, 16), "diffusion_steps": STEPS, **over}), [3, 5])

    return make


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_loss_is_the_error_of_the_noise_at_a_step_of_each_agents_own(build, make_batch, space):
    """E |e - e(sqrt(abar) a + sqrt(1 - abar) e, t)|^2, the mean over agents and coordinates."""
    algorithm = build(space)
    batch, seen = make_batch(algorithm.spec, size=64), []
    noise = torch.randn(2, 64, 3, 4)
    algorithm.streams.normal = lambda *shape: noise.view(2, *shape)
    algorithm.nets["denoiser"].register_forward_hook(lambda net, inputs, out: seen.append((*inputs, out)))
    loss = algorithm.losses(batch)["denoiser"]
    (obs, noisy, time, out), abar = seen[0], cosine(STEPS).float()
    data = batch.actions if space == "continuous" else torch.nn.functional.one_hot(batch.actions, 4).float()
    steps = torch.cdist(time, embed(torch.arange(STEPS), 64)[None, None]).argmin(-1)
    assert_close(time, embed(steps, 64))
    a = abar[steps][..., None]
    assert_close(noisy, a.sqrt() * data + (1 - a).sqrt() * noise)
    assert torch.equal(obs, batch.obs) and steps.unique().tolist() == list(range(STEPS))
    assert (steps != steps[:, :, :1]).any() and (steps != steps[:, :1]).any()
    assert_close(loss, (out - noise).pow(2).mean((1, 2, 3)))


def test_an_action_is_the_end_of_the_chain_from_an_agents_own_noise(build):
    algorithm = build(sampler="ddim", ddim_calls=3)
    obs, noise, calls = torch.randn(2, 7, 3, 5), torch.randn(4, 2, 7, 3, 4), []
    algorithm.acting_noise = lambda *shape, call: calls.append(call) or noise[call].view(2, *shape)

    def predict(x, time):
        return algorithm.nets["denoiser"](obs, x, embed(time.expand(2, 7, 3), 64))

    with torch.no_grad():
        expected = denoise(ddim(cosine(STEPS), 3), predict, lambda k: noise[k]).clamp(-1, 1)
    assert_close(algorithm.act(obs)[0], expected)
    assert calls[0] == 3 and algorithm.nfe() == 3  # the start has a number of its own
