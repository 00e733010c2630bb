"""Pools: the trained policies of each dataset, with the returns of the episodes that the store has of them."""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from offmarl.reports.records.schema import Record, by_play, plays_of


class Policy(NamedTuple):
    """A trained policy."""

    run_id: str
    algorithm: str
    title: str
    variant: str
    seed: int
    episodes: np.ndarray  # [E] returns of its last evaluation, in the play that has the standing


class Pool(NamedTuple):
    """The policies that were trained on a dataset, and its scale."""

    task: str
    quality: str
    source: str
    policies: list[Policy]
    deviation: float  # of the returns of the data's episodes, which is known before any is played
    low: float  # the return that counts as 0: the task's own, or 0
    high: float  # as 1: the task's own, or the mean return of the data

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

    What was trained twice, with the same settings, updates and seed, counts once.
    """
    found: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in (record for record in records if record["status"] == "done"):
        cell, protocol = record["cell"], record["protocol"]
        trained = cell["algorithm"], record["config"], protocol.get("steps"), protocol.get("data"), cell["seed"]
        place = cell["task"], cell["quality"], cell["source"]
        found.setdefault(place, {}).setdefault(json.dumps(trained, sort_keys=True, default=str), record)
    return [_pool(place, list(own.values())) for place, own in found.items()]


def _pool(place: tuple[str, str, str], records: list[Record]) -> Pool:
    data, score = records[0].get("dataset") or {}, records[0].get("score")
    low, high = score or (0.0, data.get("return_mean") or 1.0)
    policies = [_policy(record) for record in records]
    deviation = data.get("return_std") or float(np.concatenate([own.episodes for own in policies]).std())
    return Pool(*place, policies, deviation, low, high)


def _policy(record: Record) -> Policy:
    cell, first = record["cell"], plays_of(record["protocol"])[0]
    episodes = np.array(by_play(record)[first][-1]["returns"], dtype=float)
    title = (record.get("algorithm") or {}).get("title") or cell["algorithm"]
    return Policy(record["run_id"], cell["algorithm"], title, cell["variant"], int(cell["seed"]), episodes)
