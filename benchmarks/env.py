"""The interface of every environment: many episodes stepped at once, numpy in and numpy out."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np


class View(NamedTuple):
    """What agents and critics observe: E parallel episodes, I agents."""

    obs: Any  # [E, I, O] float32
    state: Any  # [E, S] float32
    legal: Any  # [E, I, A] bool; None in continuous tasks


class Step(NamedTuple):
    """The outcome of one joint action. `timeout` marks episodes that ended at the time limit only.

    `void` marks those that ended because a game crashed; they do not count and are played again.
    """

    view: View
    reward: Any  # [E] team reward, or [E, I] where each agent has its own
    done: Any  # [E] bool
    timeout: Any  # [E] bool
    won: Any  # [E] bool; None where a task cannot be won
    void: Any = None  # [E] bool; None where no game can crash


class BatchEnv(Protocol):
    """An environment family's adapter."""

    lanes: int

    def reset(self, seeds: np.ndarray) -> View:
        """Start `lanes` new episodes, each from its own seed (no lane depends on the others)."""
        ...

    def step(self, actions: np.ndarray) -> Step:
        """Advance every episode by one joint action [E,I] or [E,I,A]."""
        ...

    def close(self) -> None:
        """Release processes and files."""
        ...


def cache_dir() -> Path:
    """Where data and compiled simulators are: $OFFMARL_CACHE or ~/.cache/offmarl. NoHomeError where none is known."""
    if chosen := os.environ.get("OFFMARL_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "offmarl"
    try:
        return Path.home() / ".cache/offmarl"
    except RuntimeError:
        raise NoHomeError("this user has no home directory: export OFFMARL_CACHE=/a/folder for data") from None


class NoHomeError(ValueError):
    """Nobody says where the cache is."""

    in_a_line = True  # for the command line


class Behaviour(Protocol):
    """A policy to record."""

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I] or [E,I,A] of E episodes."""
        ...
