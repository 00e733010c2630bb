"""Datasets made from others: whole episodes, drawn by a seed, kept with what they were made of.

They lie in `derived/<source>` of the data folder, an .npz and a card whose `lineage` is the recipe and the parents'
checksums, and are qualities of their task beside the source's own. One whose parent has changed since is refused.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from offmarl.datasets.cache import MEASURES, Entry, Progress, no_progress, write
from offmarl.datasets.dataset import Dataset, join
from offmarl.datasets.part import take
from offmarl.datasets.public.releases import data_dir

FORMAT = 1
OF_ONE = ("epsilon", "behaviours", "random_return_mean")  # facts of a card that hold where there is one parent
OF_ALL = ("source", "engine", "note", "licence", "origin", "task_file", "task")
BINS = 10  # of equally many episodes, in which returns become like another dataset's


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made from its parents; of the three amounts at most one is given, and none takes all."""

    parents: tuple[str, ...]  # task:quality
    weights: tuple[float, ...] = ()  # shares of the episodes, or of the transitions by `transitions`; (): as they are
    episodes: int | None = None
    transitions: int | None = None  # at most
    fraction: float = 1.0
    behaviours: tuple[int, ...] = ()  # those that recorded the episodes; (): all
    like: str | None = None  # task:quality whose returns they are to have
    seed: int = 0


class Parent(BaseModel):
    """What a dataset was made from, as it was then."""

    key: str
    sums: Any


class Lineage(BaseModel):
    """Recipe, and keys and checksums of what it is made of by task:quality."""

    how: Recipe
    of: dict[str, Parent]


class Card(BaseModel):
    """What is read of a derived dataset's card."""

    dataset: Annotated[str, Field(pattern="^[^:]+:[^:]+$")]
    lineage: Lineage


class Made(NamedTuple):
    """A derived dataset's arrays, and how many episodes of each parent it has."""

    data: Dataset
    taken: list[int]


@dataclass(frozen=True)
class Derived(Entry):
    """One derived dataset; `mix` has the qualities of its parents."""

    source: str
    lineage: Mapping[str, Any]  # recipe, and keys and checksums of what it is made of
    parents: Mapping[str, Entry | None]  # by task:quality, those of `like` too; None for what is there no more

    @property
    def recipe(self) -> Recipe:
        """How it was made."""
        return recipe_of(self.lineage)

    @property
    def trained_as(self) -> str:
        """The quality whose settings it is trained with: that of its largest parent."""
        recipe = self.recipe
        name = recipe.parents[int(np.argmax(recipe.weights or [self._episodes(name) for name in recipe.parents]))]
        parent = self.parents[name]
        return parent.trained_as if parent else name.partition(":")[2]

    def _episodes(self, name: str) -> int:
        """Those of a parent that is there."""
        card = parent.card() if (parent := self.parents[name]) else None
        return card["episodes"] if card else 0

    def key(self) -> str:
        """Eight hex digits of the recipe and the parents' content."""
        return hashlib.sha256(json.dumps([FORMAT, self.lineage], sort_keys=True).encode()).hexdigest()[:8]

    def place(self) -> Path:
        """The .npz file in the data folder."""
        return _folder(self.source) / f"{self.task.name.replace('/', '-')}-{self.quality}.npz"

    def disk(self) -> int:
        """That of its parents."""
        return sum(parent.disk() for parent in self.parents.values() if parent)

    def state(self) -> str:
        """What it is made from."""
        return "made from " + ", ".join(self.recipe.parents)

    def unavailable(self) -> str:
        """That a parent has changed, or why its task cannot be played here."""
        return self.outdated() or next((text for p in self.parents.values() if p and (text := p.unavailable())), "")

    def outdated(self) -> str:
        """Which parent is not as it was; empty where all are."""
        for name, facts in self.lineage["of"].items():
            parent = self.parents[name]
            card = parent and parent.card()
            if parent is None or parent.key() != facts["key"] or (card and parent.sums(card) != facts["sums"]):
                advice = f"delete {self.place().with_suffix('.json')} and derive it again"
                return f"{self.task.name}:{self.quality}: {name}, which it is made from, has changed since; {advice}"
        return ""

    def changed_files(self) -> list[str]:
        """The parent that changed."""
        return list(filter(None, [self.outdated()]))

    def load(self, progress: Progress = no_progress) -> tuple[Dataset, dict[str, Any]]:
        """As of any entry. Raises ValueError where a parent has changed since."""
        if fault := self.outdated():
            raise ValueError(fault)
        return super().load(progress)

    def make(self, progress: Progress = no_progress) -> dict[str, Any]:
        """Draw the episodes and write them into the data folder; returns the card.

        Raises ValueError where the parents do not have what the recipe asks for.
        """
        loaded = {name: parent.load() for name, parent in self.parents.items() if parent}
        recipe = self.recipe
        found = [loaded[name] for name in recipe.parents]
        made = derive(recipe, [data for data, _ in found], loaded[recipe.like][0] if recipe.like else None)
        first, kept = found[0][1], (*OF_ALL, *(OF_ONE if len(found) == 1 else ()))
        facts = {key: first[key] for key in kept if key in first}
        parts = [
            f"{count:,} of {len(data.behaviour):,} episodes of {name}"
            for name, count, (data, _) in zip(recipe.parents, made.taken, found)
        ]
        text = " and ".join(parts) + "".join(_conditions(recipe))
        card = write(self, made.data, {**facts, "made_from": text, "lineage": self.lineage})
        progress(1)
        return card


