"""What every environment adapter offers: many episodes stepped at once, numpy in and numpy out."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np


class View(NamedTuple):
    """What the agents and the critics see: E parallel episodes, I agents."""

    obs: Any  # [E, I, O] float32
    state: Any  # [E, S] float32
    legal: Any  # [E, I, A] bool; None in continuous tasks


class Step(NamedTuple):
    """The outcome of one joint action. `timeout` marks the episodes that ended by the clock alone.

    `void` marks those that broke off because a game crashed: over, and to be played anew.
    """

    view: View
    reward: Any  # [E] team reward, or [E, I] where agents are rewarded apart
    done: Any  # [E] bool
    timeout: Any  # [E] bool
    won: Any  # [E] bool; None where a task knows no victory
    void: Any = None  # [E] bool; None where no episode can break off


class BatchEnv(Protocol):
    """An environment family's adapter."""

    lanes: int

    def reset(self, seeds: np.ndarray) -> View:
        """Start `lanes` new episodes, each from a seed of its own (no lane depends on its neighbours)."""
        ...

    def step(self, actions: np.ndarray) -> Step:
        """Advance every episode by one joint action [E,I] or [E,I,A]."""
        ...

    def close(self) -> None:
        """Release processes and files."""
        ...


def cache_dir() -> Path:
    """Where recorded data and compiled simulators are kept: $OFFMARL_CACHE or ~/.cache/offmarl."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "offmarl"
    return Path(os.environ.get("OFFMARL_CACHE", default)).expanduser()


class Behaviour(Protocol):
    """A policy to record."""

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I] or [E,I,A] of E episodes."""
        ...
