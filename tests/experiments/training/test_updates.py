import pytest
import torch

from offmarl.experiments.timing.throughput import random_data
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import Updates, job_trainer

METHODS = ["bc", "mabcq", "mac_flow", "madiff_d", "maicq"]
TINY = {"madiff_d": {"width": 8, "multipliers": [1], "norm_groups": 2, "diffusion_steps": 4}}


def make(job, device="cpu", capture=False):
    algorithm, sampler, _ = job_trainer(job, random_data(job.entry.task), Host(device))
    return algorithm, Updates(algorithm, sampler, capture)


def assert_alike(one, other, **tolerance):
    for a, b in zip(one.nets.state_dict().values(), other.nets.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_an_update_is_a_batch_of_the_sampler_and_an_update_of_the_method(small, method):
    job = small(method, **TINY.get(method, {}))
    (one, updates), (other, reference) = make(job), make(job)
    for _ in range(3):
        metrics = updates()
        expected = other.update(reference.sampler.sample(job.config.batch_size))
        assert all(torch.equal(value, expected[name]) for name, value in metrics.items())
    assert one.updates == other.updates == 3
    assert_alike(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_two_halves_of_an_update_make_the_whole(small, method):
    """What a capture does: the host's part, then the device's."""
    job = small(method, **TINY.get(method, {}))
    (one, whole), (other, parts) = make(job), make(job)
    for _ in range(5):
        whole()
        other.begin_update()
        parts._on_device()
    assert_alike(one, other, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_captured_updates_are_eager_ones_to_round_off(small, method):
    job = small(method, **({"mabcq": {"target_period": 7}, "maicq": {"target_period": 7}} | TINY).get(method, {}))
    (one, eager), (other, captured) = make(job, "cuda"), make(job, "cuda", capture=True)
    for step in range(100):
        expected, found = eager(), captured()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, step=step: f"{step}: {m}"
            )
    assert captured.graphs and all(graph.graph is not None for graph in captured.graphs.values())
    assert_alike(one, other, rtol=1e-3, atol=1e-4)
