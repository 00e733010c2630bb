"""`offmarl data record --policy`: record random actions, or a method that was trained here."""

from pathlib import Path
from typing import Any

import numpy as np

from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import Task, make_env
from offmarl.datasets.dataset import join
from offmarl.datasets.embedded.record import record
from offmarl.experiments.training.policy import Player, load_policy
from offmarl.reports.records.files import replacing

LANES = 64
SEED = 700_000_000  # far from those of recordings and evaluations


def record_policy(task: Task, policy: str, episodes: int, out: Path) -> dict[str, Any]:
    """Play episodes of a task and write them as one .npz in the canonical form; returns its statistics.

    Args:
        policy: `random`, or the folder of a run in a results store.

    Raises UserError when the run is not one of this task, or is damaged.
    """
    method = None if policy == "random" else load_policy(Path(policy), task)
    env, parts = make_env(task, min(LANES, episodes)), []
    for start in range(0, episodes, env.lanes):
        behaviour = Player(method) if method else uniform(task)
        played = record(env, [behaviour], min(env.lanes, episodes - start), 0.0, SEED + start)
        parts.append((played, 1.0))
    env.close()
    data = join(parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as draft, draft.open("wb") as file:  # given a name, NumPy would add .npz to it
        np.savez(file, **data.arrays())  # type: ignore[arg-type]
    return data.statistics()
