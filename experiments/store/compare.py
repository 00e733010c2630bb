"""Whether two trainings of one run gave the same results."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from offmarl.experiments.store.store import Store

RTOL, ATOL = 1e-3, 1e-4  # seeds that train together are summed in another order than alone


class Row(NamedTuple):
    """One comparison; `exact` where every bit is the same."""

    what: str
    same: bool
    verdict: str
    exact: bool = False


def outcome(store: Store, run_id: str) -> dict[str, dict[str, np.ndarray]]:
    """All that must not depend on when and how often a run was interrupted: returns, curves and weights.

    A run that came in a file of records has returns alone.
    """
    folder, record = store.runs / run_id, store.peek(run_id) or {"evaluations": []}
    found = {"returns": {f"step {e['step']}, {e['play']}": np.asarray(e["returns"]) for e in record["evaluations"]}}
    if held_out := record.get("held_out"):
        found = {"agreement": {f"step {e['step']}, {e['play']}": np.asarray(e["agreement"]) for e in held_out}}
    if (curves := folder / "curves.parquet").exists():
        found["curves"] = {str(name): column.to_numpy() for name, column in pd.read_parquet(curves).items()}
    if (checkpoint := folder / "checkpoint.pt").exists():
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
        found["weights"] = {name: np.asarray(value) for name, value in weights.items()}
    return found


def compare(store: Store, again: Store, run_id: str, by_chance: bool = False) -> list[Row]:
    """Returns, curves and weights of two trainings of a run: equal to the bit, to tolerance, or not.

    Returns that are `by_chance`, those of a simulator which no seed repeats, are not judged.
    """
    before, after = outcome(store, run_id), outcome(again, run_id)
    if "weights" in before:  # the policies that ship have only what acts
        after["weights"] = {name: value for name, value in after["weights"].items() if name in before["weights"]}
    rows = [_judge(what, before[what], after[what]) for what in before]
    if by_chance:
        rows[0] = Row("returns", True, "not judged: no seed controls the game's randomness; curves and weights decide")
    return rows


def _judge(what: str, before: dict[str, Any], after: dict[str, Any]) -> Row:
    """How close two sets of arrays are."""
    shapes = [{name: value.shape for name, value in one.items()} for one in (before, after)]
    if shapes[0] != shapes[1]:
        return Row(what, False, "not the same: other steps, names or shapes")
    pairs = [(value, after[name]) for name, value in before.items()]
    if all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
        return Row(what, True, "the same bit for bit", exact=True)
    furthest = max(float(np.nanmax(np.abs(a - b), initial=0.0)) for a, b in pairs)
    if all(np.allclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True) for a, b in pairs):
        return Row(what, True, f"the same to tolerance (relative {RTOL}, absolute {ATOL}; furthest {furthest:.2g} off)")
    return Row(what, False, f"not the same (furthest {furthest:.2g} off)")
