"""The form of a run's record: what store, reports and commands rely on. A record of another form counts as damaged."""

from typing import Any

ENDED = ("done", "failed", "diverged")  # what a run can have come to
CELL = ["task", "quality", "source", "algorithm", "variant", "profile", "seed"]
LARGEST = 1e15  # no number of a run is larger
SHAPE: dict[str, Any] = {  # a key that is a type stands for all keys
    "cell": {**dict.fromkeys(CELL, str), "seed": float},
    "evaluations": [{"step": float, "returns": [float], "won": [bool], "lengths": [float]}],
    "algorithm": {"title": str, "reduced": dict},
    "config": dict,
    "protocol": {"steps": float, "eval_episodes": float, "eval_noise": str, "data": str},
    "dataset": {"return_mean": float, "return_std": float, "sha256": str},
    "latency": {"joint_ms": float},
    "time": {str: float},
    "machine": {"device": str, "threads": float},
    "engine": {"rollout": str},
    "seeds": [float],
    "score": [float],
    "config_hash": str,
    "finished": str,
    "reason": str,
    "status": str,
    "run_id": str,
}


def formed(record: Any) -> bool:
    """Whether a record, as JSON gives it, names its cell and how it ended, and has no part of another kind."""
    if not (isinstance(record, dict) and _fits(record, SHAPE) and record.get("status") in ENDED):
        return False
    return bool(record.get("run_id")) and None not in [(record.get("cell") or {}).get(key) for key in CELL]


def evaluated(record: dict[str, Any]) -> bool:
    """Whether a record of this form has returns wherever it was evaluated, and was evaluated at all."""
    return bool(record.get("evaluations")) and all(look.get("returns") for look in record["evaluations"])


def _fits(value: Any, shape: Any) -> bool:
    """Whether a part of a record has the kinds that are relied on; what is not there is no fault."""
    if value is None:
        return True
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            _fits(part, shape.get(key, shape.get(str))) for key, part in value.items()
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(each is not None and _fits(each, shape[0]) for each in value)
    if shape is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
    return shape is None or isinstance(value, shape)
