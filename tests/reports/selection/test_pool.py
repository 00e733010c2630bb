"""Which trained policies make a pool, and which of them are one."""

import pytest

from offmarl.reports.selection import board
from offmarl.reports.selection.pool import pools


def run(seed=0, returns=(1.0, 2.0), status="done", weights="w", **config):
    cell = {"task": "mpe/spread", "quality": "expert", "source": "embedded", "algorithm": "bc", "variant": str(config)}
    evaluations = [{"step": 5, "play": "own", "returns": [0.0], "lengths": [25]}]
    evaluations += [{"step": 9, "play": "own", "returns": list(returns), "lengths": [25] * len(returns)}]
    return {
        "run_id": f"{seed} {config}",
        "status": status,
        "weights": weights,
        "cell": cell | {"seed": seed},
        "config": config,
        "protocol": {"steps": 9, "data": "d", "plays": ["own", "zero"]},
        "dataset": {"return_mean": 4.0},
        "evaluations": evaluations if status == "done" else [],
    }


def test_equal_policies_count_once_by_settings_or_by_weights_and_last_episodes():
    one, same, other = run(act_by="sample"), run(act_by="argmax"), run(act_by="other", returns=(1.0, 2.5))
    (pool,) = pools([one, same, run(seed=1, act_by="sample"), other])
    assert [policy.run_id for policy in pool.policies] == [one["run_id"], "1 {'act_by': 'sample'}", other["run_id"]]
    assert pool.equal == 1 and pool.policies[0].episodes.tolist() == [1.0, 2.0]
    (alike,) = pools([one, run(act_by="argmax", weights="v"), run(act_by="other", weights="")])
    assert len(alike.policies) == 3 and alike.equal == 0  # they behave alike, which nobody knows before they play
    (again,) = pools([one, run(act_by="sample", returns=(9.0, 9.0))])
    assert len(again.policies) == 1 and again.equal == 1  # trained twice


def test_policies_that_were_never_played_are_equal_only_by_settings_and_failures_are_none():
    (pool,) = pools([run(status="trained", a=1), run(status="trained", a=2), run(status="failed", a=3)])
    assert len(pool.policies) == 2 and pool.equal == 0 and not pool.policies[0].episodes.size
    assert (pool.low, pool.high) == (0.0, 4.0)


@pytest.mark.parametrize(
    ("facts", "scale"),
    [
        ({"dataset": {"return_mean": -20.0}}, (-40.0, -20.0)),
        ({"dataset": {"return_mean": 0.0}}, (0.0, 1.0)),
        ({"dataset": {"return_mean": -20.0}, "score": [-50.0, -5.0]}, (-50.0, -5.0)),
    ],
)
def test_a_higher_return_is_a_higher_score_where_all_returns_are_negative(facts, scale):
    (pool,) = pools([run(a=1, returns=(-10.0, -10.0)) | facts, run(a=2, returns=(-30.0, -30.0)) | facts])
    assert (pool.low, pool.high) == scale
    rows = board.rows_of(pool, (0, 100))
    assert all(row["regret"] >= 0 for row in rows)


def test_a_pool_of_one_policy_is_a_board_without_pairs():
    pool, *_ = pools([run()])
    rows = board.rows_of(pool, (0, 10, 100))
    assert [row["mean"] for row in rows] == pytest.approx([1.5] * len(rows))
    assert [row["regret"] for row in rows] == [0.0] * len(rows)
    assert board.changes(rows)[0, 100].pairs == 0


def test_a_method_without_policies_on_a_dataset_is_named_where_means_lack_it():
    other = run() | {"run_id": "tag"}
    other["cell"] = other["cell"] | {"task": "mpe/tag"}
    records = [run(), other, run(a=1, weights="v") | {"algorithm": {"title": "ICQ"}}]
    rows = [row for pool in pools(records) for row in board.rows_of(pool)]
    assert [method for method, *_ in board.board(rows)] == ["bc", board.EVERYONE]
    assert board.incomplete(rows).endswith("on some of 2 datasets: ICQ (1).")
    assert board.incomplete([row for row in rows if row["method"] != "ICQ"]) == ""
