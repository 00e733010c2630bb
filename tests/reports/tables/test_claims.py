"""Verdicts on a paper's claims, from stores of known numbers."""

import itertools

import pytest

from offmarl.reports.tables import claims

AHEAD = {"rule": "ahead", "text": "is ahead", "method": "mac_flow", "others": ["bc", "flow_bc"], "groups": ["SMACv1"]}
GAINS = {"rule": "gains", "text": "gains", "method": "mac_flow", "others": ["bc"], "groups": ["SMACv1"]}
GAINS |= {"quality": "poor", "than": ["medium", "good"]}
FASTER = {"rule": "faster", "text": "is faster", "method": "mac_flow", "others": ["flow_bc"]}


@pytest.fixture
def verdict(tmp_path, write_run, build, suite):
    """A claim's outcome where each method has these mean returns on good, medium and poor data, within `spread`."""

    def judge(claim, spread=0.5, seeds=5, **finals):
        for method, means in finals.items():
            for quality, mean in zip(("good", "medium", "poor"), means):
                for seed in range(seeds):
                    final = mean + spread * (seed - (seeds - 1) / 2)
                    write_run(tmp_path, "smac/3m", quality, method, seed, final)
        (found,) = claims.judge(build(tmp_path), suite | {"claims": [claim]})
        return found.outcome

    return judge


def test_a_method_above_all_others_in_every_seed_is_ahead(verdict):
    assert verdict(AHEAD, mac_flow=(18, 12, 9), bc=(14, 9, 5), flow_bc=(15, 10, 5)) == "holds"


def test_one_method_surely_above_it_refutes_the_claim(verdict):
    assert verdict(AHEAD, mac_flow=(18, 12, 9), bc=(14, 9, 5), flow_bc=(22, 16, 14)) == "does not hold"


@pytest.mark.parametrize("few", [{"spread": 6.0}, {"seeds": 2}])
def test_a_difference_within_the_noise_or_of_too_few_seeds_tells_nothing(verdict, few):
    assert verdict(AHEAD, mac_flow=(18, 12, 9), bc=(17, 11, 8), flow_bc=(17, 11, 8), **few) == "cannot tell"


def test_a_claim_about_a_method_that_has_not_run_is_open(verdict):
    assert verdict(AHEAD, mac_flow=(18, 12, 9), bc=(14, 9, 5)) == "cannot tell"


def test_within_five_percent_is_judged_against_that_share(verdict):
    behind = {"mac_flow": (19.4, 12.3, 5.8), "bc": (20, 12.6, 6), "flow_bc": (10, 5, 2)}  # three percent behind BC
    assert verdict(AHEAD, spread=0.05, **behind) == "does not hold"
    assert verdict(AHEAD | {"at_least": 0.95}, spread=0.05, **behind) == "holds"


def test_a_share_of_a_negative_score_lies_below_it(verdict):
    equal = dict.fromkeys(("mac_flow", "bc", "flow_bc"), (-10, -10, -10))
    assert verdict(AHEAD | {"at_least": 0.95}, spread=0.01, **equal) == "holds"
    assert verdict(AHEAD | {"at_least": 1.05}, spread=0.01, **equal) == "does not hold"


@pytest.fixture
def times(tmp_path, write_run, build, suite):
    """The comparison of decisions where Flow BC takes so many times as long on each task as MAC-Flow's mean seed."""

    def judge(ratios, qualities=("good",), seeds=(1.0, 1.0), least=5.0):
        tasks = dict.fromkeys(["smac/3m", "smac/8m", "smac/2s3z", "smac/5m_vs_6m", "smac/2c_vs_64zg"][: len(ratios)])
        own = suite | {"groups": {"SMACv1": dict.fromkeys(tasks, list(qualities))}}
        for (task, ratio), quality in itertools.product(zip(tasks, ratios), qualities):
            for seed, ms in enumerate(seeds):
                for method, taken in ("mac_flow", ms), ("flow_bc", ratio * sum(seeds) / len(seeds)):
                    write_run(tmp_path, task, quality, method, seed, 1.0, latency={"joint_ms": taken, "n": 9})
        (found,) = claims.judge(build(tmp_path, own), own | {"claims": [FASTER | {"times": least}]})
        return found.outcome, found.why

    return judge


def test_times_of_decisions_are_compared_by_their_ratio(times):
    assert times([6.0, 6.1, 5.9])[0] == "holds" and times([6.0, 6.1, 5.9], least=7.0)[0] == "does not hold"


def test_a_decisions_time_is_its_mean_over_seeds_in_any_order(times):
    for seeds in ([1, 1, 1, 1, 4], [4, 1, 1, 1, 1]):
        assert "12.5 times as long" in times([12.5, 12.5, 12.5], seeds=seeds)[1]


def test_a_tasks_qualities_are_no_more_samples_of_its_times(times):
    ratios = [13.0, 16.0, 19.0, 22.0, 24.0]
    assert times(ratios, least=14.5) == times(ratios, ("good", "medium", "poor"), least=14.5)


def test_gains_are_compared_between_qualities(verdict):
    assert verdict(GAINS, bc=(16, 10, 4), mac_flow=(16.5, 11, 12), flow_bc=(1, 1, 1)) == "holds"
    assert verdict(GAINS, bc=(16, 10, 4), mac_flow=(24, 18, 5), flow_bc=(1, 1, 1)) == "does not hold"


def test_every_claim_of_the_suites_has_a_rule(suites):
    stated = [claim for suite in suites.values() for claim in suite["claims"]]
    assert {claim["rule"] for claim in stated} == set(claims.COMPARE)
