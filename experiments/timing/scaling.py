"""How the time of a decision grows with the agents and with the denoising steps: MAC-Flow's Table 3, measured.

Teams are synthetic: agents with 3m's observations and actions. Methods have the papers' sizes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.algorithms.parts.diffusion import shortened
from offmarl.benchmarks.latency import Decisions, Observation, time_decisions
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing.isolated import isolated, measure_all, place_of, text_table
from offmarl.experiments.training.machine import Host, provenance
from offmarl.reports.tables.speed import exponent

AGENTS, CALLS = (2, 4, 8, 16, 32, 64), (1, 2, 4, 8)
OBS, STATE, ACTIONS = 30, 48, 9
OBSERVATIONS = 16
SLOWER = 5.0  # times that doubling the agents may cost


def team(algorithm: str, agents: int, calls: int, device: str) -> Algorithm:
    """A method of paper size, freshly initialised, that denoises with `calls` calls of its network."""
    method = registry()[algorithm]
    made = method(TaskSpec(agents, OBS, STATE, ACTIONS, "discrete" in method.actions), method.Config(), [0], device)
    made.chain = shortened(made.chain, calls)
    return made


def measure_team(algorithm: str, agents: int, calls: int, host: Host, seconds: float) -> dict[str, Any]:
    """Milliseconds of a joint decision and of one agent's, at one number of agents and of denoising steps."""
    rng = np.random.default_rng(0)
    made = team(algorithm, agents, calls, host.device)
    legal = np.ones((agents, ACTIONS), bool) if made.spec.discrete else None
    observations: list[Observation] = [(rng.random((agents, OBS), np.float32), legal) for _ in range(OBSERVATIONS)]
    joint = time_decisions(Decisions(made, host.device), observations, seconds, least=1)
    point = {"agents": agents, "calls": calls, "nfe": made.nfe(), "total_ms": joint.median_ms, "n": joint.n}
    if made.execution != "decentralised":
        return point | {"agent_ms": joint.median_ms}
    made.keep_agent(0)
    own = [(obs[:1], None if legal is None else legal[:1]) for obs, legal in observations]
    return point | {"agent_ms": time_decisions(Decisions(made, host.device), own, seconds, least=1).median_ms}


def measure_growth(algorithm: str, host: Host, seconds: float, limit: float) -> dict[str, Any]:
    """All numbers of agents while a decision should stay within `limit` seconds, and all numbers of denoising steps."""
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
        **provenance(host),
    }


def scaling(
    algorithms: Sequence[str], host: Host, seconds: float, limit: float, store: Store
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure and store every method's growth; returns the rows, and what could not be measured."""

    def measure(algorithm: str) -> dict[str, Any]:
        return isolated(measure_growth, algorithm, host, seconds, limit)

    def key(row: dict[str, Any]) -> str:
        return f"{row['algorithm']}.{place_of(row['machine'])}"

    return measure_all(algorithms, measure, store, "scaling", key)


def exponents(row: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Of the number of agents and of denoising steps: in one agent's time, and in the team's."""

    def fitted(points: str, size: str, cost: str) -> float:
        return exponent([p[size] for p in row[points]], [p[f"{cost}_ms"] for p in row[points]])

    return {cost: (fitted("teams", "agents", cost), fitted("chains", "calls", cost)) for cost in ("agent", "total")}


def table(rows: Sequence[dict[str, Any]], orders: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    """Milliseconds by agents at one call of the network, and the fitted exponents beside the paper's."""
    shown = []
    for row in rows:
        for cost, fitted in exponents(row).items():
            times = {point["agents"]: f"{point[f'{cost}_ms']:,.3f}" for point in row["teams"]}
            measured = ", ".join("-" if np.isnan(value) else f"{value:.2f}" for value in fitted)
            paper = ", ".join(map(str, orders.get(row["algorithm"], {}).get(cost, "-")))
            shown.append(
                {"method": row["algorithm"], "cost": cost}
                | {f"I={agents}": times.get(agents, "-") for agents in AGENTS}
                | {"exponents of I, K": measured, "paper": paper}
            )
    foot = "ms of a decision at one denoising step; agent: one alone, total: the team on one host; -: over --limit."
    return f"{text_table(shown)}\n{foot}"
