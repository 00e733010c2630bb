"""What data predict: rank correlations of measures and gains, told only where results suffice."""

from types import SimpleNamespace

import numpy as np
import pytest

from offmarl.reports.tables.predictions import Point, answers, correlated


def table(gains, method="mac_flow", other="ma_fql", lost=()):
    """A table in which the one method's score exceeds the other's by these gains: (task, quality) to gain."""
    runs = []
    for (task, quality), gain in gains.items():
        for name, score in ((method, 0.5 + gain), (other, 0.5)):
            run = {
                "task": task,
                "quality": quality,
                "algorithm": name,
                "seed": 0,
                "final": 10 * score,
                "unit": "return",
            }
            runs.append(run | {"dataset_mean": 10.0, "score": None, "n_lost": int((task, quality) in lost)})
    return SimpleNamespace(main_runs=runs, titles={method: "One", other: "Other"})


def measured(values):
    return {
        place: {"coordination": {"nats": value}, "returns": {"deviation": value, "mean": -1.0}}
        for place, value in values.items()
    }


PLACES = [(f"smac/{task}", quality) for task in "abcdef" for quality in ("good", "poor")]


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "does not hold")])
def test_a_measure_that_orders_the_gains_is_told(sign, verdict):
    values = {place: 0.1 * k for k, place in enumerate(PLACES)}
    gains = {place: sign * (0.02 * k - 0.05) for k, place in enumerate(PLACES)}
    coordination, memory, spread = answers([table(gains)], measured(values))
    assert coordination.correlation == pytest.approx(sign)
    assert coordination.left_out == pytest.approx((sign, sign)) and coordination.verdict == verdict
    assert coordination.by_pair[0][:2] == ("One – Other", 12)
    assert [point.gain for point in coordination.points] == pytest.approx([gains[place] for place in PLACES])
    assert memory.verdict == spread.verdict == "cannot tell" and memory.points == []


def test_equal_gains_have_nothing_to_do_with_the_spread_that_the_datas_mean_divides():
    """Everywhere two points more and a deviation of one; only the means of a task's datasets differ."""
    means = {(task, quality): {"good": 20.0, "poor": 5.0}[quality] for task, quality in PLACES}
    found = table(dict.fromkeys(PLACES, 0.2), "macql", "bc")
    for run in found.main_runs:
        run["dataset_mean"] = means[run["task"], run["quality"]]
    data = {place: {"returns": {"deviation": 1.0, "mean": mean}} for place, mean in means.items()}
    *_, spread = answers([found], data)
    assert {round(point.gain, 9) for point in spread.points} == {0.1} and spread.verdict == "cannot tell"


def test_noise_cannot_tell():
    rng = np.random.default_rng(3)
    points = [Point(task, quality, *rng.normal(size=2), 1) for task, quality in PLACES]
    _, (low, high), _ = correlated(points)
    assert low < 0 < high


@pytest.mark.parametrize("kept", [PLACES[:10], [("smac/a", f"q{k}") for k in range(9)]])
def test_few_tasks_cannot_tell(kept):
    values = {place: float(k) for k, place in enumerate(kept)}
    found = answers([table(values)], measured(values))[0]
    assert found.verdict == "cannot tell" and found.correlation is None and len(found.points) == len(kept)


@pytest.mark.parametrize("gain", [0.2, 0.3])
def test_gains_that_are_equal_but_on_one_task_tell_nothing(gain):
    """A correlation without that task is undefined, and the other ones must not speak for it."""
    values = {place: float(k) for k, place in enumerate(PLACES)}
    gains = {place: gain if place[0] == "smac/f" else 0.2 for place in PLACES}
    found = answers([table(gains)], measured(values))[0]
    assert found.correlation is None and found.verdict == "cannot tell" and len(found.points) == 12


def test_lost_seeds_and_unmeasured_data_take_no_part():
    gains = dict.fromkeys(PLACES, 0.1)
    values = dict.fromkeys(PLACES[1:], 1.0) | {("mpe/spread", "expert"): 1.0}
    found = answers([table(gains, lost=PLACES[-1:])], measured(values) | {PLACES[1]: {"returns": {}}})[0]
    assert [(point.task, point.quality) for point in found.points] == PLACES[2:-1]


def test_a_correlation_that_one_task_makes_is_told_by_leaving_it_out():
    gains = [3, 1, 2, 2, 3, 1, 1, 2, 3, 90, 91, 92]
    points = [
        Point(f"t/{'abcd'[k // 3]}", f"q{k}", float(k % 3 + 50 * (k > 8)), gain, 1) for k, gain in enumerate(gains)
    ]
    whole, _, (least, most) = correlated(points)
    assert least < 0.2 < whole - 0.2 and most >= whole
