"""What episodes buy, against everything that could happen, counted one case at a time."""

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest

from offmarl.reports.selection.budgets import RULES, Changes, chosen, curve, higher, order_changes, random_orders

POOL = [[0, 3], [1, 2], [2, 2]]  # returns of the stored episodes of three policies, the third without luck


def index(total, plays, centre, t, scale):
    return (total + centre) / (plays + 1) + scale * math.sqrt(2 * math.log(t + 1) / (plays + 1))


def ucb(order, outcome, budget):
    """One repetition, played by hand: the policy chosen."""
    totals, plays, seen = [0] * len(order), [0] * len(order), []
    for t in range(budget + 1):
        centre = sum(totals) / max(t, 1)
        scale = statistics.stdev(seen) if len(set(seen)) > 1 else 1.0
        bonus = scale if t < budget else 0.0
        values = [index(total, n, centre, t, bonus) for total, n in zip(totals, plays)]
        place = next(k for k, value in enumerate(values) if value >= max(values) - 1e-12)
        if t == budget:
            return order[place]
        seen.append(outcome(order[place], plays[place]))
        totals[place] += seen[-1]
        plays[place] += 1


def halving(order, outcome, budget):
    size = max([n for n in range(1, len(order) + 1) if n * math.ceil(math.log2(n)) <= budget], default=1)
    left, rounds, seen = list(order[:size]), math.ceil(math.log2(size)), {k: [] for k in order}
    for _ in range(rounds):
        each = budget // (len(left) * rounds)
        for k in left:
            seen[k] += [outcome(k, len(seen[k]) + n) for n in range(each)]
        kept = sorted(left, key=lambda k: -Fraction(sum(seen[k]), len(seen[k])))[: math.ceil(len(left) / 2)]
        left = [k for k in left if k in kept]
    return left[0]


def round_robin(order, outcome, budget):
    seen = {k: [] for k in order}
    for t in range(budget):
        policy = order[t % len(order)]
        seen[policy].append(outcome(policy, len(seen[policy])))
    met = [k for k in order if seen[k]] or [order[0]]
    return max(met, key=lambda k: Fraction(sum(seen[k]), max(1, len(seen[k]))))


@pytest.mark.parametrize("one", [ucb, halving, round_robin], ids=lambda one: one.__name__)
def test_a_rule_chooses_as_every_repetition_played_by_hand(one):
    """All orders and all draws of up to four episodes of each of the two policies with luck: 6 x 4^4 repetitions."""
    most, rule = 4, RULES[one.__name__]
    cases = list(itertools.product(itertools.permutations(range(3)), itertools.product(*[[0, 1]] * 8, *[[0]] * 4)))
    orders, draws = (np.array(part) for part in zip(*cases))
    tables = np.take_along_axis(np.array(POOL)[None, :, :], draws.reshape(-1, 3, most), axis=2)
    means, rows = np.array([np.mean(own) for own in POOL]), np.arange(len(cases))

    def draw(policies, times):
        return tables[rows, policies, np.minimum(times, most - 1)]

    wanted = [0, 1, 2, 3, 4]
    ours = means[rule(orders, draw, wanted)].mean(1)
    for budget, mean in zip(wanted, ours):
        chosen = [
            one(order, lambda k, n, table=table: int(table[k, n]), budget)
            for order, table in zip(orders.tolist(), tables)
        ]
        assert mean == pytest.approx(float(np.mean(means[chosen])), abs=1e-9), budget
    assert ours[0] == pytest.approx(means.mean(), abs=1e-9)


