"""What offline selectors are worth: rank correlation with played returns, and regret of the one policy each chooses.

Reads `<results>/measurements/selectors/*.json`, which `offmarl select --offline` wrote: a file for each dataset with
what every selector says of each run. D policies are drawn in a resample.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from offmarl.reports.records.files import read_each
from offmarl.reports.selection.budgets import REPLICATES, resampled_means
from offmarl.reports.selection.pool import Policy, Pool
from offmarl.reports.selection.trust import RANDOM, Judged

Values = Mapping[str, Mapping[str, float | None]]  # by selector, then by run; the higher the better
FEWEST, DRAWS = 3, 10_000  # policies of a correlation; choices by luck


class SelectorScores(NamedTuple):
    """A selector's numbers in one pool."""

    family: str
    dataset: str  # task:quality
    selector: str
    policies: int  # with a number
    methods: frozenset[str]  # of these
    rho: np.ndarray  # [1 + REPLICATES]: as played, then resampled
    regret: np.ndarray  # [1 + REPLICATES]
    random_regret: float
    lucky: np.ndarray  # [DRAWS]: regrets of choices by luck


class Played(NamedTuple):
    """What a pool's policies returned, as played and then resampled."""

    pool: Pool
    means: np.ndarray  # [K, 1 + REPLICATES]
    regrets: np.ndarray  # of each policy, in scores: [K, 1 + REPLICATES]
    drawn: np.ndarray  # the policies of each resample: [D, 1 + REPLICATES], K for none


def measured(results: Path) -> list[dict[str, Any]]:
    """Every stored measurement of selectors; files that cannot be read are left out."""
    found, _ = read_each(results / "measurements" / "selectors", lambda _, record: record)
    return [one for one in found if isinstance(one, dict) and {"task", "runs", "code", "selectors"} <= one.keys()]


