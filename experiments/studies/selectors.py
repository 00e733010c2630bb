"""Choosing without an episode: what data alone say of trained policies.

Where a pool was trained on a share of the data (`--data-fraction 0.9`), policies are compared with the data's actions
on the whole episodes that were left out; otherwise on data that they were trained on, which is said. A policy with a
memory remembers the data's episode so far, whoever acted in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.catalogue import catalogue
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.part import halves, take
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.processes import processes
from offmarl.experiments.store.store import Record
from offmarl.experiments.training.fitted_q import Settings, fitted_q
from offmarl.experiments.training.looks import along
from offmarl.experiments.training.method import spec_of
from offmarl.experiments.training.policy import load_policy

BEST, TOGETHER, LANES = 0.1, 16, 4096  # share of episodes by return; policies of a part and one fit; rows of a call
SMALL = 200  # inputs of a joint critic, at most
MOST = {"fit": 20_000, "compare": 5_000}  # transitions that are looked at, of whole episodes
Share = tuple[str, str, str, float]  # source, task, quality, and the share of its episodes that policies trained on
Said = dict[str, dict[str, float | None]]  # by selector and run id


def measure(folders: Mapping[str, Path], records: Mapping[str, Record], share: float, jobs: int = 1) -> dict[str, Any]:
    """What every selector says of policies that were trained on a share of one dataset, in so many processes.

    By run id, the higher the better, or None where it says nothing. `folders` and `records` are by run id. Raises
    UserError if a process dies.
    """
    cell = next(iter(records.values()))["cell"]
    dataset = cell["source"], cell["task"], cell["quality"], share
    run_ids, said = list(folders), {}
    parts = [{name: folders[name] for name in run_ids[k : k + TOGETHER]} for k in range(0, len(run_ids), TOGETHER)]
    with tqdm(total=len(run_ids), desc="offline selectors", unit="policy", leave=False) as bar:
        for part, found in zip(parts, _said_of_all(parts, dataset, min(jobs, len(parts)))):
            for selector, values in found.items():
                said.setdefault(selector, {}).update(values)
            bar.update(len(part))
    made = {run_id: record["finished"] for run_id, record in sorted(records.items())}
    held_out = _halves(dataset)[1] is not None
    return {"task": cell["task"], "runs": made, "share": share, "held_out": held_out, "selectors": said}


def _said_of_all(parts: Sequence[Mapping[str, Path]], dataset: Share, jobs: int) -> Iterator[Said]:
    """`_said_of` every part, in the parts' order."""
    if jobs == 1:
        yield from (_said_of(part, dataset) for part in parts)
        return
    with processes(jobs, torch.set_num_threads, 1) as pool:
        yield from pool.map(_said_of, parts, [dataset] * len(parts))


def _said_of(folders: Mapping[str, Path], dataset: Share) -> Said:
    """What every selector says of some of a pool's policies."""
    task, (seen, unseen) = tasks()[dataset[1]], _halves(dataset)
    compared = some_episodes(unseen or seen, MOST["compare"])
    best = some_episodes(best_episodes(unseen or seen), MOST["compare"])
    policies = {run_id: load_policy(folder, task, f"run {run_id}") for run_id, folder in folders.items()}
    return {
        "agreement": {run_id: agreement(policy, compared) for run_id, policy in policies.items()},
        "best": {run_id: agreement(policy, best) for run_id, policy in policies.items()},
        **values_of(policies, some_episodes(seen, MOST["fit"]), task),
    }


def _halves(dataset: Share) -> tuple[Dataset, Dataset | None]:
    """The episodes that policies were trained on, and the others."""
    source, task, quality, share = dataset
    return halves(catalogue(source)[task, quality].load()[0], share)


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
def choices(policy: Algorithm, data: Dataset) -> Tensor:
    """What a policy does at every observation of a dataset's episodes, the last ones too: [R,I] or [R,I,A]."""
    obs, legal = torch.from_numpy(data.obs), None if data.legal is None else torch.from_numpy(data.legal)
    found = []
    for k in range(0, len(obs), LANES):
        masks = None if legal is None else legal[None, k : k + LANES]
        actions, memory = policy.act(obs[None, k : k + LANES], masks)
        if memory is not None:
            return _remembering(policy, data)
        found.append(actions[0])
    return torch.cat(found)


def _remembering(policy: Algorithm, data: Dataset) -> Tensor:
    """The same of a policy whose actions depend on what came before."""
    found, first = torch.empty(0), data.rows[np.flatnonzero(np.diff(data.episode, prepend=-1))]
    for t, (_, alive, actions) in enumerate(along(policy, data, ends=True)):
        found = found if t else actions.new_empty(len(data.obs), *actions.shape[2:])
        found[torch.from_numpy(first[alive] + t)] = actions[0, torch.from_numpy(alive)]
    return found


def agreement(policy: Algorithm, data: Dataset) -> float:
    """The share of the data's actions that a policy would take; of continuous ones minus their mean square error."""
    own, actions = choices(policy, data)[torch.from_numpy(data.rows)], torch.from_numpy(data.actions)
    return float((own == actions).float().mean() if policy.spec.discrete else -(own - actions).pow(2).mean())


def values_of(policies: Mapping[str, Algorithm], data: Dataset, task: Task) -> Said:
    """What the policies' own critics and fitted Q evaluation say of them, from the same choices. A time-out is an end.

    Fitted by a joint critic where the team's observation is small, as one agent's own says little of a shared reward;
    else by the mean of the agents' values.
    """
    own, rows = {run_id: choices(policy, data) for run_id, policy in policies.items()}, Sampler(data, [0]).data
    spec = spec_of(task)
    settings = Settings(joint=spec.agents * (spec.obs + spec.actions) <= SMALL)
    values = fitted_q(rows, torch.stack(list(own.values())), spec, settings).tolist()
    critics = {name: own_value(policy, rows, own[name]) for name, policy in policies.items()}
    return {"critic": critics, "fitted_q": dict(zip(own, values))}


def own_value(policy: Algorithm, data: Data, choices: Tensor) -> float | None:
    """What a policy's own critic says of its choices [R,...] at the first observations of episodes.

    A critic with a memory says it of the windows that begin there. None without a critic, or one that values nothing.
    """
    if "critic" not in policy.nets:
        return None
    own = data._replace(actions=choices[data.rows])
    trained = {name: value.clone() for name, value in policy.nets.state_dict().items()}
    policy.prepare(own)  # some keep the episodes of the data
    policy.load_nets(trained)  # others begin anew from it
    number = torch.cat([data.last.new_ones(1), data.last[:-1]]).nonzero()[:, 0]
    first = data.rows[number]
    facts = {"obs": data.obs[first], "actions": own.actions[number], "state": data.state[first], "number": number}
    facts |= {} if data.legal is None else {"legal": data.legal[first]}
    batch = Batch(**dict.fromkeys(Batch._fields) | {name: values[None] for name, values in facts.items()})  # type: ignore[arg-type]
    value = policy.mean_value(batch)
    return None if value is None else float(value)
