"""What methods see: sizes of a task, whole datasets, batches."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class TaskSpec:
    """What a method may know of a task: sizes. `actions` is a count when `discrete`, else a dimension."""

    agents: int
    obs: int
    state: int
    actions: int
    discrete: bool


class Window(NamedTuple):
    """What a method sees of an episode: T = history + horizon steps, the transition's own at number `history`."""

    history: int
    horizon: int


class Data(NamedTuple):
    """A whole dataset on the device: episodes end to end, N transitions, R rows (one more than transitions each).

    What follows transition k of row `rows[k]` is in row `rows[k] + 1`; no transition joins two episodes.
    """

    obs: Tensor  # [R, I, O]
    state: Tensor  # [R, G]
    legal: Tensor | None  # [R, I, A] bool
    actions: Tensor  # [N, I] int64, or [N, I, A]
    rewards: Tensor  # [N, I]
    done: Tensor  # [N] float, as in a batch
    last: Tensor  # [N] bool: the last transition of its episode, whatever ended it
    rows: Tensor  # [N] int64


class Batch(NamedTuple):
    """Transitions of S seeds, B each. Masks are None in continuous tasks, windows where a method wants none."""

    obs: Tensor  # [S, B, I, O]
    actions: Tensor  # [S, B, I] int64, or [S, B, I, A] in [-1, 1]
    rewards: Tensor  # [S, B, I]
    next_obs: Tensor  # [S, B, I, O]
    done: Tensor  # [S, B] float, 1 where nothing follows
    legal: Tensor | None  # [S, B, I, A] bool
    next_legal: Tensor | None  # [S, B, I, A] bool
    state: Tensor  # [S, B, G]
    next_state: Tensor  # [S, B, G]
    next_actions: Tensor  # as actions: the data's next ones; an episode's last transition repeats its own
    number: Tensor  # [S, B] int64: which transitions of the data these are
    window: Tensor | None = None  # [S, B, T, I, O]: an episode is continued by its first and its last observation
