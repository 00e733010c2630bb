"""Checks of a dataset, for the faults that public data have had: copies, flags on the wrong row, padding and more."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from offmarl.datasets.dataset import Dataset
from offmarl.datasets.public.boundaries import Boundaries
from offmarl.datasets.public.episodes import cut_off

SLICE = 2**16  # rows read at once


class Finding(NamedTuple):
    """The result of one check; `sound` is False where a person should look."""

    sound: bool
    text: str


def inspect_dataset(data: Dataset, card: dict[str, Any]) -> list[Finding]:
    """Findings on one dataset and its card."""
    return [
        _counts(data),
        _returns(data, card),
        _actions(data, card),
        *_legal(data),
        *_boundaries(card),
        *(Finding(True, line) for line in card.get("settled", ())),
        *_padding(data),
        _repeats(data),
    ]


def shared_episodes(one: Dataset, other: Dataset, name: str) -> Finding:
    """Whether two datasets share episodes, which they should not; `name` is the other one's."""
    ours, theirs = episode_sums(one), set(episode_sums(other))
    shared = sum(each in theirs for each in ours)
    text = f"{shared:,} of {len(ours):,} episodes are in {name} too"
    return Finding(shared < 0.01 * len(ours), text)


def episode_sums(data: Dataset) -> list[bytes]:
    """A checksum of every episode's actions and rewards."""
    starts = np.searchsorted(data.episode, np.arange(len(data.behaviour) + 1))
    return [
        hashlib.blake2b(data.actions[a:b].tobytes() + data.rewards[a:b].tobytes(), digest_size=8).digest()
        for a, b in zip(starts[:-1], starts[1:])
    ]


def _counts(data: Dataset) -> Finding:
    lengths = np.bincount(data.episode)
    text = f"{len(data):,} transitions in {len(lengths):,} episodes of {lengths.min()} to {lengths.max()} steps "
    return Finding(True, text + f"(mean {lengths.mean():.1f}); {data.timeout.sum():,} end at the time limit")


def _returns(data: Dataset, card: dict[str, Any]) -> Finding:
    """Our mean against the published one: within 2 % of it, or three standard errors."""
    returns = data.returns()
    text = f"return {returns.mean():.2f} ± {returns.std():.2f}, from {returns.min():.2f} to {returns.max():.2f}"
    if card.get("published_mean") is None:
        return Finding(True, f"{text}; none is published")
    allowed = max(0.02 * abs(card["published_mean"]), 3 * returns.std() / len(returns) ** 0.5)
    near = abs(returns.mean() - card["published_mean"]) <= allowed
    text += f"; published {card['published_mean']:.2f} ± {card['published_std']:.2f}"
    return Finding(near or card["source"] in ("embedded", "tuning"), text)


def _actions(data: Dataset, card: dict[str, Any]) -> Finding:
    low, high = data.actions.min(), data.actions.max()
    clipped = card.get("clipped_actions", 0) / max(1, data.actions.size)
    return Finding(clipped < 0.01, f"actions from {low:.4g} to {high:.4g}; {clipped:.2%} were outside and clipped")


def _legal(data: Dataset) -> list[Finding]:
    if data.legal is None:
        return []
    wrong = 0
    for lo in range(0, len(data), SLICE):
        legal, actions = data.legal[data.rows[lo : lo + SLICE]], data.actions[lo : lo + SLICE]
        wrong += int((~np.take_along_axis(legal, actions[..., None], -1)).sum())
    return [Finding(wrong == 0, f"{wrong:,} of {data.actions.size:,} actions are not legal ones")]


def _boundaries(card: dict[str, Any]) -> list[Finding]:
    """What the rows show about the convention of episode ends (datasets/public/boundaries.py)."""
    if "boundaries" not in card:
        return []
    seen = Boundaries(**card["boundaries"])
    jumps = f"observations jump by {seen.jump_inside:.3g} inside episodes, "
    jumps += f"{seen.jump_into_flagged:.3g} into the flagged row, {seen.jump_after_flagged:.3g} after it"
    late = "; the flags seem to be on the next episode's first row" if seen.late else ""
    rest = card["rows_without_an_end"]
    judged = f"ends are read as '{card['ends']}'; the rows indicate '{seen.ends}': {seen.reason}"
    return [
        Finding(not seen.late, jumps + late),
        Finding(card["ends"] in (seen.ends, "limit"), judged),
        *(Finding(False, line) for line in cut_off(card)),
        *([Finding(True, f"{rest:,} rows after the last end are left out")] if rest else []),
    ]


def _padding(data: Dataset) -> list[Finding]:
    used: np.ndarray = np.zeros(data.obs.shape[1:], bool)
    blank = 0
    for lo in range(0, len(data.obs), SLICE):
        rows = np.asarray(data.obs[lo : lo + SLICE]) != 0
        used |= np.logical_or.reduce(rows)
        blank += int((~rows.any(-1)).sum())
    idle, share = int((~used.any(0)).sum()), blank / (len(data.obs) * data.obs.shape[1])
    text = f"{idle} of {used.shape[1]} observed features are always zero; {share:.1%} of rows are blank"
    padding = np.flatnonzero(~used.any(-1))[:1]
    faults = [Finding(False, f"agent {agent} observes nothing but zeros: padding, not an agent") for agent in padding]
    return [Finding(True, text), *faults]


def _repeats(data: Dataset) -> Finding:
    sums = episode_sums(data)
    again = len(sums) - len(set(sums))
    return Finding(again < 0.01 * len(sums) or again < 2, f"{again:,} of {len(sums):,} episodes repeat another one")