def derive(recipe: Recipe, parents: Sequence[Dataset], like: Dataset | None = None) -> Made:
    """The episodes that a recipe takes of its parents, in their order.

    Raises ValueError where they do not have what it asks for.
    """
    pools = [
        _pool(recipe, number, name, data, like) for number, (name, data) in enumerate(zip(recipe.parents, parents))
    ]
    if recipe.transitions is None:
        sizes = _sizes(recipe, pools)
    else:
        sizes = _prefixes(recipe, pools, [np.bincount(data.episode) for data in parents])
    chosen = [np.sort(pool[:size]) for pool, size in zip(pools, sizes)]
    taken = [take(data, episodes) for data, episodes in zip(parents, chosen) if len(episodes)]
    data = taken[0] if len(taken) == 1 else join([(one, 1.0) for one in taken])
    return Made(data, [len(episodes) for episodes in chosen])


def _pool(recipe: Recipe, number: int, name: str, data: Dataset, like: Dataset | None) -> np.ndarray:
    """The episodes of a parent that may be taken, in the order in which they are; the first parent's as a part's."""
    rng = np.random.default_rng((recipe.seed, number) if number else recipe.seed)
    pool = rng.permutation(len(data.behaviour))
    if recipe.behaviours:
        known = np.unique(data.behaviour).tolist()
        if absent := [one for one in recipe.behaviours if one not in known]:
            raise ValueError(f"{name} has no behaviour {absent[0]}; it has {', '.join(map(str, known))}")
        pool = pool[np.isin(data.behaviour[pool], recipe.behaviours)]
    return pool if like is None else matched(pool, data.returns(), like.returns(), (name, recipe.like or ""))


def matched(pool: np.ndarray, returns: np.ndarray, wanted: np.ndarray, names: tuple[str, str]) -> np.ndarray:
    """As many episodes of a pool as can have the returns of another dataset, in an order that always has them.

    They have them by bins, at most BINS, of about equally many of the wanted. Raises ValueError where a bin has none.
    """
    edges = np.unique(np.quantile(wanted, np.linspace(0, 1, BINS + 1)))
    edges = np.append(edges, edges) if len(edges) == 1 else edges
    shares = np.histogram(wanted, edges)[0] / len(wanted)
    while len(shares) > 1 and shares.min() < 0.5 / BINS:  # many equal returns leave narrow bins beside theirs
        edges = np.delete(edges, max(1, int(shares.argmin())))
        shares = np.histogram(wanted, edges)[0] / len(wanted)
    of = np.searchsorted(edges[1:-1], returns[pool], side="right")
    of[(returns[pool] < edges[0]) | (returns[pool] > edges[-1])] = len(shares)
    counts = np.bincount(of, minlength=len(shares) + 1)[: len(shares)]
    for k in np.flatnonzero((counts == 0) & (shares > 0)):
        text = f"{shares[k]:.0%} of {names[1]} return {edges[k]:.4g} to {edges[k + 1]:.4g}"
        raise ValueError(f"{text}, and no episode of {names[0]} that may be taken does")
    most = int(min(count / share for count, share in zip(counts, shares) if share))
    places = np.full(len(pool), np.inf)
    for k, share in enumerate(shares):
        if share:
            places[of == k] = (np.arange(counts[k]) + 0.5) / share
    return pool[np.argsort(places, kind="stable")][:most]


def _sizes(recipe: Recipe, pools: Sequence[np.ndarray]) -> list[int]:
    """How many episodes of every pool are taken."""
    here = np.array([len(pool) for pool in pools])
    if not here.all():
        raise ValueError(f"{recipe.parents[int(here.argmin())]}: no episode of it may be taken")
    weights = np.array(recipe.weights or here / here.sum())
    most = int((here / weights).min() + 1e-9)
    wanted = recipe.episodes or max(1, round(recipe.fraction * most))
    sizes = np.floor(weights * wanted + 1e-9).astype(int)
    sizes[np.argsort(sizes - weights * wanted, kind="stable")[: wanted - sizes.sum()]] += 1  # the largest remainders
    for name, size, count in zip(recipe.parents, sizes, here):
        if size > count:
            raise ValueError(f"{size:,} episodes of {name} are asked for, and {count:,} may be taken")
    return sizes.tolist()


