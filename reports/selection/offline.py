"""Which offline selector can be trusted: rank correlation with played returns, and regret of the one policy it chooses.

Reads `<results>/measurements/selectors/*.json`, which `offmarl select --offline` wrote: a file for each dataset with
what every selector says of each run.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from offmarl.reports.records.files import read_each
from offmarl.reports.selection.budgets import REPLICATES, resampled_means
from offmarl.reports.selection.pool import Pool
from offmarl.reports.tables.markdown import table as markdown_table

RANDOM, FEWEST, DATASETS = "random", 3, 2  # no selector; the fewest policies of a correlation, datasets of trust
DRAWS, LUCK = 10_000, 0.025  # choices at random, and the share of them that may do as well as one that is trusted
NAMES = {
    "agreement": "agreement with the data",
    "best": "agreement with the best episodes",
    "critic": "own critic",
    "fitted_q": "fitted Q evaluation",
    RANDOM: "at random",
}
NOTE = (
    "Spearman: rank correlation between a selector's values and the played mean returns of a pool's policies, averaged "
    "over datasets; brackets: 95 % bootstrap intervals over policies and their stored episodes. Regret@1: how far the "
    "selector's top policy is below the pool's best, in scores; brackets: 95 % bootstrap intervals over stored "
    "episodes. Luck: the share of random choices, one policy per dataset, with a regret at least as small. A selector "
    "is trusted in a family if, over two datasets or more, the whole interval of its rank correlation is above 0 and "
    f"its luck is at most {LUCK:.1%}."
)


class Judged(NamedTuple):
    """A selector in a family, or on one dataset: the mean of each number, and its 95 % limits."""

    family: str
    selector: str
    datasets: int
    policies: int  # with a number
    rho: tuple[float, float, float]
    regret: tuple[float, float, float]
    random: float  # regret of a policy at random, on the same datasets
    luck: float  # share of choices at random that do as well

    @property
    def trusted(self) -> bool:
        """Whether it is better than nothing."""
        return self.datasets >= DATASETS and self.rho[1] > 0 and self.luck <= LUCK


class Answers(NamedTuple):
    """Of one selector in one pool."""

    policies: int  # with a number
    rho: np.ndarray  # [1 + REPLICATES]: as played, then resampled
    regret: np.ndarray  # [1 + REPLICATES]
    random: float  # regret of a policy at random
    draws: np.ndarray  # [DRAWS]: regrets of policies drawn at random


def judged_from(stored: Mapping[str, Any]) -> Judged:
    """As it was stored; before luck was asked for, nobody was known to be better. TypeError or KeyError for no such."""
    return Judged(**{"luck": 1.0, **stored, **{name: tuple(stored[name]) for name in ("rho", "regret")}})


def measured(results: Path) -> list[dict[str, Any]]:
    """Every stored measurement of selectors; files that cannot be read are left out."""
    found, _ = read_each(results / "measurements" / "selectors", lambda _, record: record)
    return [one for one in found if isinstance(one, dict) and {"task", "runs", "selectors"} <= one.keys()]


def spearman(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The rank correlation of columns of values [K, R], NaN for none, with those of others: [R]; 0 for a constant."""
    known = np.isfinite(one)
    ranks = (rankdata(np.where(known, values, np.nan), axis=0, nan_policy="omit") for values in (one, others))
    a, b = (np.where(known, each - np.nansum(each, 0) / np.maximum(known.sum(0), 1), 0.0) for each in ranks)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(size > 0, (a * b).sum(0) / np.where(size > 0, size, 1), 0.0)


