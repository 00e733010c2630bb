"""Choosing without an episode: what data alone say of trained policies.

Where a pool was trained on a share of the data (`--data-fraction 0.9`), policies are compared with the data's actions
on the whole episodes that were left out; otherwise on data that they were trained on, which is said.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.catalogue import catalogue
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.part import halves, take
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.store.store import Record
from offmarl.experiments.training.fitted_q import Settings, fitted_q
from offmarl.experiments.training.method import spec_of
from offmarl.experiments.training.policy import load_policy

BEST, TOGETHER, LANES = 0.1, 16, 4096  # share of episodes by return; policies of one fit; rows of one call
SMALL = 200  # inputs of a joint critic, at most
MOST = {"fit": 20_000, "compare": 5_000}  # transitions that are looked at, of whole episodes


def measure(folders: Mapping[str, Path], records: Mapping[str, Record], share: float) -> dict[str, Any]:
    """What every selector says of policies that were trained on a share of one dataset.

    By run id, the higher the better, or None: a policy that acts by its memory has no numbers, as what it does depends
    on what came before. `folders` and `records` are by run id.
    """
    cell = next(iter(records.values()))["cell"]
    task = tasks()[cell["task"]]
    whole, _ = catalogue(cell["source"])[cell["task"], cell["quality"]].load()
    seen, unseen = halves(whole, share)
    compared = some_episodes(unseen or seen, MOST["compare"])
    best = some_episodes(best_episodes(unseen or seen), MOST["compare"])
    fitted = Sampler(some_episodes(seen, MOST["fit"]), [0]).data
    policies = {run_id: load_policy(folder, task, f"run {run_id}") for run_id, folder in folders.items()}
    said: dict[str, dict[str, float | None]] = {
        "agreement": {run_id: agreement(policy, compared) for run_id, policy in policies.items()},
        "best": {run_id: agreement(policy, best) for run_id, policy in policies.items()},
        "critic": {run_id: own_value(policy, fitted) for run_id, policy in policies.items()},
        "fitted_q": fitted_values(policies, fitted, task),
    }
    return {"task": task.name, "runs": sorted(records), "held_out": unseen is not None, "selectors": said}


def some_episodes(data: Dataset, transitions: int) -> Dataset:
    """Episodes of a dataset with about so many transitions, at even distances: the order may be that of a training."""
    count = len(data.behaviour)
    wanted = min(count, max(1, round(count * transitions / len(data))))
    return take(data, np.linspace(0, count - 1, wanted).round().astype(int))


def best_episodes(data: Dataset) -> Dataset:
    """The tenth of a dataset's episodes with the highest returns, at least one."""
    order = np.argsort(-data.returns(), kind="stable")
    return take(data, np.sort(order[: max(1, round(BEST * len(order)))]))


@torch.no_grad()
def choices(policy: Algorithm, obs: Tensor, legal: Tensor | None) -> Tensor | None:
    """What a policy does at observations [R,I,O]: [R,I] or [R,I,A]; None where it acts by its memory."""
    found = []
    for k in range(0, len(obs), LANES):
        masks = None if legal is None else legal[None, k : k + LANES]
        actions, memory = policy.act(obs[None, k : k + LANES], masks)
        if memory is not None:
            return None
        found.append(actions[0])
    return torch.cat(found)


def agreement(policy: Algorithm, data: Dataset) -> float | None:
    """The share of the data's actions that a policy would take; of continuous ones minus their mean square error."""
    rows = torch.from_numpy(data.rows)
    legal = None if data.legal is None else torch.from_numpy(data.legal)[rows]
    own, actions = choices(policy, torch.from_numpy(data.obs)[rows], legal), torch.from_numpy(data.actions)
    if own is None:
        return None
    return float((own == actions).float().mean() if policy.spec.discrete else -(own - actions).pow(2).mean())


def own_value(policy: Algorithm, data: Data) -> float | None:
    """What a policy's own critic says of what it does at the first observations of episodes; None without a critic."""
    if "critic" not in policy.nets:
        return None
    policy.prepare(data)  # some take the scale of their values from the data
    first = data.rows[torch.cat([data.last.new_ones(1), data.last[:-1]])]
    obs, legal = data.obs[first], None if data.legal is None else data.legal[first]
    own = choices(policy, obs, legal)
    if own is None:
        return None
    facts = dict.fromkeys(Batch._fields) | {
        "obs": obs[None],
        "actions": own[None],
        "legal": None if legal is None else legal[None],
    }
    facts["state"] = data.state[first][None]
    value = policy.mean_value(Batch(**facts))  # type: ignore[arg-type]
    return None if value is None else float(value)


def fitted_values(policies: Mapping[str, Algorithm], data: Data, task: Task) -> dict[str, float | None]:
    """Fitted Q evaluation of every policy, None for one that acts by its memory.

    By a joint critic where the team's observation is small, as one agent's own says little of a shared reward; else by
    the mean of the agents' values.
    """
    spec = spec_of(task)
    joint = spec.agents * (spec.obs + spec.actions) <= SMALL
    own = {run_id: choices(policy, data.obs, data.legal) for run_id, policy in policies.items()}
    known = {run_id: actions for run_id, actions in own.items() if actions is not None}
    names, values = list(known), []
    for k in range(0, len(names), TOGETHER):
        together = torch.stack([known[name] for name in names[k : k + TOGETHER]])
        values += fitted_q(data, together, spec, Settings(joint=joint)).tolist()
    return {**dict.fromkeys(own), **dict(zip(names, values))}
