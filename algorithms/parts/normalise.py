"""Observations and actions scaled to [-1, 1], coordinate by coordinate, for the diffusion planners."""

import torch
from torch import Tensor, nn

KNOTS = 513
SAMPLE = 50_000  # evenly spaced rows of the data that the knots are computed from
ROWS = 4096  # that are mapped at once, to stay within the processor's cache


class Normaliser(nn.Module):
    """A monotone map of every coordinate to [-1, 1], linear between knots and constant beyond the outer ones.

    "cdf" maps a value to its rank in the data (MADiff's CDFNormalizer): coordinates become uniform, and repeated values
    get their mean rank. "limits" is linear between the minimum and the maximum. A constant coordinate becomes 0. Before
    `fit` the map clips to [-1, 1].

    Args:
        copies: number of equal tables, one per seed, so that the saved networks of each seed are complete.
    """

    def __init__(self, copies: int, coordinates: int, kind: str):
        super().__init__()
        self.knots: Tensor
        self.ranks: Tensor
        self.count = KNOTS if kind == "cdf" else 2
        knots = torch.linspace(-1.0, 1.0, self.count)
        for name in ("knots", "ranks"):  # values, and what they map to
            self.register_buffer(name, knots.expand(copies, coordinates, self.count).clone())

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Fit the map to the data [..., coordinates]."""
        rows = values.reshape(-1, values.shape[-1])
        low, high = rows.aminmax(dim=0)
        even = torch.linspace(0.0, 1.0, self.count, device=rows.device)
        knots = torch.lerp(low[:, None], high[:, None], even)  # [coordinates, count]
        if self.count > 2:
            sample = rows[:: max(1, len(rows) // SAMPLE)].sort(0).values
            knots[:, 1:-1] = sample[(even[1:-1].double() * (len(sample) - 1)).round().long()].T
        first, last = (torch.searchsorted(knots, knots, right=side) for side in (False, True))
        self.knots.copy_(knots)
        self.ranks.copy_((first + last - 1).float() / (self.count - 1) - 1.0)  # equal knots have equal ranks

    @torch.no_grad()
    def encode(self, values: Tensor) -> Tensor:
        """Map values [..., coordinates] to [-1, 1]."""
        parts = values.flatten(0, -2).split(ROWS)
        return torch.cat([self._encode(part.T.contiguous()).T for part in parts]).view(values.shape)

    def _encode(self, x: Tensor) -> Tensor:
        knots, ranks = self.knots[0].contiguous(), self.ranks[0].contiguous()
        right = torch.searchsorted(knots, x).clamp(max=self.count - 1)
        left = (right - 1).clamp(min=0)
        low, high = knots.gather(1, left), knots.gather(1, right)
        share = ((x - low) / (high - low).clamp(min=1e-30)).clamp(0.0, 1.0)
        return torch.lerp(ranks.gather(1, left), ranks.gather(1, right), share)

    def decode(self, values: Tensor) -> Tensor:
        """The inverse map: [..., coordinates] in [-1, 1] -> values of the data."""
        x = values.movedim(-1, 0).flatten(1)
        rank = (0.5 * (x + 1.0) * (self.count - 1)).clamp(0.0, self.count - 1)
        low = rank.floor().long()
        left, right = (self.knots[0].gather(1, k) for k in (low, (low + 1).clamp(max=self.count - 1)))
        return torch.lerp(left, right, rank - low).unflatten(1, values.shape[:-1]).movedim(0, -1)
