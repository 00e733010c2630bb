"""Batches from a dataset on a device."""

import numpy as np
import torch

from offmarl.algorithms.parts.batch import Batch, Data, Window
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.datasets.dataset import Dataset

SENT_BYTES = 2**27  # copied to a GPU at once


def to_device(values: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """An array on the device. To a GPU it is copied in slices, so that a memory-mapped one is never completely in host
    memory; on the CPU it is not copied."""
    source = torch.from_numpy(values)
    if torch.device(device).type == "cpu":
        return source
    sent = torch.empty(source.shape, dtype=source.dtype, device=device)
    rows = max(1, SENT_BYTES // max(1, values[:1].nbytes))
    for lo in range(0, len(values), rows):
        part = values
        if isinstance(values, np.memmap) and values.filename:  # a new map for each slice, which frees its memory
            part = np.memmap(values.filename, values.dtype, "c", values.offset, values.shape)
        sent[lo : lo + rows] = torch.from_numpy(part[lo : lo + rows])
    return sent


class Sampler:
    """A dataset on the device, from which every seed draws its own batches, with a `window` around each transition.

    A time-out is terminal, as in MAC-Flow's data; with `timeout_bootstrap` values after it count, and those whose
    successor was not recorded are left out.
    """

    def __init__(
        self,
        data: Dataset,
        seeds: list[int],
        device: torch.device | str = "cpu",
        timeout_bootstrap: bool = False,
        window: Window | None = None,
    ):
        self.streams = SeedStreams(seeds, "batches", device)
        last = data.done | data.timeout
        done = (data.done if timeout_bootstrap else last).astype(np.float32)
        arrays = data.arrays() | {"done": done, "last": last}
        tensors = {name: to_device(arrays[name], device) for name in Data._fields if name in arrays}
        self.data = Data(**{"legal": None, **tensors})
        number = torch.arange(len(data), device=self.data.last.device)
        learnt = data.successors if timeout_bootstrap else np.ones(0, bool)
        self.drawn = None if learnt.all() else number[to_device(learnt, device)]  # transitions; None: all
        self.following = number + ~self.data.last
        self.around = None if window is None else torch.arange(-window.history, window.horizon, device=number.device)
        if window is not None:
            episode = self.data.rows - number
            self.first_row = episode + torch.searchsorted(episode, episode)
            self.last_row = episode + torch.searchsorted(episode, episode, right=True)

    def sample(self, size: int) -> Batch:
        """`size` transitions for each seed, drawn uniformly with replacement."""
        data = self.data
        index = self.streams.integers(len(data.rows if self.drawn is None else self.drawn), size)  # [S, B]
        return self.at(index if self.drawn is None else self.drawn[index])

    def at(self, index: torch.Tensor) -> Batch:
        """The batch of these transitions [S, B]."""
        data = self.data
        row = data.rows[index]
        batch = Batch(
            obs=data.obs[row],
            actions=data.actions[index],
            rewards=data.rewards[index],
            next_obs=data.obs[row + 1],
            done=data.done[index],
            legal=None if data.legal is None else data.legal[row],
            next_legal=None if data.legal is None else data.legal[row + 1],
            state=data.state[row],
            next_state=data.state[row + 1],
            next_actions=data.actions[self.following[index]],
            number=index,
        )
        if self.around is None:
            return batch
        low, high = self.first_row[index][..., None], self.last_row[index][..., None]
        rows = (row[..., None] + self.around).clamp(low, high)  # [S, B, T]
        return batch._replace(window=data.obs[rows])
