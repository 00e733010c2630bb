"""Choosing without an episode: what data alone say of trained policies.

Where a pool was trained on a share of the data (`--data-fraction 0.9`), policies are compared with the data's actions
on the whole episodes that were left out; otherwise on data that they were trained on, which is said. A policy with a
memory remembers the data's episode so far, whoever acted in it. A policy that samples takes one draw at each
observation. Agreement stands for the likelihood of the data's actions, which flows and diffusion do not tell.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data
from offmarl.benchmarks.source import sources, sum_of
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.catalogue import catalogue
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.part import halves, take
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.processes import processes
from offmarl.experiments.store.store import Record
from offmarl.experiments.training import fitted_q as fitted_q_module
from offmarl.experiments.training.fitted_q import Settings, fitted_q
from offmarl.experiments.training.looks import along
from offmarl.experiments.training.method import spec_of
from offmarl.experiments.training.policy import load_policy

BEST, FEWEST = 0.1, 10  # share of episodes by return, and the fewest episodes that have best ones
TOGETHER, LANES = 16, 4096  # policies of a part and one fit; rows of a call
SMALL = 200  # inputs of a joint critic, at most
MOST = {"fit": 20_000, "compare": 5_000}  # transitions that are looked at, of whole episodes
Values = dict[str, dict[str, float | None]]  # by selector and run id


class Split(NamedTuple):
    """A dataset, and the share of its episodes that policies were trained on."""

    source: str
    task: str
    quality: str
    share: float

    def halves(self) -> tuple[Dataset, Dataset | None]:
        """The episodes that policies were trained on, and the others."""
        return halves(catalogue(self.source)[self.task, self.quality].load()[0], self.share)


class Part(NamedTuple):
    """What every selector says of some of a pool's policies."""

    seen: int  # episodes of the data that policies were trained on
    held_out: int  # the others
    values: Values


def measure(folders: Mapping[str, Path], records: Mapping[str, Record], share: float, jobs: int = 1) -> dict[str, Any]:
    """What every selector says of policies that were trained on a share of one dataset, in so many processes.

    By run id, the higher the better, or None where it says nothing; and how many episodes were seen in training and
    held out. `folders` and `records` are by run id. Raises UserError if a process dies.
    """
    cell = next(iter(records.values()))["cell"]
    split = Split(cell["source"], cell["task"], cell["quality"], share)
    run_ids, found, values = list(folders), [], {}
    groups = [{name: folders[name] for name in run_ids[k : k + TOGETHER]} for k in range(0, len(run_ids), TOGETHER)]
    with tqdm(total=len(run_ids), desc="offline selectors", unit="policy", leave=False) as bar:
        for group, part in zip(groups, _parts(groups, split, min(jobs, len(groups)))):
            for selector, own in part.values.items():
                values.setdefault(selector, {}).update(own)
            found.append(part)
            bar.update(len(group))
    made = {run_id: record["finished"] for run_id, record in sorted(records.items())}
    episodes = {"seen": found[0].seen, "held_out": found[0].held_out}
    return {"task": cell["task"], "runs": made, "share": share, "code": code(), **episodes, "selectors": values}


@cache
def code() -> str:
    """The sum of the code of selectors: what other code said is measured again."""
    return sum_of([part for file in (__file__, fitted_q_module.__file__) for part in sources(Path(file))])


def _parts(groups: Sequence[Mapping[str, Path]], split: Split, jobs: int) -> Iterator[Part]:
    """`_part` of every group, in their order."""
    if jobs == 1:
        yield from (_part(group, split) for group in groups)
        return
    with processes(jobs, torch.set_num_threads, 1) as pool:
        yield from pool.map(_part, groups, [split] * len(groups))


def _part(folders: Mapping[str, Path], split: Split) -> Part:
    """What every selector says of some of a pool's policies."""
    task, (seen, unseen) = tasks()[split.task], split.halves()
    judging = unseen or seen
    policies = {run_id: load_policy(folder, task, f"run {run_id}") for run_id, folder in folders.items()}
    compared = {"agreement": judging}
    compared |= {"best": best_episodes(judging)} if len(judging.behaviour) >= FEWEST else {}
    values: Values = {}
    for name, data in compared.items():
        some = some_episodes(data, MOST["compare"])
        values[name] = {run_id: agreement(policy, some) for run_id, policy in policies.items()}
    values |= values_of(policies, some_episodes(seen, MOST["fit"]), task)
    return Part(len(seen.behaviour), len(unseen.behaviour) if unseen else 0, values)


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


def values_of(policies: Mapping[str, Algorithm], data: Dataset, task: Task) -> Values:
    """What the policies' own critics and fitted Q evaluation say of them, from the same choices. A time-out is an end.

    Nothing, where the data have no reward.

    Fitted by a joint critic where the team's observation is small, as one agent's own says little of a shared reward;
    else by the mean of the agents' values.
    """
    if not data.rewards.any():
        return {name: dict.fromkeys(policies) for name in ("critic", "fitted_q")}
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
