import json
from functools import cache
from importlib import resources

import numpy as np
import pytest
import yaml
from duels import duel  # noqa: F401

from offmarl.reports.records.reader import Records
from offmarl.reports.selection import board, trust
from offmarl.reports.selection.pool import pools
from offmarl.reports.tables import build as tables

TITLES = {"bc": "BC", "flow_bc": "Flow BC", "mac_flow": "MAC-Flow"}
ENGINE = {"engine": "SMAX", "jaxmarl": "0.2.0", "jax": "0.10.2"}


SUITE = {
    "title": "Table 1: SMACv1 and SMACv2",
    "paper": "MAC-Flow (ICLR 2026), Table 1",
    "published": "macflow_table1",
    "algorithms": {"bc": "BC", "flow_bc": "Flow BC", "mac_flow": "MAC-Flow"},
    "groups": {"SMACv1": {"smac/3m": ["good", "medium", "poor"]}, "SMACv2": {"smacv2/zerg_5_vs_5": ["replay"]}},
}
# Mean return of each seed. Against the paper: same order, one pair of three exchanged, reversed, same order.
RETURNS = {
    ("smac/3m", "good"): {"bc": (15, 17), "flow_bc": (19, 20), "mac_flow": (18, 19)},
    ("smac/3m", "medium"): {"bc": (9, 11), "flow_bc": (8, 10), "mac_flow": (11, 13)},
    ("smac/3m", "poor"): {"bc": (5, 5), "flow_bc": (4, 4), "mac_flow": (3, 3)},
    ("smacv2/zerg_5_vs_5", "replay"): {"bc": (7, 7), "flow_bc": (5, 5), "mac_flow": (9, 9)},
}


@pytest.fixture(scope="session")
def write_run():
    """Put one run.json into a store as runs write it, over an earlier one of its name; its directory.

    Without `final`, a failed run with the fewest keys allowed. `reduced` is the sizes that fall short of the paper's;
    None: an older record, which does not say. Any other keyword replaces a part of the record.
    """

    def write(
        results, task, quality, algorithm, seed, final, *, hash="aaaa1111", finished="2026-01-01", reduced=None, **over
    ):
        parts = {"source": "embedded", "variant": "quick", "profile": "quick"}
        parts = {key: over.pop(key, value) for key, value in parts.items()}
        cell = {"task": task, "quality": quality, "algorithm": algorithm, "seed": seed, **parts}
        where = "".join(f".{word}" for word in parts.values() if word not in ("quick", "embedded"))
        run_id = f"{task.replace('/', '-')}.{quality}.{algorithm}.quick{where}.s{seed}.{hash}"
        record = {"schema": 1, "cell": cell, "run_id": run_id, "status": "failed", "reason": over.get("reason")}
        if final is not None:
            facts = {"name": algorithm, "title": TITLES.get(algorithm, "Mine | x")}
            episodes = [
                {"step": step, "returns": [final + shift - gain] * 2 + [final - shift - gain] * 2}
                for step, gain, shift in [(1000, 2, 1), (2000, -0.5, 1), (3000, 0, 1)]
            ]
            record |= {
                "status": "done",
                "algorithm": facts if reduced is None else facts | {"reduced": reduced},
                "config_hash": hash,
                "protocol": {"steps": 3000, "eval_every": 1000, "eval_episodes": 4, "plays": ["own"]},
                "dataset": {"sha256": task + quality, "return_mean": 12.5, "return_std": 4.0},
                "engine": ENGINE,
                "evaluations": [each | {"won": [True, False, False, False], "lengths": [9] * 4} for each in episodes],
                "latency": {"joint_ms": {"bc": 0.2, "flow_bc": 1.5}.get(algorithm, 0.25), "n": 200},
                "time": {"update_s": 30.0, "evaluate_s": 4.0, "total_s": 34.0},
                "machine": {"device": "a processor"},
                "finished": finished,
            } | over
        place = results / "runs" / run_id
        place.mkdir(parents=True, exist_ok=True)
        (place / "run.json").write_text(json.dumps(record))
        return place

    return write


@pytest.fixture(scope="session")
def suite():
    """The suite that RETURNS are of."""
    return SUITE


@pytest.fixture(scope="session")
def datasets():
    """Every task and quality in RETURNS."""
    return list(RETURNS)