def _prefixes(recipe: Recipe, pools: Sequence[np.ndarray], lengths: Sequence[np.ndarray]) -> list[int]:
    """How many episodes of every pool have together at most the transitions asked for."""
    sums = [np.cumsum(length[pool]) for pool, length in zip(pools, lengths)]
    here = np.array([found[-1] if len(found) else 0 for found in sums])
    weights = np.array(recipe.weights or here / max(1, here.sum()))
    sizes = []
    for name, share, found, count in zip(recipe.parents, weights, sums, here):
        wanted = int(share * (recipe.transitions or 0))
        if wanted > count:
            raise ValueError(f"{wanted:,} transitions of {name} are asked for, and {count:,} may be taken")
        sizes.append(int(np.searchsorted(found, wanted, side="right")))
        if not sizes[-1]:
            raise ValueError(f"{wanted:,} transitions of {name} are asked for: less than its first episode has")
    return sizes


def _conditions(recipe: Recipe) -> list[str]:
    """What is said of a recipe besides its parents."""
    found = [f", recorded by behaviour {' or '.join(map(str, recipe.behaviours))}"] if recipe.behaviours else []
    found += [f", with returns like {recipe.like}"] if recipe.like else []
    return [*found, f", seed {recipe.seed}"]


def new(name: str, source: str, recipe: Recipe, known: Mapping[tuple[str, str], Entry]) -> Derived:
    """The derived dataset of a recipe whose parents are among the `known` and in the cache; it is not made yet."""
    names = dict.fromkeys([*recipe.parents, *filter(None, [recipe.like])])
    parents = {other: known[_pair(other)] for other in names}
    of = {other: {"key": entry.key(), "sums": entry.sums(entry.card() or {})} for other, entry in parents.items()}
    lineage = json.loads(json.dumps({"how": asdict(recipe), "of": of}))
    return _entry(parents[recipe.parents[0]], name, source, lineage, parents)


def catalogue(source: str, base: Mapping[tuple[str, str], Entry]) -> dict[tuple[str, str], Derived]:
    """The derived datasets of a source, whose own are `base`, by task and quality."""
    files = sorted(file for file in _folder(source).glob("*.json") if not file.name.endswith(MEASURES))
    cards = filter(None, (_card(file, file.stat().st_mtime_ns) for file in files))
    lineages = {_pair(card["dataset"]): card["lineage"] for card in cards}
    found: dict[tuple[str, str], Derived] = {}

    def entry(pair: tuple[str, str], below: tuple[tuple[str, str], ...] = ()) -> Entry | None:
        if pair in base or pair in found or pair not in lineages or pair in below:
            return base.get(pair) or found.get(pair)
        lineage = lineages[pair]
        parents = {name: entry(_pair(name), (*below, pair)) for name in lineage["of"]}
        of_task = (entry for (name, _), entry in base.items() if name == pair[0])
        if first := next(filter(None, [*parents.values(), *of_task]), None):
            found[pair] = _entry(first, pair[1], source, lineage, parents)
        return found.get(pair)

    for pair in lineages:
        entry(pair)
    return found


def recipe_of(lineage: Mapping[str, Any]) -> Recipe:
    """The recipe in a lineage."""
    lists = ("parents", "weights", "behaviours")
    facts: dict[str, Any] = {key: tuple(v) if key in lists else v for key, v in lineage["how"].items()}
    return Recipe(**facts)


def _entry(
    first: Entry, name: str, source: str, lineage: Mapping[str, Any], parents: Mapping[str, Entry | None]
) -> Derived:
    recipe = recipe_of(lineage)
    shares = recipe.weights or (1.0,) * len(recipe.parents)
    mix = {_pair(parent)[1]: share for parent, share in zip(recipe.parents, shares)}
    return Derived(first.task, name, None, mix, source, lineage, parents)


def _pair(name: str) -> tuple[str, str]:
    task, _, quality = name.partition(":")
    return task, quality


def _folder(source: str) -> Path:
    return data_dir() / "derived" / source


@cache
def _card(file: Path, _changed: int) -> dict[str, Any] | None:
    """The card of a derived dataset; None, and a word, where it cannot be read."""
    try:
        card = json.loads(file.read_bytes())
        Card.model_validate(card)
        recipe, of = recipe_of(card["lineage"]), card["lineage"]["of"]
        if not {*recipe.parents, *filter(None, [recipe.like])} <= of.keys():
            raise ValueError("a parent is missing")
        return {"dataset": card["dataset"], "lineage": card["lineage"]}
    except (OSError, ValueError, KeyError, TypeError):
        print(f"left out: {file} is not the card of a derived dataset; delete it", file=sys.stderr)
        return None
