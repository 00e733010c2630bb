"""The page of `offmarl judge`: which trained policy to take, and how sure that is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offmarl.reports.measures import described
from offmarl.reports.selection.offline import NAMES, RANDOM, Judged
from offmarl.reports.selection.pool import Policy, Pool
from offmarl.reports.tables.markdown import escape
from offmarl.reports.tables.markdown import table as markdown_table

HELP = (
    "What would help: `offmarl select --suite {suite} --source tuning --offline` on a pool of this family tells which "
    "selectors can be trusted; ten episodes of the task tell more than any of them (`offmarl select`)."
)


def evidence(results: Path, family: str, profile: str) -> Judged | None:
    """The trusted selector with the least regret in a family that `select --offline` found at a profile, if any."""
    found = []
    for path in sorted((results / "measurements" / "trust").glob("[!.]*.json")):
        try:
            record = json.loads(path.read_bytes())
            rows = record["judged"] if record["profile"] == profile else []
            found += [Judged(**row | {name: tuple(row[name]) for name in ("rho", "regret")}) for row in rows]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    own = [one for one in found if one.family == family and one.selector != RANDOM and one.trusted]
    return min(own, key=lambda one: one.regret[0], default=None)


def choose(pool: Pool, said: Mapping[str, Mapping[str, float | None]], by: Judged | None) -> Policy | None:
    """The policy that the trusted selector likes best; None without one, or where it says nothing of any."""
    if by is None:
        return None
    numbers = {run_id: value for run_id, value in said.get(by.selector, {}).items() if value is not None}
    known = [policy for policy in pool.policies if policy.run_id in numbers]
    return max(known, key=lambda policy: numbers[policy.run_id], default=None)


def markdown(
    pool: Pool,
    said: Mapping[str, Mapping[str, float | None]],
    by: Judged | None,
    measures: Mapping[str, Any],
    folders: Mapping[str, Path],
    suite: str,
) -> str:
    """Verdict, what was trained with what every selector says of it, and the data's measures."""
    chosen = choose(pool, said, by)
    parts = [f"# {escape(pool.task)}:{escape(pool.quality)} ({pool.source}): which policy to take"]
    parts += [_verdict(pool, chosen, by, folders, suite)]
    parts += ["## What was trained", _trained(pool, said, chosen), "## The data"]
    parts += [markdown_table(["", ""], [[name, escape(text)] for name, text in described(measures).items()])]
    return "\n\n".join(parts) + "\n"


def _verdict(pool: Pool, chosen: Policy | None, by: Judged | None, folders: Mapping[str, Path], suite: str) -> str:
    if chosen is None or by is None:
        return f"**Cannot tell.** No selector can be trusted on {pool.task.split('/')[0]}. {HELP.format(suite=suite)}"
    folder, (low, high) = folders[chosen.run_id], by.regret[1:]
    lines = [
        f"**{escape(chosen.title)}**, seed {chosen.seed}, by {NAMES[by.selector]}.",
        f"How sure: on {by.datasets} datasets of the family its rank correlation with played returns was "
        f"{by.rho[0]:.2f}, and what it chose stayed {by.regret[0]:.2f} [{low:.2f}, {high:.2f}] below the best, in "
        f"scores; a policy at random {by.random:.2f}.",
        f"The policy: `{folder / 'checkpoint.pt'}`; `offmarl watch {folder.name} --results {folder.parents[1]}` shows "
        "it.",
    ]
    return "\n\n".join(lines)


def _trained(pool: Pool, said: Mapping[str, Mapping[str, float | None]], chosen: Policy | None) -> str:
    """A row for each policy: selectors, then what it returned when it was played, which chose nothing."""
    names: Sequence[str] = list(said)
    rows = []
    for policy in sorted(pool.policies, key=lambda policy: -float(np.mean(policy.episodes))):
        values = [said[name].get(policy.run_id) for name in names]
        mark = " (chosen)" if chosen and policy.run_id == chosen.run_id else ""
        played = f"{np.mean(policy.episodes):.4g} ({len(policy.episodes)} episodes)"
        rows.append(
            [escape(policy.title) + mark, str(policy.seed), *("–" if v is None else f"{v:.4g}" for v in values), played]
        )
    return markdown_table(["method", "seed", *(NAMES[name] for name in names), "played return"], rows, numbers=True)
