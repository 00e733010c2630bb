"""How agents' values become the team's (the last axis is the agents')."""

from torch import Tensor


def mean_mixer(values: Tensor) -> Tensor:
    """The average mixer of MAC-Flow (Appendix E): [..., I] -> [...]."""
    return values.mean(-1)
