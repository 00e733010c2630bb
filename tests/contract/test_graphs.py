"""What a CUDA graph needs of every method, tested on any device: steps that are the same each time."""

from collections import defaultdict

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

HOST = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::lift_fresh", "aten::masked_select"}


class Operations(TorchDispatchMode):
    """Records every operation: its name, the shapes of its tensors, and its numbers."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        def described(value):
            if isinstance(value, torch.Tensor):
                return tuple(value.shape), value.dtype
            return "generator" if isinstance(value, torch.Generator) else value

        name = func.name().split(".")[0]
        if not name.startswith("profiler::"):
            self.seen.append((name, str(tree_map(described, (args, kwargs or {})))))
        return func(*args, **(kwargs or {}))


def places(algorithm):
    """The address of every tensor that an update leaves to the next."""
    named = dict(algorithm.nets.state_dict()) | {k: v for k, v in vars(algorithm).items() if torch.is_tensor(v)}
    for part, values in algorithm.optimiser.state_dict().items():
        named |= {f"optimiser {part} {k}": value for k, value in enumerate(values)}
    return {name: value.data_ptr() for name, value in named.items()}


def test_gradient_steps_of_a_variant_are_alike_and_never_wait_for_the_host(case, build, batch):
    periods = {name: 2 for name in ("target_period", "ema_period") if hasattr(case[0].Config(), name)}
    algorithm, steps = build(decay_steps=20, **periods), defaultdict(list)
    algorithm.update(batch())  # makes the optimiser's state
    before = places(algorithm)
    for draw in range(1, 7):
        each = batch(draw)
        algorithm.begin_update()
        with Operations() as operations:
            algorithm.gradient_step(each)
        steps[algorithm.step_variant()].append(operations.seen)
    assert places(algorithm) == before
    assert len(steps) <= 2
    for alike in steps.values():
        assert len(alike) >= 3
        assert not {name for name, _ in alike[0]} & HOST
        for other in alike[1:]:
            assert other == alike[0]


def test_decisions_are_alike_and_never_wait_for_the_host(build, spec, look):
    algorithm, views = build(play="own"), look(spec, episodes=2)
    _, memory = algorithm.act(*views)
    seen = []
    for _ in range(3):
        with Operations() as operations:
            _, memory = algorithm.act(*views, memory)
        seen.append(operations.seen)
    assert not {name for name, _ in seen[0]} & HOST
    assert seen[0] == seen[1] == seen[2]