def one_pool(pool: Pool, said: Mapping[str, Mapping[str, float | None]], number: int = 0) -> dict[str, Answers]:
    """What each selector is worth, and a policy at random.

    Correlations are resampled over policies and their episodes. Which policy a selector likes best, and which is the
    best, stays as it is, and their episodes are resampled: a policy that a resample lacks could not be the mistake.
    Pools of other numbers have other draws, so that their means over datasets have independent ones.
    """
    rng, everyone = np.random.default_rng([0, number]), [policy.episodes for policy in pool.policies]
    means, count = np.array([own.mean() for own in everyone]), len(everyone)
    drawn = np.column_stack([np.arange(count), rng.integers(count, size=(count, REPLICATES))])
    played = np.column_stack([means, resampled_means(everyone, rng)])
    regrets = (played[means.argmax()] - played) / (pool.high - pool.low)
    found = {RANDOM: Answers(count, np.zeros(1 + REPLICATES), regrets.mean(0), *_chance(regrets[:, 0], rng))}
    for name, values in said.items():
        numbers = np.array([np.nan if (v := values.get(p.run_id)) is None else v for p in pool.policies], dtype=float)
        numbers[np.isinf(numbers)] = np.nan  # values that ran away say nothing
        if (known := np.isfinite(numbers)).sum() >= FEWEST:
            liked = numbers == np.nanmax(numbers)  # any of them, where several are liked alike
            rho = spearman(numbers[drawn], np.take_along_axis(played, drawn, 0))
            luck = _chance(regrets[known, 0], rng)  # among the policies that it could have chosen
            found[name] = Answers(int(known.sum()), rho, regrets[liked].mean(0), *luck)
    return found


def _chance(regrets: np.ndarray, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """The mean regret of a policy at random, and those of some."""
    return float(regrets.mean()), rng.choice(regrets, DRAWS)


def judge(pools: Iterable[tuple[Pool, Mapping[str, Any]]]) -> list[Judged]:
    """Every selector in every family, over the datasets that have it: the least regret first."""
    places: dict[tuple[str, str], list[Answers]] = {}
    for number, (pool, record) in enumerate(pools):
        for name, answers in one_pool(pool, record["selectors"], number).items():
            places.setdefault((pool.task.split("/")[0], name), []).append(answers)
    found = []
    for place, own in places.items():
        policies, rho, regret, random, draws = zip(*own)
        taken = _limits(regret)
        luck = float(np.mean(np.mean(draws, axis=0) <= taken[0] + 1e-9))
        found.append(Judged(*place, len(own), sum(policies), _limits(rho), taken, float(np.mean(random)), luck))
    return sorted(found, key=lambda one: (one.family, one.regret[0]))


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The mean over datasets as played, and its limits over resamples."""
    mean = np.mean(values, axis=0)
    low, high = np.percentile(mean[1:], [2.5, 97.5])
    return float(mean[0]), float(low), float(high)


def trusted(judged: Iterable[Judged], family: str) -> Judged | None:
    """The trusted selector of the least regret in a family; None where none can be."""
    own = [one for one in judged if one.family == family and one.trusted]
    return min(own, key=lambda one: one.regret[0], default=None)


def markdown(judged: Sequence[Judged], held_out: bool) -> str:
    """A row for each family and selector, and which can be trusted."""
    split = "on episodes that were not trained on" if held_out else "on the data that were trained on"
    about = f"Agreement is measured {split}."
    return "\n\n".join([markdown_table(*rows(judged)), f"**Without an episode:** {verdicts(judged)}", about, NOTE])


def rows(judged: Sequence[Judged]) -> tuple[list[str], list[list[str]]]:
    """Head, and a row for each family and selector; none where nothing was asked."""
    head = ["family", "selector", "datasets", "policies", "Spearman", "regret@1", "luck", "trusted"]
    return head, [
        [one.family, NAMES.get(one.selector, one.selector), str(one.datasets), str(one.policies),
         "–" if one.selector == RANDOM else _text(one.rho), _text(one.regret),
         "–" if one.selector == RANDOM else f"{one.luck:.3f}", "yes" if one.trusted else "no"]
        for one in judged
    ]  # fmt: skip


def verdicts(judged: Sequence[Judged]) -> str:
    """Whom to trust in each family, in a sentence."""
    words = []
    for family in dict.fromkeys(one.family for one in judged):
        best = trusted(judged, family)
        words.append(f"{family}: " + (NAMES[best.selector] if best else "none can be trusted"))
    return "; ".join(words) + "."


def _text(numbers: tuple[float, float, float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)
