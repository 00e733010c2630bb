"""Adam (Kingma and Ba 2015) by PyTorch's fused kernel, bit for bit what `torch.optim.Adam(fused=True)` does.

`torch.optim` imports PyTorch's compiler with its first optimiser, two to five seconds of every process that trains.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

BETAS = 0.9, 0.999  # decay of the mean and of the mean square of gradients


class Adam:
    """Moves parameters by their gradients; one that has never had a gradient stays as it is.

    Args:
        groups: what moves, and its learning rate: a scalar tensor on the same device that may change between steps.
        epsilon: added to the root of the mean square.
    """

    def __init__(self, groups: Iterable[tuple[Iterable[Tensor], Tensor]], epsilon: float):
        pairs = [(parameter, rate) for group, rate in groups for parameter in group]
        self.parameters, self.rates = [p for p, _ in pairs], [rate for _, rate in pairs]
        self.epsilon = epsilon
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.counts = torch.zeros(len(pairs), device=self.parameters[0].device if pairs else None)
        self.steps = list(self.counts.unbind())  # of each parameter

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with the gradients that there are."""
        if all(p.grad is not None for p in self.parameters):
            self.counts += 1.0
        else:
            for p, steps in zip(self.parameters, self.steps):
                steps += float(p.grad is not None)
        for rate in {id(rate): rate for rate in self.rates}.values():
            group = [k for k, p in enumerate(self.parameters) if p.grad is not None and self.rates[k] is rate]
            if group:
                self._move(group, rate)

    def _move(self, group: list[int], rate: Tensor) -> None:
        lists = (self.parameters, self.means, self.squares, self.steps)
        parameters, means, squares, steps = ([part[k] for k in group] for part in lists)
        torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
            parameters,
            [p.grad for p in parameters],  # type: ignore[misc]
            means,
            squares,
            [],
            steps,
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The moments and counts of all parameters."""
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict`."""
        for name, own in self.state_dict().items():
            for mine, other in zip(own, state[name], strict=True):
                mine.copy_(other)
