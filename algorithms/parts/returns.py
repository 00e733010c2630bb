"""Returns over whole episodes."""

import torch
from torch import Tensor


def returns_to_go(rewards: Tensor, last: Tensor, discount: float, values: Tensor | None = None) -> Tensor:
    """Discounted rewards from each transition to the end of its episode.

    With `values` of the states, R_t = r_t + discount max(R_{t+1}, V_{t+1}): the implicit in-sample planning of SfBC
    (Chen et al. 2023, Eq. 12).

    Args:
        rewards: [N, ...], episodes one after the other.
        last: [N] bool, true at the last transition of each episode.
        values: [N, ...], of the state that each transition starts from.
    """
    number = torch.arange(len(last), device=last.device)
    ends = torch.where(last, number, len(last)).flip(0).cummin(0).values.flip(0)
    left = ends - number  # transitions to the end; those with equally many are computed together
    by_left = left.argsort(stable=True).split(left.bincount().tolist())
    total = rewards.clone()
    for group in by_left[1:]:
        after = total[group + 1]
        after = after if values is None else torch.maximum(after, values[group + 1])
        total[group] += discount * after
    return total