def test_random_order_without_noise_is_the_expected_maximum():
    """Expected online performance: the mean of the best of n drawn without replacement, by counting subsets."""
    means = [3.0, 1.0, 4.0, 1.5, 5.0]
    orders = np.array(list(itertools.permutations(range(5))))
    chosen = RULES["round_robin"](orders, lambda policies, times: np.array(means)[policies], range(1, 6))
    for n in range(1, 6):
        closed = np.mean([max(subset) for subset in itertools.combinations(means, n)])
        assert np.array(means)[chosen[n - 1]].mean() == pytest.approx(closed, abs=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_drawn_repetitions_agree_with_all_of_them(name):
    pool = [np.array([0.0, 4.0]), np.array([1.0, 2.0, 3.0]), np.array([3.0])]
    shares = chosen(pool, RULES[name], [0, 1, 2], np.random.default_rng(5))
    found = shares @ [own.mean() for own in pool]
    exact, one = [], {"ucb": ucb, "halving": halving, "round_robin": round_robin}[name]
    for budget in (0, 1, 2):
        total = 0.0
        for order in itertools.permutations(range(3)):
            for draws in itertools.product(*[list(enumerate(own)) for own in pool for _ in range(2)]):
                worth_of = pool[one(order, lambda k, n, draws=draws: int(draws[2 * k + n][1]), budget)].mean()
                total += worth_of / 6 / math.prod(len(own) ** 2 for own in pool)
        exact.append(total)
    assert found == pytest.approx(exact, abs=0.05)
    assert found[0] == pytest.approx(exact[0], abs=1e-9) == pytest.approx(7 / 3)


@pytest.mark.parametrize("name", RULES)
def test_many_episodes_find_the_best_and_its_regret_is_against_other_policies_too(name):
    rng = np.random.default_rng(0)
    pool = [rng.normal(mean, 0.1, 16) for mean in (0.0, 1.0, 2.0, 3.0)]
    found = curve(pool, RULES[name], [0, 2, 40], other_policies=[np.full(16, 5.0)])
    assert found.mean[0] == pytest.approx(np.mean(pool)) and found.mean[2] == pytest.approx(np.mean(pool[3]), abs=0.02)
    assert found.regret == pytest.approx(5.0 - found.mean)
    assert (found.low <= found.mean).all() and (found.mean <= found.high).all()
    assert (found.regret_low <= found.regret).all() and (found.regret <= found.regret_high).all()
    again = curve(pool, RULES[name], [0, 2, 40], other_policies=[np.full(16, 5.0)])
    assert all(np.array_equal(one, other) for one, other in zip(found, again))


@pytest.mark.parametrize("name", RULES)
def test_without_luck_there_is_no_interval_and_without_a_choice_no_regret(name):
    alone = curve([np.full(3, 2.0)], RULES[name], [0, 1, 100])
    for values in (alone.mean, alone.low, alone.high):
        assert values.tolist() == [2.0] * 3
    assert alone.regret.tolist() == [0.0] * 3
    found = curve([np.full(4, 1.0), np.full(2, 3.0)], RULES[name], [0, 2, 100])
    assert found.mean.tolist() == found.low.tolist() == found.high.tolist() == pytest.approx([2.0, 3.0, 3.0])


def test_the_bandit_finds_the_best_whatever_the_unit_and_the_zero_of_returns():
    """Its scale is the spread of what it has drawn: the data of one constant return have none to offer."""
    rng = np.random.default_rng(0)
    pool = [rng.normal(mean, 0.1, 16) for mean in np.linspace(0, 2, 12)]
    found = curve(pool, RULES["ucb"], [5, 20, 60])
    assert found.regret[2] < found.regret[1] < found.regret[0] and found.regret[2] < 0.02
    for unit, zero in ((1e-4, 0.0), (1e4, 0.0), (0.01, 20.0)):
        other = curve([zero + unit * own for own in pool], RULES["ucb"], [5, 20, 60])
        assert other.regret / unit == pytest.approx(found.regret, abs=1e-3)


def test_the_bandit_meets_every_policy_while_all_returns_are_equal():
    for lazy in (0.0, 0.1):
        found = curve([*[np.full(3, lazy)] * 4, np.full(3, 5.0)], RULES["ucb"], [5])
        assert found.mean == pytest.approx([5.0])


def test_the_interval_without_episodes_is_that_of_the_mean():
    pool = [np.random.default_rng(k).normal(0, 1, 50) for k in range(4)]
    found = curve(pool, RULES["round_robin"], [0])
    assert found.mean[0] == pytest.approx(np.mean(pool), abs=1e-9)
    half = 1.96 * math.sqrt(sum(own.var() / 50 for own in pool)) / 4
    assert (found.high[0] - found.low[0]) / 2 == pytest.approx(half, rel=0.1)


def test_orders_begin_with_every_policy_equally_often():
    orders = random_orders(5, 23, np.random.default_rng(1))
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders.tolist())
    counts = np.bincount(orders[:, 0], minlength=5)
    assert counts.max() - counts.min() <= 1


