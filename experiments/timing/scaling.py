"""How the time of a decision grows with the team and with the steps of denoising: MAC-Flow's Table 3, measured.

Teams are made up: agents of 3m's sizes, so many of them. Methods have the papers' sizes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.algorithms.parts.diffusion import shortened
from offmarl.benchmarks.latency import Decisions, Observation, time_decisions
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing.isolated import apart, measure_all, source
from offmarl.experiments.training.machine import Host
from offmarl.reports.tables.speed import exponent

AGENTS, CALLS = (2, 4, 8, 16, 32, 64), (1, 2, 4, 8)
OBS, STATE, ACTIONS = 30, 48, 9
SIGHTS = 16
SLOWER = 5.0  # times that a team of twice as many agents may take


def team(algorithm: str, agents: int, calls: int, device: str) -> Algorithm:
    """A method of paper size, freshly initialised, whose chain of denoising takes so many calls."""
    method = registry()[algorithm]
    made = method(TaskSpec(agents, OBS, STATE, ACTIONS, "discrete" in method.actions), method.Config(), [0], device)
    made.chain = shortened(made.chain, calls)
    return made


def measure_team(algorithm: str, agents: int, calls: int, host: Host, seconds: float) -> dict[str, Any]:
    """Milliseconds of a joint decision and of one agent's, at one size of team and length of chain."""
    rng = np.random.default_rng(0)
    made = team(algorithm, agents, calls, host.device)
    legal = np.ones((agents, ACTIONS), bool) if made.spec.discrete else None
    sights: list[Observation] = [(rng.random((agents, OBS), np.float32), legal) for _ in range(SIGHTS)]
    joint = time_decisions(Decisions(made, host.device), sights, seconds, least=1)
    point = {"agents": agents, "calls": calls, "nfe": made.nfe(), "total_ms": joint.median_ms, "n": joint.n}
    if made.execution != "decentralised":
        return point | {"agent_ms": joint.median_ms}
    made.stand_alone(0)
    own = [(obs[:1], None if legal is None else legal[:1]) for obs, legal in sights]
    return point | {"agent_ms": time_decisions(Decisions(made, host.device), own, seconds, least=1).median_ms}


def measure_growth(algorithm: str, host: Host, seconds: float, limit: float) -> dict[str, Any]:
    """All sizes of team at one call, while a decision should stay within `limit` seconds, and all lengths of chain."""
    host.set_up()
    teams: list[dict[str, Any]] = []
    for agents in AGENTS:
        if teams and 1e-3 * SLOWER * teams[-1]["total_ms"] > limit:
            break
        teams.append(measure_team(algorithm, agents, 1, host, seconds))
    chained = len(team(algorithm, AGENTS[0], 1, host.device).chain.time) > 0
    chains = [measure_team(algorithm, AGENTS[0], calls, host, seconds) for calls in CALLS] if chained else []
    return {
        "algorithm": algorithm,
        "title": registry()[algorithm].title,
        "teams": teams,
        "chains": chains,
        "left_out": [agents for agents in AGENTS if agents not in [point["agents"] for point in teams]],
        **source(host),
    }


def scaling(
    algorithms: Sequence[str],
    host: Host,
    seconds: float,
    limit: float,
    store: Store,
    progress: Callable[[Sequence[str]], Iterable[str]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure and store every method's growth; returns the rows, and what could not be measured."""
    return measure_all(
        progress(algorithms),
        lambda algorithm: apart(measure_growth, algorithm, host, seconds, limit),
        store,
        "scaling",
        lambda row: f"{row['algorithm']}.{row['machine']['device']}-{host.threads}",
    )


def exponents(row: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Of the number of agents and of the length of the chain: in one agent's time, and in the team's."""
    found = {}
    for cost in ("agent", "total"):
        both = ((row["teams"], "agents"), (row["chains"], "calls"))
        found[cost] = tuple(
            exponent([p[size] for p in points], [p[f"{cost}_ms"] for p in points]) for points, size in both
        )
    return found


def table(rows: Sequence[dict[str, Any]], orders: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    """Milliseconds by agents at one call of the network, and the fitted exponents beside the paper's."""
    head = f"{'method':12} {'cost':6}" + "".join(f"{f'I={agents}':>11}" for agents in AGENTS)
    lines = [head + "  exponents of I, K (paper)"]
    for row in rows:
        for cost, fitted in exponents(row).items():
            times = {point["agents"]: point[f"{cost}_ms"] for point in row["teams"]}
            cells = "".join(f"{times[a]:11,.3f}" if a in times else f"{'-':>11}" for a in AGENTS)
            paper = orders.get(row["algorithm"], {}).get(cost)
            said = ", ".join("-" if np.isnan(value) else f"{value:.2f}" for value in fitted)
            lines.append(
                f"{row['algorithm']:12} {cost:6}{cells}  {said} ({', '.join(map(str, paper)) if paper else '-'})"
            )
    lines.append(
        "ms of a decision at one denoising step; agent: one alone, total: the team on one host; -: over --limit."
    )
    return "\n".join(lines)
