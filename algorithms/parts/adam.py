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
        parameters: what moves.
        rate: the learning rate, a scalar tensor on their device that may change between steps.
        epsilon: added to the root of the mean square.
    """

    def __init__(self, parameters: Iterable[Tensor], rate: Tensor, epsilon: float):
        self.parameters, self.rate, self.epsilon = list(parameters), rate, epsilon
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with the gradients that there are."""
        moved = [k for k, p in enumerate(self.parameters) if p.grad is not None]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        parts = ([part[k] for k in moved] for part in (self.parameters, self.means, self.squares, self.steps))
        parameters, means, squares, steps = parts
        if not moved:
            return
        torch._foreach_add_(steps, 1.0)
        torch._fused_adam_(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            lr=self.rate,
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
        for own, stored in zip(("means", "squares", "steps"), (state["means"], state["squares"], state["steps"])):
            for mine, other in zip(getattr(self, own), stored, strict=True):
                mine.copy_(other)