def test_episodes_that_choose_do_not_value():
    """Every second episode favours one policy, the others the other one: who wins here is worth what it has there."""
    lucky, unlucky = np.tile([9.0, 1.0], 8), np.tile([2.0, 4.0], 8)
    for name in RULES:
        found = curve([lucky, unlucky], RULES[name], [0, 100])
        assert found.mean == pytest.approx([4.0, (1.0 + 2.0) / 2]), name
        assert found.regret == pytest.approx([(1.0 + 2.0) / 2 - 4.0, 0.0]), name
    assert curve([np.array([1.0]), np.array([3.0])], RULES["ucb"], [0, 100]).mean.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("name", RULES)
def test_among_equal_policies_no_number_of_episodes_buys_anything(name):
    """The episodes that chose a policy by luck would say 0.3 to 0.5 here."""
    rng = np.random.default_rng(1)
    found = [curve([*rng.normal(size=(12, 10))], RULES[name], [0, 10, 40]) for _ in range(80)]
    means, regrets = (np.mean([getattr(one, field) for one in found], axis=0) for field in ("mean", "regret"))
    assert np.abs(means).max() < 0.11 and np.abs(regrets).max() < 0.11  # three standard errors
    inside = np.mean([(one.low <= 0) & (one.high >= 0) for one in found], axis=0)
    assert (inside > 0.7).all()  # few episodes: percentile intervals are somewhat narrow


def test_changes_of_order_count_pairs_whose_order_is_known_twice():
    def near(**returns):
        return {int(n[1:]): (mean, mean - 0.1, mean + 0.1) for n, mean in returns.items()}

    curves = {
        "a": near(_0=1.0, _10=2.0, _100=3.0),
        "b": near(_0=2.0, _10=1.0, _100=1.0),
        "c": near(_0=0.0, _10=2.0, _100=5.0),
    }
    assert order_changes(curves, 0, 10) == Changes(2, 2, 3)  # a and c have no order at 10
    assert order_changes(curves, 0, 100) == Changes(3, 3, 3)
    assert order_changes(curves, 10, 100) == Changes(0, 2, 3)


def test_an_order_is_known_where_the_difference_is_larger_than_both_errors_together():
    assert higher((1.0, 0.7, 1.1), (1.4, 1.0, 1.9)) == 0  # hypot(0.1, 0.4) is above 0.4
    assert higher((1.0, 0.7, 1.1), (1.5, 1.1, 1.9)) == -1 == -higher((1.5, 1.1, 1.9), (1.0, 0.7, 1.1))
    assert higher((0.1 + 0.2,) * 3, (0.3,) * 3) == higher((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)) == 0


def test_equal_methods_change_order_almost_never():
    """Two methods of six equal policies, ten episodes each: by their means alone they would in a third of the cases."""
    rng, changed, known = np.random.default_rng(2), 0, 0
    for _ in range(150):
        curves = {}
        for method in "ab":
            found = curve([*rng.normal(size=(6, 10))], RULES["halving"], [0, 40])
            curves[method] = dict(zip((0, 40), zip(found.mean, found.low, found.high)))
        one = order_changes(curves, 0, 40)
        changed, known = changed + one.reversed, known + one.known
    assert changed <= 3 and known <= 12, (changed, known)
