"""What tests of single methods share: the contract's fixtures, and MAC-Flow with its parts recorded."""

import pytest
import torch

from offmarl.algorithms.mac_flow import Config, MACFlow
from offmarl.contract.fixtures import *  # noqa: F403

SEEDS = (3, 5)


@pytest.fixture(scope="session")
def set_value():
    """Make a network a constant: `value` broadcasts to its outputs [S, K, B, I, A] or [S, B, I, A]."""

    @torch.no_grad()
    def set_to(net, value):
        last = net.mlp.layers[-1]
        last.weight.zero_()
        last.bias.copy_(torch.as_tensor(value).reshape(-1, 1, last.bias.shape[-1]).expand_as(last.bias))

    return set_to


class Watched(MACFlow):
    """Keeps what passes between its parts."""

    def build(self):
        super().build()
        self.times, self.passed = [], {}

    def field(self, obs):
        inner = super().field(obs)

        def watch(x, t):
            self.times.append(t)
            return inner(x, t)

        return watch

    def teach(self, batch, noise):
        self.passed["teacher's noise"] = noise.clone()
        taught, actions = super().teach(batch, noise)
        self.passed |= {"taught": taught, "next actions": actions}
        return taught, actions

    def policy_losses(self, batch, noise, taught, q):
        self.passed |= {"policy's noise": noise, "taught to policy": taught, "q": q}
        return super().policy_losses(batch, noise, taught, q)


@pytest.fixture(scope="session")
def watched():
    """MAC-Flow that keeps what passes between its parts."""
    return Watched


@pytest.fixture(scope="session")
def mac_flow(make_spec):
    """Make a MAC-Flow, or another method with its settings."""

    def make(seeds=SEEDS, cls=MACFlow, space="discrete", **over):
        return cls(make_spec(space), Config(**{"hidden": (16, 16), **over}), seeds)

    return make


@pytest.fixture(scope="session")
def calls_of():
    """What a network is called with, and what it answers: one entry a call, from now on."""

    def watch(net):
        calls = []
        net.register_forward_hook(lambda module, inputs, output: calls.append((*inputs, output)))
        return calls

    return watch


@pytest.fixture(scope="session")
def small_planner():
    """Settings of a planner of two scales, with a past."""
    return {"hidden": (16,), "width": 8, "multipliers": (1, 2), "norm_groups": 2, "history": 2, "horizon": 2}
