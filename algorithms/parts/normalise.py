"""Observations and actions scaled to [-1, 1], coordinate by coordinate, for the diffusion planners."""

import torch
from torch import Tensor, nn

KNOTS = 513
SAMPLE = 50_000  # most rows of the data, drawn at random, that the knots are computed from
ROWS = 4096  # that are mapped at once, to stay within the processor's cache


class Normaliser(nn.Module):
    """A monotone map of every coordinate to [-1, 1], linear between knots and constant beyond the outer ones.

    "cdf" maps a value to its rank in the data (MADiff's CDFNormalizer): coordinates become uniform, and repeated values
    get their mean rank. "limits" is linear between the minimum and the maximum. A constant coordinate becomes 0. Before
    `fit` the map clips to [-1, 1]. `decode` reads the same table the other way, so it inverts `encode` for every value
    between the smallest and the largest.

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
            sample = _drawn(rows).sort(0).values
            knots[:, 1:-1] = sample[(even[1:-1].double() * (len(sample) - 1)).round().long()].T
        first, last = (torch.searchsorted(knots, knots, right=side) for side in (False, True))
        self.knots.copy_(knots)
        self.ranks.copy_((first + last - 1).float() / (self.count - 1) - 1.0)  # equal knots have equal ranks

    @torch.no_grad()
    def encode(self, values: Tensor) -> Tensor:
        """Map values [..., coordinates] to [-1, 1]."""
        return _interpolate(values, self.knots[0], self.ranks[0])

    def decode(self, values: Tensor) -> Tensor:
        """The inverse map: [..., coordinates] in [-1, 1] -> values of the data."""
        return _interpolate(values, self.ranks[0], self.knots[0])


def _drawn(rows: Tensor) -> Tensor:
    """At most SAMPLE rows, the same in every run: evenly spaced ones could all be of one agent or one time."""
    if len(rows) <= SAMPLE:
        return rows
    chosen = torch.randint(len(rows), (SAMPLE,), generator=torch.Generator().manual_seed(0))
    return rows[chosen.to(rows.device)]


def _interpolate(values: Tensor, of: Tensor, to: Tensor) -> Tensor:
    """Values [..., coordinates] from the table `of` to the table `to`, both [coordinates, count] and ascending."""
    of, to, last = of.contiguous(), to.contiguous(), of.shape[1] - 1
    mapped = []
    for part in values.flatten(0, -2).split(ROWS):
        x = part.T.contiguous()
        right = torch.searchsorted(of, x).clamp(max=last)
        left = (right - 1).clamp(min=0)
        low, high = of.gather(1, left), of.gather(1, right)
        share = ((x - low) / (high - low).clamp(min=1e-30)).clamp(0.0, 1.0)
        mapped.append(torch.lerp(to.gather(1, left), to.gather(1, right), share).T)
    return torch.cat(mapped).view(values.shape)
