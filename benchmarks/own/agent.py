"""One agent's spaces, and how what is in them becomes arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten

from offmarl.benchmarks.own import TaskError

LARGEST_OBS = 20_000  # numbers: what is larger is an image, and methods here have no convolutions
LARGEST_JOINT = 512  # joint choices of a MultiDiscrete action
MASK = "action_mask"


class Agent:
    """An agent of a file's environment. Raises TaskError for what it cannot use, and for what is not in its spaces."""

    def __init__(self, name: str, seen: Any, acts: Any):
        self.name, self.acts = name, acts
        self.discrete = isinstance(acts, spaces.Discrete | spaces.MultiDiscrete)
        self.seen = _without_mask(seen)
        if not getattr(self.seen, "is_np_flattenable", False):
            raise TaskError(f"{name} observes {seen}, which has no fixed number of entries; give features")
        self.size, self.width = flatdim(self.seen), self._width()
        if self.size > LARGEST_OBS:
            raise TaskError(f"{name}'s observation of {self.size:,} numbers looks like an image; give features")

    def observe(self, obs: Any, t: int) -> np.ndarray:
        """[size], as its space has it."""
        if isinstance(obs, Mapping) and MASK in obs:
            rest = {key: value for key, value in obs.items() if key != MASK}
            obs = rest["observation"] if set(rest) == {"observation"} else rest
        try:
            flat, fits = np.asarray(flatten(self.seen, obs), np.float32), _fits(self.seen, obs)
        except Exception as error:
            raise TaskError(f"step {t}: {self.name}'s observation is not one of {self.seen}") from error
        if not fits:
            raise TaskError(f"step {t}: {self.name}'s observation has numbers that {self.seen} cannot hold")
        if flat.size != self.size:
            raise TaskError(f"step {t}: {self.name} observes {flat.size} numbers, its space has {self.size}")
        if not np.isfinite(flat).all():
            raise TaskError(f"step {t}: {self.name}'s observation has something that is no number")
        return flat

    def mask(self, mask: Any, t: int) -> np.ndarray:
        """[width] bool."""
        found = np.asarray(mask, bool).ravel() if np.ndim(mask) else np.zeros(0, bool)
        if len(found) != self.width:
            raise TaskError(f"step {t}: {self.name}'s mask has {len(found)} entries for {self.width} actions")
        return found

    def action(self, choice: Any) -> Any:
        """A choice, or numbers in [-1, 1], as the environment takes them; what is padded means the last one."""
        if isinstance(self.acts, spaces.Discrete):
            return int(self.acts.start) + min(int(choice), self.width - 1)
        if isinstance(self.acts, spaces.MultiDiscrete):
            parts = np.unravel_index(min(int(choice), self.width - 1), self.acts.nvec.ravel())
            return (np.reshape(parts, self.acts.shape) + self.acts.start).astype(self.acts.dtype)
        part = (np.clip(choice[: self.width], -1, 1).reshape(self.acts.shape) + 1) / 2
        return (self.acts.low + part * (self.acts.high - self.acts.low)).astype(self.acts.dtype)

    def _width(self) -> int:
        """The number of its actions, or of its action's numbers."""
        acts = self.acts
        if isinstance(acts, spaces.Discrete):
            return int(acts.n)
        if isinstance(acts, spaces.MultiDiscrete):
            if (joint := int(np.prod(acts.nvec))) > LARGEST_JOINT:
                raise TaskError(f"{self.name} acts in {acts}, {joint:,} joint choices; at most {LARGEST_JOINT} can be")
            return joint
        if not isinstance(acts, spaces.Box) or acts.dtype.kind != "f":
            raise TaskError(f"{self.name} acts in {acts}; Discrete, MultiDiscrete and Box (float) can be used")
        if not np.isfinite([acts.low, acts.high]).all():
            raise TaskError(f"{self.name} acts in {acts}, without bounds; wrap the environment to give it some")
        return int(np.prod(acts.shape))


def _without_mask(space: Any) -> Any:
    """An observation space without its mask."""
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces:
        return space
    rest = {key: part for key, part in space.spaces.items() if key != MASK}
    return rest["observation"] if set(rest) == {"observation"} else spaces.Dict(rest)


def _fits(space: Any, obs: Any) -> bool:
    """Whether flattening keeps an observation's numbers: whole ones in a Box of integers, known ones elsewhere."""
    if isinstance(space, spaces.Dict):
        return all(_fits(part, obs[key]) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(_fits(part, one) for part, one in zip(space.spaces, obs, strict=True))
    if isinstance(space, spaces.Box):
        values = np.asarray(obs)
        return space.dtype.kind == "f" or bool((values.astype(space.dtype) == values).all())
    return space.contains(obs)
