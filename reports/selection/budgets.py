"""What a number of episodes buys: the return of the policy that is chosen after playing so many.

A pool is a list of policies, each with the returns of its stored episodes. One half of them is played: an episode of a
policy is drawn from its half, with replacement. A rule sees nothing but these returns, and names a policy; the other
half values it. Then the halves change places, and both results are averaged: episodes that chose a policy by luck
would value it too high. Rules take many repetitions at once. R repetitions, K policies, N budgets:

* `orders` [R, K]: the policies in the order in which a repetition meets them;
* `draw(policies [R], times [R])`: the returns [R] of an episode of these, which were played so many times before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

BUDGETS = (0, 1, 2, 5, 10, 20, 50, 100)  # episodes
RUNS, REPLICATES = 2000, 1000  # repetitions of a rule; resamples of the stored episodes
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]
Rule = Callable[[np.ndarray, Draw, Sequence[int]], np.ndarray]


def ucb(orders: np.ndarray, draw: Draw, budgets: Sequence[int]) -> np.ndarray:
    """The policy chosen after each budget by an upper confidence bound: [N, R].

    UCB1 (Auer et al. 2002): after t episodes, whose returns deviate by s, the next one is of the highest
    `mean + s * sqrt(2 ln(t + 1) / n)`. Each policy counts one episode more than it played, of the mean return so far,
    so that a good one is played again before all others were met. The highest such mean is chosen; the order breaks
    ties.
    """
    rows, (runs, count) = np.arange(len(orders)), orders.shape
    sums, plays, found = np.zeros((runs, count)), np.zeros((runs, count), int), []
    seen = np.zeros((runs, max(budgets) + 1))
    for t in range(max(budgets) + 1):
        centre = sums.sum(1) / max(t, 1)
        means = (sums + centre[:, None]) / (plays + 1)
        if t in budgets:
            found.append(orders[rows, _first_best(means)])
        bonus = np.sqrt(2 * np.log(t + 1) / (np.arange(t + 1) + 1))
        place = _first_best(means + _deviation(seen[:, :t]) * bonus[plays])
        seen[:, t] = _play(orders, draw, sums, plays, rows, place)
    return np.stack(found)


def halving(orders: np.ndarray, draw: Draw, budgets: Sequence[int]) -> np.ndarray:
    """The policy chosen by successive halving of each budget: [N, R]. Karnin et al. 2013, means over all episodes.

    The first policies of the order take part: as many as the budget can play once in every round.
    """
    rows, (runs, count) = np.arange(len(orders))[:, None], orders.shape
    found = []
    for budget in budgets:
        size = max((n for n in range(1, count + 1) if n * _rounds(n) <= budget), default=1)
        sums, plays, left = np.zeros((runs, count)), np.zeros((runs, count), int), np.tile(np.arange(size), (runs, 1))
        for _ in range(_rounds(size)):
            for _ in range(budget // (left.shape[1] * _rounds(size))):
                for place in left.T:
                    _play(orders, draw, sums, plays, rows[:, 0], place)
            means = sums[rows, left] / np.maximum(plays[rows, left], 1)
            best = np.sort(np.argsort(-means, axis=1, kind="stable")[:, : (left.shape[1] + 1) // 2], axis=1)
            left = left[rows, best]
        found.append(orders[rows[:, 0], left[:, 0]])
    return np.stack(found)


def round_robin(orders: np.ndarray, draw: Draw, budgets: Sequence[int]) -> np.ndarray:
    """The policy chosen after each budget by playing one after the other in the order, again and again: [N, R].

    Expected online performance (Kurenkov and Kolesnikov 2022) where an evaluation is one episode: the highest mean of
    those met is chosen, the first of equal ones.
    """
    rows, (runs, count) = np.arange(len(orders)), orders.shape
    sums, plays, found = np.zeros((runs, count)), np.zeros((runs, count), int), []
    for t in range(max(budgets) + 1):
        if t in budgets:
            met = slice(0, max(1, min(t, count)))
            found.append(orders[rows, _first_best(sums[:, met] / np.maximum(plays[:, met], 1))])
        _play(orders, draw, sums, plays, rows, np.full(runs, t % count))
    return np.stack(found)


RULES: dict[str, Rule] = {"ucb": ucb, "halving": halving, "round_robin": round_robin}
RULE_NAMES = {"ucb": "bandit (UCB)", "halving": "successive halving", "round_robin": "random order (EOP)"}


def _rounds(size: int) -> int:
    """Halvings that leave one of so many."""
    return (size - 1).bit_length()


def _deviation(returns: np.ndarray) -> np.ndarray:
    """The sample standard deviation of each row, [R, 1]; 1 where all are equal, for then so are means of policies."""
    if returns.shape[1] < 2:
        return np.ones((len(returns), 1))
    differ = np.ptp(returns, axis=1, keepdims=True) > 0
    return np.where(differ, returns.std(1, ddof=1, keepdims=True), 1.0)


def _first_best(values: np.ndarray) -> np.ndarray:
    """The first column of the highest value, but for rounding: [R]."""
    highest = values.max(1, keepdims=True)
    return (values >= highest - 1e-12 * np.abs(highest)).argmax(1)


def _play(
    orders: np.ndarray, draw: Draw, sums: np.ndarray, plays: np.ndarray, rows: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Returns [R] of an episode of the policy at a place of each order, added to sums and plays."""
    returns = draw(orders[rows, place], plays[rows, place])
    sums[rows, place] += returns
    plays[rows, place] += 1
    return returns


