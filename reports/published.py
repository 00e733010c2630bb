"""The numbers papers print, read from published/<name>.csv (scenario, dataset, method, mean, spread).

They were measured elsewhere, on another simulator and other hardware, and some were copied from earlier
papers: they stand beside ours so that rankings can be compared, and are never pooled with ours.
"""

import csv
from importlib import resources
from typing import Any

# Cells and averages are printed to one decimal, each up to 0.05 off: their difference is up to 0.1 off.
ROUNDING = 0.1 + 1e-9

# What a csv cannot say: the simulator, what the spread is, the tasks behind scenarios (where they have other names),
# which scenarios an average is over, and how far to trust the cells.
FACTS: dict[str, dict[str, Any]] = {
    "macflow_table1": {
        "engine": "real StarCraft II (SMAC and SMACv2)",
        "spread": "two standard deviations",
        "scenarios": {},
        "groups": {
            "SMACv1": {"3m", "8m", "2s3z", "5m_vs_6m", "2c_vs_64zg"},
            "SMACv2": {"terran_5_vs_5", "zerg_5_vs_5", "terran_10_vs_10"},
        },
        "provenance": "The paper's BC equals that in MADiff's README in 11 of 12 shared cells. The spread of "
        "copied cells is probably one standard deviation over five seeds, not two over six.",
    },
    "macflow_table2": {
        "engine": "MuJoCo 2.0 (OMIGA's data) and OMAR's particle worlds",
        "spread": "two standard deviations",
        "scenarios": {"6halfcheetah": "HalfCheetah", "3hopper": "Hopper", "2ant": "Ant", "spread": "Spread"},
        "groups": {"MA-MuJoCo": {"HalfCheetah", "Hopper", "Ant"}, "MPE": {"Spread"}},
        "provenance": "On Spread the paper's MATD3BC, MACQL and MADiff equal MADiff's README, and its ICQ and OMAR "
        "equal it with the two columns exchanged. Copied cells are probably one standard deviation over five seeds.",
    },
    "om2p_table1": {
        "engine": "MuJoCo 2.0 and OMAR's particle worlds with its pretrained prey",
        "spread": "one standard deviation",
        "scenarios": {
            **{"tag": "Predator-Prey", "world": "World", "spread": "Cooperative Navigation"},
            "2halfcheetah": "HalfCheetah-v2",
        },
        "groups": {name: {name} for name in ("Predator-Prey", "World", "Cooperative Navigation", "HalfCheetah-v2")},
        "provenance": "Returns of the predators are not comparable with ours: our prey is scripted.",
    },
}


def cells(name: str) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(task's short name, quality, method title) to (mean, spread as printed). ValueError if the table is unknown."""
    printed = _printed(name)
    tasks = {scenario: task for task, scenario in FACTS[name]["scenarios"].items()}
    return {(tasks.get(where, where), quality, method): number for (where, quality, method), number in printed.items()}


def printed_averages(name: str) -> dict[tuple[str, str], float]:
    """(group, method title) to the average that the paper prints."""
    averages = [row for row in _read(name) if row["scenario"].startswith("AVERAGE_")]
    return {(row["scenario"].removeprefix("AVERAGE_"), row["method"]): float(row["mean"]) for row in averages}


def lint(name: str) -> list[str]:
    """The printed averages that the table's own cells contradict by more than rounding, one line each."""
    findings = []
    for (group, method), printed in printed_averages(name).items():
        scenarios = FACTS[name]["groups"][group]
        own = [mean for (where, _, who), (mean, _) in _printed(name).items() if where in scenarios and who == method]
        mean = sum(own) / len(own)
        if abs(mean - printed) > ROUNDING:
            findings.append(f"{group} {method} {printed:.1f} (its {len(own)} cells average {mean:.2f})")
    return findings


def _printed(name: str) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(scenario, quality, method title) to (mean, spread)."""
    return {
        (row["scenario"], row["dataset"].lower(), row["method"]): (float(row["mean"]), float(row["spread"]))
        for row in _read(name)
        if not row["scenario"].startswith("AVERAGE_")
    }


def _read(name: str) -> list[dict[str, str]]:
    path = resources.files("offmarl.reports") / "published" / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"no published table named {name!r}; there is {', '.join(FACTS)}")
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
