"""Which offline selector can be trusted."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from offmarl.reports.selection import offline, trust
from offmarl.reports.selection.pool import Policy, Pool


def pool(task, means, spread=0.1, methods=None):
    """One policy of each mean, each of another method unless `methods` says of which."""
    rng = np.random.default_rng(len(means))
    episodes = [mean + spread * rng.standard_normal(20) for mean in means]
    titles = methods or [f"method {k}" for k in range(len(means))]
    policies = [Policy(f"{task} {k}", "bc", titles[k], "paper", k, own) for k, own in enumerate(episodes)]
    return Pool(task, "expert", "embedded", policies, 0.0, 10.0)


def said(own, **values):
    return {name: {p.run_id: value for p, value in zip(own.policies, numbers)} for name, numbers in values.items()}


def ranked(own):
    """What a critic says that is right."""
    return said(own, critic=[policy.episodes.mean() for policy in own.policies])


def judge(pools):
    return offline.judge(offline.scored(pools))


def one_pool(own, values):
    return {one.selector: one for one in offline.scored([(own, values)])}


def test_rank_correlation_is_scipys_for_every_column_with_ties_and_none_for_a_constant():
    rng = np.random.default_rng(0)
    one, others = rng.integers(0, 4, 9).astype(float), rng.integers(0, 4, (9, 5)).astype(float)
    wanted = [spearmanr(one, column).statistic for column in others.T]
    columns = np.repeat(one[:, None], 5, 1)
    assert offline.spearman(columns, others) == pytest.approx(wanted, abs=1e-9)
    assert offline.spearman(np.ones((9, 5)), others).tolist() == [0.0] * 5
    columns[[2, 5]] = np.nan
    known = np.isfinite(columns[:, 0])
    wanted = [spearmanr(one[known], column[known]).statistic for column in others.T]
    assert offline.spearman(columns, others) == pytest.approx(wanted, abs=1e-9)


def test_a_selector_is_trusted_where_it_is_right_on_two_datasets():
    up, down = [*range(1, 10)], [*range(9, 0, -1)]
    one, other = pool("mpe/spread", up), pool("mpe/tag", down)
    judged = judge([(one, said(one, fitted_q=up, critic=down)), (other, said(other, fitted_q=down, critic=up))])
    by = {row.selector: row for row in judged}
    assert by["fitted_q"].rho[0] == pytest.approx(1.0) and by["fitted_q"].regret[0] == pytest.approx(0.0, abs=1e-9)
    assert by["critic"].rho[0] == pytest.approx(-1.0) and by["critic"].regret[0] == pytest.approx(0.8, abs=0.02)
    assert by["random"].regret[0] == pytest.approx(0.4, abs=0.01) == by["fitted_q"].random_regret
    assert by["fitted_q"].luck == pytest.approx(1 / (9 * 8), abs=0.004) and by["critic"].luck > 0.9
    assert trust.trusted(judged, "mpe") == by["fitted_q"] and trust.trusted(judged, "smac") is None
    assert "mpe: fitted Q evaluation" in trust.markdown(judged, True)


def test_a_selector_is_compared_with_chance_on_the_datasets_that_it_knows():
    close, apart = [1.0, 1.1, 1.2, 1.3], [1.0, 4.0, 7.0, 10.0]
    known = [pool(name, close) for name in ("mpe/spread", "mpe/tag")]
    pools = [(own, said(own, critic=[4, 3, 2, 1])) for own in known]
    pools += [(own, said(own)) for own in [pool(f"mpe/other{k}", apart) for k in range(4)]]
    by = {row.selector: row for row in judge(pools)}
    assert by["critic"].random_regret == pytest.approx(0.015, abs=0.01) and by["random"].regret[0] > 0.2
    assert by["critic"].regret[0] > by["critic"].random_regret and not by["critic"].trusted


def test_datasets_have_draws_of_their_own():
    """Six equal pools: with the same draws for all, their mean would have the interval of one."""
    many = [pool("mpe/spread", [1, 2, 3, 4], spread=3.0) for _ in range(6)]
    wide = [
        next(row for row in judge([(own, said(own)) for own in pools]) if row.selector == "random").regret
        for pools in (many[:1], many)
    ]
    one, six = (high - low for _, low, high in wide)
    assert six < 0.6 * one


def test_nobody_is_trusted_by_one_dataset_or_by_noise():
    own = pool("mpe/spread", [1, 2, 3, 4])
    judged = judge([(own, said(own, fitted_q=[1, 2, 3, 4]))])
    assert trust.trusted(judged, "mpe") is None and "none can be trusted" in trust.markdown(judged, False)
    noisy = [pool(name, [1.0, 1.01, 1.02, 1.03], spread=3.0) for name in ("mpe/spread", "mpe/tag")]
    judged = judge([(own, said(own, fitted_q=[1, 2, 3, 4])) for own in noisy])
    assert trust.trusted(judged, "mpe") is None


def test_a_policy_without_a_number_is_not_chosen():
    own = pool("mpe/spread", [1, 2, 3, 9])
    given = said(own, critic=[1.0, 2.0, 3.0, None], best=[1.0, None, None, None])
    found = one_pool(own, given)
    assert found["critic"].policies == 3 and found["critic"].regret[0] == pytest.approx(0.6, abs=0.02)
    assert "best" not in found


def test_a_selector_that_likes_several_alike_chooses_any_of_them():
    own = pool("mpe/spread", [1, 2, 3, 9])
    found = one_pool(own, said(own, critic=[0.0, 5.0, 5.0, 5.0]))
    assert found["critic"].regret[0] == pytest.approx((0.7 + 0.6 + 0.0) / 3, abs=0.02)


def test_an_interval_is_over_policies_too_so_that_chance_earns_no_trust():
    """Episodes without noise: all that is uncertain is which policies were trained."""
    rng, trusted = np.random.default_rng(3), 0
    for _ in range(40):
        own = [pool(name, rng.permutation(12).astype(float), spread=0.0) for name in ("mpe/spread", "mpe/tag")]
        judged = judge([(one, said(one, critic=rng.permutation(12).astype(float))) for one in own])
        trusted += trust.trusted(judged, "mpe") is not None
    assert trusted <= 4  # one in forty is expected by the correlation alone; by episodes alone it was one in three


@pytest.mark.parametrize("datasets", [2, 15])
def test_a_good_ranking_earns_no_trust_for_a_favourite_at_random(datasets):
    """What counts is the one policy that is taken; here it is drawn, and all others are ranked as they played."""
    rng, trusted = np.random.default_rng(4), 0
    for _ in range(40):
        own = [pool(f"mpe/{k}", rng.permutation(12).astype(float), spread=0.0) for k in range(datasets)]
        numbers = [np.array([policy.episodes.mean() for policy in one.policies]) for one in own]
        for values in numbers:
            values[rng.integers(12)] = 99.0
        judged = judge([(a, said(a, critic=b)) for a, b in zip(own, numbers)])
        trusted += trust.trusted(judged, "mpe") is not None
        assert all(row.regret[1] - 1e-9 <= row.regret[0] <= row.regret[2] + 1e-9 for row in judged)
    assert trusted <= 4  # one in forty is expected


def test_a_selector_that_knows_the_good_policies_alone_is_compared_with_chance_among_them():
    """Half of the policies have no critic and play badly; which of the others it likes best is drawn."""
    rng, trusted = np.random.default_rng(5), 0
    for _ in range(20):
        own = [pool(f"mpe/{k}", np.r_[np.full(12, 2.0), 6 + rng.random(12)], spread=0.0) for k in range(4)]
        numbers = [[None] * 12 + [*(policy.episodes.mean() for policy in one.policies[12:])] for one in own]
        for values in numbers:
            values[12 + rng.integers(12)] = 99.0
        judged = judge([(a, said(a, critic=b)) for a, b in zip(own, numbers)])
        trusted += trust.trusted(judged, "mpe") is not None
    assert trusted <= 3


def test_an_infinite_value_is_nobodys_favourite():
    own = pool("mpe/x", [5.0, 1.0, 2.0, 3.0, 4.0], spread=0.0)
    values = {policy.run_id: value for policy, value in zip(own.policies, [2.0, np.inf, 1.0, 0.0, 0.5])}
    assert one_pool(own, {"critic": values})["critic"].regret[0] == pytest.approx(0.0)


METHODS, SETTINGS = 8, 6


def favouring(rng, datasets, task="mpe"):
    """Pools of methods that differ by task, and a selector with favourites of its own, on all datasets the same."""
    titles = [f"method {k}" for k in range(METHODS) for _ in range(SETTINGS)]
    real, liked = (np.repeat(rng.normal(size=METHODS), SETTINGS) for _ in range(2))
    for k in range(datasets):
        means, numbers = (effect + 0.3 * rng.normal(size=len(titles)) for effect in (real, liked))
        own = pool(f"{task}/{k}", means, 0.0, titles)
        yield own, said(own, critic=numbers)


def test_a_selector_with_a_random_order_of_methods_earns_no_trust():
    """With policies and choices counted as independent it was trusted in 12 to 28 % of such cases."""
    rng = np.random.default_rng(6)
    trusted = sum(trust.trusted(judge(favouring(rng, 3)), "mpe") is not None for _ in range(40))
    assert trusted <= 3


def test_one_favourite_method_on_all_datasets_is_one_choice_and_another_on_each_are_many():
    titles = ["a", "b", "c", "d"] * 3
    best_first = [4.0, 3.0, 2.0, 1.0] * 3
    same = [pool(f"mpe/{k}", best_first, 0.0, titles) for k in range(6)]
    turned = [pool(f"mpe/{k}", [*np.roll(best_first, k)], 0.0, titles) for k in range(3)]
    lucks = [
        {one.selector: one.luck for one in judge([(own, ranked(own)) for own in pools])}["critic"]
        for pools in (same, turned)
    ]
    assert lucks == pytest.approx([1 / 4, 1 / 24], abs=0.02)


def test_policies_of_one_or_two_methods_say_nothing_of_others():
    means = [*np.linspace(0, 9, 12)]
    for titles, right in ((["a"] * 12, False), (["a", "b"] * 6, False), (["a", "b", "c", "d"] * 3, True)):
        own = [pool(f"mpe/{k}", [*np.roll(means, k)], 0.0, titles) for k in range(8)]
        judged = judge([(one, ranked(one)) for one in own])
        assert (trust.trusted(judged, "mpe") is not None) == right


def test_selectors_of_other_datasets_compare_by_their_share_of_a_random_regret():
    common = {"datasets": 3, "policies": 9, "methods": 4, "rho": (0.9, 0.8, 1.0), "luck": 0.0}
    easy = trust.Judged("mpe", "critic", regret=(0.1, 0.1, 0.1), random_regret=0.2, **common)
    hard = trust.Judged("mpe", "fitted_q", regret=(0.2, 0.2, 0.2), random_regret=2.0, **common)
    assert trust.trusted([easy, hard], "mpe") == hard


def test_a_dataset_is_left_out_of_what_is_said_about_it():
    pools = [*favouring(np.random.default_rng(7), 3), *favouring(np.random.default_rng(8), 1, "smac")]
    scores = offline.scored(pools)
    without = offline.judge_without_each(scores)
    assert sorted(without) == ["mpe/0:expert", "mpe/1:expert", "mpe/2:expert", "smac/0:expert"]
    assert without["smac/0:expert"] == [] and {one.family for one in without["mpe/1:expert"]} == {"mpe"}
    left = [one for one in scores if one.dataset in ("mpe/0:expert", "mpe/2:expert")]
    assert without["mpe/1:expert"] == offline.judge(left) and {one.datasets for one in offline.judge(left)} == {2}


def test_a_resample_without_a_method_of_a_dataset_correlates_with_nothing():
    one, other = pool("mpe/a", [1, 2, 3], 0.0, ["a", "b", "c"]), pool("mpe/b", [1, 2, 3], 0.0, ["x", "y", "z"])
    scores = offline.scored([(own, said(own, critic=[1, 2, 3])) for own in (one, other)])
    found = [score.rho for score in scores if score.selector == "critic"]
    assert all(np.isfinite(rho).all() and (rho == 0).any() and rho[0] == pytest.approx(1) for rho in found)
