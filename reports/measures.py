"""The measures of a dataset in words, as `datasets.measures` has them."""

from collections.abc import Mapping
from typing import Any

WEAK = "weak dependence is underestimated: 0.1 nats of memory measure as 0.04 in 6,000 transitions"  # as calibrated


def described(measures: Mapping[str, Any]) -> dict[str, str]:
    """Each measure's name and its value in a few words."""
    coverage, freedom = measures["coverage"], measures["freedom"]
    found = {
        "returns": _distribution(measures["returns"]),
        "episode lengths": _distribution(measures["lengths"]),
        "nothing further gained in the episode": f"in {measures['settled']:.1%} of transitions",
        "joint coverage (SACo)": f"{coverage['saco']:.4f}",
        "agents’ coverage (OACo)": f"{coverage['oaco']:.4f}",
        "joint pairs by occurrences": _curve(coverage["curve"]),
        "entropy of actions over time": _over_time(freedom["entropy"]),
        "entropy of even play": _over_time(freedom["even"]),
    }
    if "coordination" not in measures:
        return found | {"coordination, memory, conventions": "not measured: too few episodes"}
    conventions, looked = measures["conventions"], measures["looked_at"]
    number = f"{conventions['number']}{' or more' * (conventions['number'] >= conventions['at_most'])}"
    recorded = f"recorded by {conventions['recorded_by']} behaviours"
    return found | {
        "uncertainty of the joint action": f"{measures['uncertainty']:.3f} nats a step by own observations",
        "coordination": _nats(measures["coordination"]),
        "memory": _nats(measures["memory"]),
        "conventions": f"{number}, gain {conventions['gain']:.3f} nats a step; {recorded}",
        "networks saw": f"{looked['transitions']:,} transitions of {looked['episodes']:,} episodes; {WEAK}",
    }


def related(relation: Mapping[str, float], one: str, other: str) -> dict[str, str]:
    """What two datasets have in common, in words."""
    found = {
        f"pairs of {one} that {other} has": f"{relation['overlap']:.1%}",
        f"pairs of {other} that {one} has": f"{relation['overlap_back']:.1%}",
    }
    if "difference" not in relation:
        return found
    difference, error = relation["difference"], 2 * relation["difference_error"]
    return found | {f"difference of actions from {other}": f"{difference:.3f} ± {error:.3f} nats a step"}


def _distribution(facts: Mapping[str, Any]) -> str:
    low, *_, high = facts["quartiles"]
    text = f"{facts['mean']:.4g} ± {facts['deviation']:.4g}, from {low:.4g} to {high:.4g}"
    if facts["skew"] is None:
        return f"{facts['mean']:.4g}, all equal"
    modes = f"{facts['modes']} mode{'s' * (facts['modes'] != 1)}"
    return f"{text}; skew {facts['skew']:.2f}, excess kurtosis {facts['kurtosis']:.2f}, {modes}"


def _curve(counts: list[int]) -> str:
    names = ["once", *(f"{2**k} to {2 ** (k + 1) - 1} times" for k in range(1, len(counts)))]
    return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts) if count)


def _over_time(values: list[float | None]) -> str:
    return " ".join("–" if value is None else f"{value:.2f}" for value in values) + " nats, by tenths of the time"


def _nats(facts: Mapping[str, float]) -> str:
    net = f"{facts['nats']:.3f} ± {2 * facts['error']:.3f} nats a step"
    return f"{net} (gain {facts['gain']:.3f}, permuted {facts['null']:.3f})"