def spearman(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The rank correlation of columns of values [K, R], NaN for none, with those of others: [R]; 0 for a constant."""
    known = np.isfinite(one)
    ranks = (rankdata(np.where(known, values, np.inf), axis=0) for values in (one, others))  # none: after all others
    a, b = (np.where(known, each - (each * known).sum(0) / np.maximum(known.sum(0), 1), 0.0) for each in ranks)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(size > 0, (a * b).sum(0) / np.where(size > 0, size, 1), 0.0)


def judge(scores: Iterable[SelectorScores]) -> list[Judged]:
    """Every selector in every family, over the datasets that have it: the least share of a random regret first."""
    places: dict[tuple[str, str], list[SelectorScores]] = {}
    for one in scores:
        places.setdefault((one.family, one.selector), []).append(one)
    found = []
    for place, own in places.items():
        regret, policies = _limits([one.regret for one in own]), sum(one.policies for one in own)
        luck = float(np.mean(np.mean([one.lucky for one in own], axis=0) <= regret[0] + 1e-9))
        random_regret = float(np.mean([one.random_regret for one in own]))
        methods = len(frozenset().union(*(one.methods for one in own)))
        rho = _limits([one.rho for one in own])
        found.append(Judged(*place, len(own), policies, methods, rho, regret, random_regret, luck))
    return sorted(found, key=lambda one: (one.family, one.relative_regret))


def judge_without_each(scores: Sequence[SelectorScores]) -> dict[str, list[Judged]]:
    """What `judge` says of a dataset's family without that dataset: by dataset."""
    families = {one.dataset: one.family for one in scores}
    return {
        dataset: judge(one for one in scores if one.family == family and one.dataset != dataset)
        for dataset, family in families.items()
    }


def scored(pools: Iterable[tuple[Pool, Values]]) -> list[SelectorScores]:
    """What each selector is worth in each pool, and a policy at random.

    Correlations are resampled over methods, their policies, and these policies' episodes. Which policy a selector likes
    best, and which is the best, stays as it is, and their episodes are resampled: a policy that a resample lacks could
    not be the mistake.
    """
    families: dict[str, list[tuple[Pool, Values]]] = {}
    for pool, values in pools:
        families.setdefault(pool.task.split("/")[0], []).append((pool, values))
    return [one for family, own in families.items() for one in _scored(family, own)]


def _scored(family: str, asked: Sequence[tuple[Pool, Values]]) -> Iterator[SelectorScores]:
    """The same of a family, whose datasets share the methods of a resample and of choices by luck."""
    rng = np.random.default_rng(0)
    titles = sorted({policy.title for pool, _ in asked for policy in pool.policies})
    drawn = rng.integers(len(titles), size=(REPLICATES, len(titles)))
    played = [_played(pool, titles, drawn, rng) for pool, _ in asked]
    for name in [RANDOM, *dict.fromkeys(name for _, values in asked for name in values)]:
        given = [numbers_of(pool, values, name) for pool, values in asked]
        known = [(own, numbers) for own, numbers in zip(played, given) if np.isfinite(numbers).sum() >= FEWEST]
        labels = sorted({policy.title for own, numbers in known for policy in _known(own.pool, numbers)})
        renamed = rng.permuted(np.tile(np.arange(len(labels)), (DRAWS, 1)), axis=1)
        for own, numbers in known:
            methods = frozenset(policy.title for policy in _known(own.pool, numbers))
            favourites, finite = numbers == np.nanmax(numbers), np.isfinite(numbers)
            yield SelectorScores(
                family, own.pool.dataset, name, int(finite.sum()), methods, _correlation(own, numbers),
                own.regrets[favourites].mean(0), float(own.regrets[finite, 0].mean()),
                _lucky(own, numbers, labels, renamed, rng),
            )  # fmt: skip


def numbers_of(pool: Pool, values: Values, name: str) -> np.ndarray:
    """A selector's values of a pool's policies, NaN where it has none: [K]. Values that ran away say nothing."""
    if name == RANDOM:
        return np.zeros(len(pool.policies))
    given = values.get(name, {})
    numbers = np.array([np.nan if (v := given.get(p.run_id)) is None else v for p in pool.policies], dtype=float)
    return np.where(np.isinf(numbers), np.nan, numbers)


def _known(pool: Pool, numbers: np.ndarray) -> list[Policy]:
    return [policy for policy, number in zip(pool.policies, numbers) if np.isfinite(number)]


def _played(pool: Pool, titles: Sequence[str], drawn: np.ndarray, rng: np.random.Generator) -> Played:
    """A pool as it was played, and resamples of it, of the methods drawn: numbers of `titles`, [REPLICATES, M]."""
    everyone = [policy.episodes for policy in pool.policies]
    means = np.column_stack([[own.mean() for own in everyone], resampled_means(everyone, rng)])
    regrets = (means[means[:, 0].argmax()] - means) / (pool.high - pool.low)
    of_method = [[k for k, policy in enumerate(pool.policies) if policy.title == title] for title in titles]
    return Played(pool, means, regrets, _drawn_policies(of_method, drawn, rng))


def _drawn_policies(of_method: Sequence[Sequence[int]], drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All policies, then resamples: as many as a method has, of each of the methods drawn. As in `Played`."""
    sizes, widest, count = np.array([*map(len, of_method)]), max(map(len, of_method)), sum(map(len, of_method))
    policies = np.array([[*own, *[count] * (widest - len(own))] for own in of_method])
    size = sizes[drawn][..., None]
    places = (rng.random((*drawn.shape, widest)) * size).astype(int)
    found = np.where(np.arange(widest) < size, policies[drawn[..., None], places], count).reshape(len(drawn), -1)
    return np.column_stack([np.sort(policies.ravel()), found.T])


def _correlation(played: Played, numbers: np.ndarray) -> np.ndarray:
    """Of a selector's numbers with means, in every resample: [1 + REPLICATES]."""
    none = np.full((1, 1 + REPLICATES), np.nan)
    means = np.take_along_axis(np.concatenate([played.means, none]), played.drawn, 0)
    return spearman(np.append(numbers, np.nan)[played.drawn], means)


def _lucky(
    played: Played, numbers: np.ndarray, labels: Sequence[str], renamed: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Regrets of choices by luck: one policy of the method that stands for the favourite's, [DRAWS].

    `renamed` [DRAWS, labels] has for each of the methods `labels` the one that stands for it. Where that one has no
    policy with a number, any policy is chosen.
    """
    finite, regrets = np.isfinite(numbers), played.regrets[:, 0]
    method = np.array([labels.index(p.title) if ok else -1 for p, ok in zip(played.pool.policies, finite)])
    favourite = rng.choice(np.flatnonzero(numbers == np.nanmax(numbers)), DRAWS)
    wanted = renamed[np.arange(DRAWS), method[favourite]]
    found = rng.choice(regrets[finite], DRAWS)
    for k in np.unique(method[finite]):
        found[wanted == k] = rng.choice(regrets[method == k], (wanted == k).sum())
    return found


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The mean over datasets as played, and its limits over resamples."""
    mean = np.mean(values, axis=0)
    low, high = np.percentile(mean[1:], [2.5, 97.5])
    return float(mean[0]), float(low), float(high)