@pytest.fixture(scope="session")
def build(suite):
    """The suite's table of a store."""

    def make(results, other=None, unavailable=None):
        return tables.build(Records.read(results), other or suite, "smac", "quick", "embedded", unavailable or {})

    return make


@pytest.fixture(scope="session")
def fill(write_run):
    """Put the runs of RETURNS into a store, without those of the (task, quality, algorithm) to skip."""

    def fill(results, skip=()):
        for (task, quality), methods in RETURNS.items():
            for algorithm, finals in methods.items():
                for seed, final in enumerate(finals):
                    if (task, quality, algorithm) not in skip:
                        write_run(results, task, quality, algorithm, seed, final)
        return results

    return fill


@pytest.fixture
def store(tmp_path, fill):
    return fill(tmp_path)


@pytest.fixture(scope="session")
def suites():
    """The suites that offmarl has, by name."""
    folder = resources.files("offmarl.experiments.grid") / "suites"
    return {name: yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("smac", "continuous", "om2p")}


@pytest.fixture(scope="session")
def whole_store(tmp_path_factory, write_run, suites):
    """Every cell of every suite at the quick profile's size: two seeds, one evaluation of 32 episodes, settings."""
    results, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    settings = {f"setting_{k}": [128, 128] if k % 3 else 0.001 * k for k in range(25)}
    cells = {
        (task, quality, method): None
        for suite in suites.values()
        for group in suite["groups"].values()
        for task, qualities in group.items()
        for quality in qualities
        for method in suite["algorithms"]
    }
    for (task, quality, method), seed in ((cell, seed) for cell in cells for seed in (0, 1)):
        returns = rng.normal(10, 4, 32).round(5).tolist()
        look = {"step": 1200, "returns": returns, "won": [value > 12 for value in returns], "lengths": [60] * 32}
        facts = {"evaluations": [look], "config": settings, "score": [0.0, 20.0]}
        write_run(results, task, quality, method, seed, 0.0, **facts)
    return results


@pytest.fixture(scope="session")
def tuned():
    """A method that gained, one that the paper's settings suit best, and one whose paper trial diverged."""
    facts = {
        "suite": "smac",
        "family": "smac",
        "profile": "quick",
        "steps": 1000,
        "seeds": [0, 1],
        "date": "2026-01-02",
    }
    facts |= {"data": {"smac/3m:poor": "a", "smac/5m_vs_6m:good": "b"}, "stale": ""}

    def choice(title, paper, chosen, scores):
        trials = [{"settings": {"alpha": value}, "scores": own} for value, own in scores.items()]
        return facts | {"title": title, "paper": {"alpha": paper}, "settings": {"alpha": chosen}, "trials": trials}

    return [
        choice("Gained", 3.0, 1.0, {1.0: [0.4, 0.8], 3.0: [0.5, 0.5]}),
        choice("Kept", 3.0, 3.0, {1.0: [0.4, 0.5], 3.0: [0.5, 0.5]}),
        choice("<Lost>", 3.0, 1.0, {1.0: [0.4, 0.5], 3.0: []}) | {"stale": "the code of method has changed since"},
    ]


@pytest.fixture(scope="session")
def write_selection():
    """Put into a store of known numbers what `offmarl select --offline` stores of its runs."""

    @cache
    def known(results):
        runs = [run for run in Records.read(results).by_run.values() if run["status"] == "done"]
        facts = {"profile": "quick", "source": "embedded"}
        found = pools(run | {"config": {}} for run in runs if facts.items() <= run["cell"].items())
        facts |= {"suite": "smac", "title": "Table 1", "data_share": 1.0, "missing": ["bc: 1 of 2 runs on 3m:good"]}
        facts |= {"rows": [row for pool in found for row in board.rows_of(pool)]}
        facts |= {"pools": {f"{one.task}:{one.quality}:{one.source}": board.counted_once(one) for one in found}}
        facts |= {"runs": {"a run": "2026-01-02"}}
        judged = trust.Judged("smac", "fitted_q", 3, 20, 4, (0.8, 0.7, 0.9), (0.1, 0.0, 0.2), 0.4, 0.01)
        found = {"profile": "quick", "runs": facts["runs"], "held_out": True, "judged": [judged._asdict()]}
        return {"select": facts, "trust": found}

    place: list = []  # of the first store: all are alike

    def write(results):
        place.append(results)
        for kind, record in known(place[0]).items():
            path = results / "measurements" / kind / "smac-embedded-quick-1.0.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record))

    return write