class Curve(NamedTuple):
    """Expected return of what is chosen with each budget, its regret against the best of a pool, and 95 % limits."""

    mean: np.ndarray  # [N]
    low: np.ndarray
    high: np.ndarray
    regret: np.ndarray
    regret_low: np.ndarray
    regret_high: np.ndarray


def curve(
    pool: Sequence[np.ndarray], rule: Rule, budgets: Sequence[int], other_policies: Sequence[np.ndarray] = ()
) -> Curve:
    """What a rule buys in a pool, given as the returns of each policy's episodes; it chooses none of `other_policies`.

    Regret is against the policy of both that has the highest mean in the half that is played. The interval is a
    percentile bootstrap over the episodes by which policies are valued. How often each is chosen stays as it is, and so
    does which is the best: a resample that chose anew by its own noise, and was valued by the same, would be too high.
    """
    rng, everyone, found = np.random.default_rng(0), [*pool, *other_policies], []
    for played, valuing in swapped_halves(everyone):
        shares = chosen(played[: len(pool)], rule, budgets, rng) @ np.eye(len(pool), len(everyone))
        best = np.eye(len(everyone))[np.argmax([own.mean() for own in played])]
        means = np.column_stack([[own.mean() for own in valuing], resampled_means(valuing, rng)])
        found.append((shares @ means, (best - shares) @ means))
    returns, regrets = np.mean(found, axis=0)
    return Curve(*_limits(returns), *_limits(regrets))


def swapped_halves(pool: Sequence[np.ndarray]) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """The episodes of each policy that are played, and those that value it: every second one, then the others.

    A policy with a single episode is played and valued by that one.
    """
    one, other = [own[::2] for own in pool], [own[1::2] if len(own) > 1 else own for own in pool]
    yield one, other
    yield other, one


def _limits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first column of [N, 1 + REPLICATES], and the 95 % limits of the others: three of [N]."""
    low, high = np.percentile(values[:, 1:], [2.5, 97.5], axis=1)
    return values[:, 0], low, high


def chosen(pool: Sequence[np.ndarray], rule: Rule, budgets: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """How often a rule chooses each policy, an episode being a stored one, drawn with replacement: [N, K].

    Without an episode every policy is chosen equally often.
    """
    counts = np.array([len(own) for own in pool])
    returns = np.stack([np.resize(own, counts.max()) for own in pool])
    orders = random_orders(len(pool), RUNS, rng)

    def draw(policies: np.ndarray, times: np.ndarray) -> np.ndarray:
        return returns[policies, (rng.random(len(policies)) * counts[policies]).astype(int)]

    found = rule(orders, draw, budgets)
    shares = np.stack([np.bincount(own, minlength=len(pool)) / RUNS for own in found])
    return np.where(np.asarray(budgets)[:, None] == 0, 1 / len(pool), shares)


def resampled_means(pool: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The mean of each policy's episodes, as many as it has drawn with replacement: [K, REPLICATES]."""
    return np.stack([rng.choice(own, (REPLICATES, len(own))).mean(1) for own in pool])


def random_orders(count: int, runs: int, rng: np.random.Generator) -> np.ndarray:
    """Orders of so many policies, each of them the first equally often, up to one time: [runs, count]."""
    orders = rng.permuted(np.tile(np.arange(count), (runs, 1)), axis=1)
    rows, first = np.arange(runs), rng.permutation(count)[np.arange(runs) % count]
    place = (orders == first[:, None]).argmax(1)
    orders[rows, place], orders[:, 0] = orders[:, 0], first
    return orders


Interval = tuple[float, float, float]  # mean, and its 95 % limits


class Changes(NamedTuple):
    """Pairs of methods on a dataset: those whose order is known at both of two budgets, and of these the reversed."""

    reversed: int
    known: int
    pairs: int


def order_changes(curves: Mapping[str, Mapping[int, Interval]], early: int, late: int) -> Changes:
    """How many pairs of methods change their order between two budgets; `curves` has each method's return by budget."""
    names = sorted(curves)
    pairs = [(curves[a], curves[b]) for k, a in enumerate(names) for b in names[k + 1 :]]
    products = [higher(a[early], b[early]) * higher(a[late], b[late]) for a, b in pairs]
    return Changes(products.count(-1), len(products) - products.count(0), len(products))


def higher(one: Interval, other: Interval) -> int:
    """1 if the first mean is the higher, -1 if the lower, 0 if the 95 % interval of their difference includes 0.

    That interval is made of both, whose errors are independent: MOVER (Zou and Donner 2008).
    """
    (a, a_low, a_high), (b, b_low, b_high) = (one, other) if one[0] >= other[0] else (other, one)
    error = max(np.hypot(a - a_low, b_high - b), 1e-9 * max(abs(a), abs(b)))  # at least what rounding makes
    return (1 if one[0] >= other[0] else -1) if a - b > error else 0
