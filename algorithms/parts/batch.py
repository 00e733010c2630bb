"""What methods are given: the sizes of a task, a whole dataset, batches."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class TaskSpec:
    """Sizes of a task. `actions` is their number if `discrete`, else the dimension of one action."""

    agents: int
    obs: int
    state: int
    actions: int
    discrete: bool


class Window(NamedTuple):
    """The part of an episode around a transition: T = history + horizon steps, with its own step at index `history`."""

    history: int
    horizon: int


class Data(NamedTuple):
    """A whole dataset on the device: episodes one after the other, with N transitions and R rows of observations.

    An episode has one more row than transitions. Transition k leads from row `rows[k]` to row `rows[k] + 1`.
    """

    obs: Tensor  # [R, I, O]
    state: Tensor  # [R, G]
    legal: Tensor | None  # [R, I, A] bool
    actions: Tensor  # [N, I] int64, or [N, I, A]
    rewards: Tensor  # [N, I]
    done: Tensor  # [N] float, as in a batch
    last: Tensor  # [N] bool: the last transition of its episode, by terminal or time-out
    rows: Tensor  # [N] int64


class Batch(NamedTuple):
    """B transitions for each of S seeds. Masks are None in continuous tasks, `window` if the method has none."""

    obs: Tensor  # [S, B, I, O]
    actions: Tensor  # [S, B, I] int64, or [S, B, I, A] in [-1, 1]
    rewards: Tensor  # [S, B, I]
    next_obs: Tensor  # [S, B, I, O]
    done: Tensor  # [S, B] float, 1 at terminal transitions, which are not bootstrapped
    legal: Tensor | None  # [S, B, I, A] bool
    next_legal: Tensor | None  # [S, B, I, A] bool
    state: Tensor  # [S, B, G]
    next_state: Tensor  # [S, B, G]
    next_actions: Tensor  # as actions: the next ones in the data; the last transition of an episode repeats its own
    number: Tensor  # [S, B] int64: the indices of these transitions in the data
    window: Tensor | None = None  # [S, B, T, I, O]; padded with the first and the last observation of the episode
