"""Pools: the trained policies of each dataset, with the returns of the episodes that the store has of them."""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from offmarl.reports.records.schema import FINISHED, Record, by_play, plays_of, scale


class Policy(NamedTuple):
    """A trained policy."""

    run_id: str
    algorithm: str
    title: str
    variant: str
    seed: int
    episodes: np.ndarray  # [E] returns of its last evaluation, in the play that has the standing; none: never played


class Pool(NamedTuple):
    """The policies that were trained on a dataset, and its scale."""

    task: str
    quality: str
    source: str
    policies: list[Policy]
    low: float  # the return that counts as 0: the task's own, or 0 (of a negative mean of the data, twice that)
    high: float  # as 1: the task's own, or the mean return of the data
    equal: int = 0  # trained policies that are left out, as each is equal to one of these

    @property
    def dataset(self) -> str:
        """smac/3m:good."""
        return f"{self.task}:{self.quality}"

    @property
    def label(self) -> str:
        """3m:good."""
        return f"{self.task.split('/')[-1]}:{self.quality}"

    def by_method(self) -> dict[str, list[Policy]]:
        """Title of each method to its policies."""
        found: dict[str, list[Policy]] = {}
        for policy in self.policies:
            found.setdefault(policy.title, []).append(policy)
        return found


def pools(records: Iterable[Record]) -> list[Pool]:
    """A pool for every dataset with finished runs, in the order of the records.

    Equal policies count once: those of a method and seed that were trained with the same settings, or that have the
    same weights (`weights`, a sum of them) and played the same last episodes, as where settings have no effect: how BC
    draws, where actions are continuous. Others that happen to behave alike are several: nobody knows before they play.
    """
    found: dict[tuple[str, str, str], list[Record]] = {}
    for record in (record for record in records if record["status"] in FINISHED):
        cell = record["cell"]
        found.setdefault((cell["task"], cell["quality"], cell["source"]), []).append(record)
    return [_pool(place, own) for place, own in found.items()]


def _pool(place: tuple[str, str, str], trained: list[Record]) -> Pool:
    records, seen = [], set()
    for record in trained:
        names = _names(record)
        records += [] if names & seen else [record]
        seen |= names
    return Pool(*place, [_policy(record) for record in records], *scale(records[0]), len(trained) - len(records))


def _names(record: Record) -> set[str]:
    """What an equal policy has in common with this one: either name is enough."""
    cell, protocol, last = record["cell"], record["protocol"], _last(record)
    trained = record["config"], protocol.get("steps"), protocol.get("data")
    weights = record.get("weights")
    played = (
        [weights, *(last.get(key) for key in ("play", "returns", "lengths", "won"))] if last and weights else trained
    )
    both = ([cell["algorithm"], cell["seed"], facts] for facts in (trained, played))
    return {json.dumps(facts, sort_keys=True, default=str) for facts in both}


def _last(record: Record) -> Record:
    """The last evaluation in the play that has the standing; empty where nothing was played."""
    return by_play(record).get(plays_of(record["protocol"])[0], [{}])[-1]


def _policy(record: Record) -> Policy:
    cell, episodes = record["cell"], np.array(_last(record).get("returns", []), dtype=float)
    title = (record.get("algorithm") or {}).get("title") or cell["algorithm"]
    return Policy(record["run_id"], cell["algorithm"], title, cell["variant"], int(cell["seed"]), episodes)
