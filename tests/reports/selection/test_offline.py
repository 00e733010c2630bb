"""Which offline selector can be trusted."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from offmarl.reports.selection import offline
from offmarl.reports.selection.pool import Policy, Pool


def pool(task, means, spread=0.1):
    rng = np.random.default_rng(len(means))
    episodes = [mean + spread * rng.standard_normal(20) for mean in means]
    policies = [Policy(f"{task} {k}", "bc", "BC", "paper", k, own) for k, own in enumerate(episodes)]
    return Pool(task, "expert", "embedded", policies, 0.0, 10.0)


def said(own, **values):
    return {
        "selectors": {
            name: {policy.run_id: value for policy, value in zip(own.policies, numbers)}
            for name, numbers in values.items()
        }
    }


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
    one, other = pool("mpe/spread", [1, 2, 3, 4, 5, 6, 7]), pool("mpe/tag", [7, 6, 5, 4, 3, 2, 1])
    right, wrong = (
        {"fitted_q": [1, 2, 3, 4, 5, 6, 7], "critic": [7, 6, 5, 4, 3, 2, 1]},
        {"fitted_q": [9, 8, 7, 6, 5, 4, 3], "critic": [1, 2, 3, 4, 5, 6, 7]},
    )
    judged = offline.judge([(one, said(one, **right)), (other, said(other, **wrong))])
    by = {row.selector: row for row in judged}
    assert by["fitted_q"].rho[0] == pytest.approx(1.0) and by["fitted_q"].regret[0] == pytest.approx(0.0, abs=1e-9)
    assert by["critic"].rho[0] == pytest.approx(-1.0) and by["critic"].regret[0] == pytest.approx(0.6, abs=0.02)
    assert by["random"].regret[0] == pytest.approx(0.3, abs=0.01) == by["fitted_q"].random
    assert by["fitted_q"].luck == pytest.approx(1 / 49, abs=0.006) and by["critic"].luck > 0.9
    assert offline.trusted(judged, "mpe") == by["fitted_q"] and offline.trusted(judged, "smac") is None
    assert "mpe: fitted Q evaluation" in offline.markdown(judged, True)


def test_a_selector_is_compared_with_chance_on_the_datasets_that_it_knows():
    close, apart = [1.0, 1.1, 1.2, 1.3], [1.0, 4.0, 7.0, 10.0]
    known = [pool(name, close) for name in ("mpe/spread", "mpe/tag")]
    pools = [(own, said(own, critic=[4, 3, 2, 1])) for own in known]
    pools += [(own, said(own)) for own in [pool(f"mpe/other{k}", apart) for k in range(4)]]
    by = {row.selector: row for row in offline.judge(pools)}
    assert by["critic"].random == pytest.approx(0.015, abs=0.01) and by["random"].regret[0] > 0.2
    assert by["critic"].regret[0] > by["critic"].random and not by["critic"].trusted


def test_datasets_have_draws_of_their_own():
    """Six equal pools: with the same draws for all, their mean would have the interval of one."""
    many = [pool("mpe/spread", [1, 2, 3, 4], spread=3.0) for _ in range(6)]
    wide = [
        next(row for row in offline.judge([(own, said(own)) for own in pools]) if row.selector == "random").regret
        for pools in (many[:1], many)
    ]
    one, six = (high - low for _, low, high in wide)
    assert six < 0.6 * one


def test_nobody_is_trusted_by_one_dataset_or_by_noise():
    own = pool("mpe/spread", [1, 2, 3, 4])
    judged = offline.judge([(own, said(own, fitted_q=[1, 2, 3, 4]))])
    assert offline.trusted(judged, "mpe") is None and "none can be trusted" in offline.markdown(judged, False)
    noisy = [pool(name, [1.0, 1.01, 1.02, 1.03], spread=3.0) for name in ("mpe/spread", "mpe/tag")]
    judged = offline.judge([(own, said(own, fitted_q=[1, 2, 3, 4])) for own in noisy])
    assert offline.trusted(judged, "mpe") is None


def test_a_policy_without_a_number_is_not_chosen():
    own = pool("mpe/spread", [1, 2, 3, 9])
    given = said(own, critic=[1.0, 2.0, 3.0, None], best=[1.0, None, None, None])
    found = offline.one_pool(own, given["selectors"])
    assert found["critic"].policies == 3 and found["critic"].regret[0] == pytest.approx(0.6, abs=0.02)
    assert "best" not in found


def test_a_selector_that_likes_several_alike_chooses_any_of_them():
    own = pool("mpe/spread", [1, 2, 3, 9])
    found = offline.one_pool(own, said(own, critic=[0.0, 5.0, 5.0, 5.0])["selectors"])
    assert found["critic"].regret[0] == pytest.approx((0.7 + 0.6 + 0.0) / 3, abs=0.02)


def test_an_interval_is_over_policies_too_so_that_chance_earns_no_trust():
    """Episodes without noise: all that is uncertain is which policies were trained."""
    rng, trusted = np.random.default_rng(3), 0
    for _ in range(40):
        own = [pool(name, rng.permutation(12).astype(float), spread=0.0) for name in ("mpe/spread", "mpe/tag")]
        judged = offline.judge([(one, said(one, critic=rng.permutation(12).astype(float))) for one in own])
        trusted += offline.trusted(judged, "mpe") is not None
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
        judged = offline.judge([(a, said(a, critic=b)) for a, b in zip(own, numbers)])
        trusted += offline.trusted(judged, "mpe") is not None
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
        judged = offline.judge([(a, said(a, critic=b)) for a, b in zip(own, numbers)])
        trusted += offline.trusted(judged, "mpe") is not None
    assert trusted <= 3


def test_an_infinite_value_is_nobodys_favourite():
    own = pool("mpe/x", [5.0, 1.0, 2.0, 3.0, 4.0], spread=0.0)
    values = {policy.run_id: value for policy, value in zip(own.policies, [2.0, np.inf, 1.0, 0.0, 0.5])}
    assert offline.one_pool(own, {"critic": values})["critic"].regret[0] == pytest.approx(0.0)
