"""Our Adam against torch's."""

import subprocess
import sys

import pytest
import torch

from offmarl.algorithms.parts.adam import Adam


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((5, 3), (7,), (2, 2))]


def steps(optimiser, held, rate, first, last):
    """Steps with gradients of their number; the last parameter has one from the third step on."""
    for k in range(first, last):
        rate.fill_(1e-2 / (k + 1))
        optimiser.zero_grad()
        for j, parameter in enumerate(held):
            if j < 2 or k >= 2:
                parameter.grad = torch.sin(parameter.detach() * (k + 1))
        optimiser.step()


@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
def test_it_is_torchs_adam_to_the_bit(epsilon):
    ours, theirs, rate = parameters(), parameters(), torch.tensor(0.0)
    steps(Adam([(ours, rate)], epsilon), ours, rate, 0, 20)
    steps(torch.optim.Adam(theirs, lr=rate, eps=epsilon, fused=True), theirs, rate, 0, 20)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_it_resumes_to_the_bit():
    whole, halves, rate = parameters(), parameters(), torch.tensor(0.0)
    steps(Adam([(whole, rate)], 1e-8), whole, rate, 0, 10)
    first = Adam([(halves, rate)], 1e-8)
    steps(first, halves, rate, 0, 5)
    second = Adam([(halves, rate)], 1e-8)
    second.load_state_dict(first.state_dict())
    steps(second, halves, rate, 5, 10)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves))


def test_without_gradients_nothing_moves():
    held, rate = parameters(), torch.tensor(1.0)
    optimiser = Adam([(held, rate)], 1e-8)
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(held, parameters())) and not any(optimiser.steps)


def test_a_method_trains_without_torchs_compiler():
    code = """
import sys, torch
from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import TaskSpec
method = registry()["bc"]
algorithm = method(TaskSpec(2, 3, 4, 5, True), method.Config(hidden=(4,)), [0])
algorithm.nets["policy"](torch.ones(1, 2, 2, 3)).sum().backward()
algorithm.optimiser.step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
