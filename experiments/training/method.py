"""From a job and its data to what trains: the method, its batches and its updates."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.training.cuda_graphs import Captured
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.online import OnlineSampler


class Updates:
    """Calls draw a batch and update; they return the loss terms [S].

    With `capture` they replay CUDA graphs, one for each variant of the method's gradient step, with the drawing of the
    batch; these give the same numbers. Methods that are not `capturable` run eagerly all the same.
    """

    def __init__(self, algorithm: Algorithm, sampler: Sampler | OnlineSampler, capture: bool = False):
        self.algorithm, self.sampler, self.size = algorithm, sampler, algorithm.config.batch_size
        self.capture = capture and algorithm.capturable
        self.graphs: dict[Hashable, Captured[dict[str, Tensor]]] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.capture else None

    def __call__(self) -> dict[str, Tensor]:
        """One update."""
        if not self.capture:
            return self.algorithm.update(self.sampler.sample(self.size))
        self.algorithm.begin_update()
        variant = self.algorithm.step_variant()
        if variant not in self.graphs:
            generators = [*self.algorithm.streams.generators, *self.sampler.streams.generators]
            self.graphs[variant] = Captured(self._on_device, generators, self.pool)
        return self.graphs[variant]()

    def _on_device(self) -> dict[str, Tensor]:
        return self.algorithm.gradient_step(self.sampler.sample(self.size))


class Trainer(NamedTuple):
    """What trains."""

    algorithm: Algorithm
    sampler: Sampler  # of the data as the method has prepared them
    update: Updates  # draws a batch and learns from it


def build(job: Job, seeds: Sequence[int], device: str) -> Algorithm:
    """The job's method for these seeds, freshly initialised."""
    return registry()[job.algorithm](spec_of(job.entry.task), job.config, seeds, device)


def make_trainer(algorithm: Algorithm, data: Dataset, host: Host, timeout_bootstrap: bool = False) -> Trainer:
    """Prepare the data for a method, and make its batches and updates. All that is trained comes from here."""
    sampler = Sampler(data, algorithm.seeds, host.device, timeout_bootstrap, algorithm.config.window)
    sampler.data = algorithm.prepare(sampler.data)
    return Trainer(algorithm, sampler, Updates(algorithm, sampler, host.captures))


def job_trainer(job: Job, data: Dataset, host: Host) -> Trainer:
    """The job's method, batches and updates, for all its seeds."""
    return make_trainer(build(job, job.seeds, host.device), data, host, job.protocol.timeout_bootstrap)


def load_networks(method: Algorithm, state: Mapping[str, Tensor]) -> None:
    """Load networks. What the state has nothing of is dropped: the policies that ship have only what acts.

    Raises ValueError where what acts is missing, too.
    """
    missing = method.nets.keys() - {key.partition(".")[0] for key in state}
    for name in missing:
        del method.nets[name]
    method.load_nets(state)
    if missing:
        drawn = method.acting.state_dict()
        try:
            _decide(method)
        except KeyError as error:
            raise ValueError(f"its network {error} is missing") from error
        method.acting.load_state_dict(drawn)


@torch.no_grad()
def acting_networks(method: Algorithm) -> dict[str, Tensor]:
    """The networks without which the method cannot decide: no critics of actors, no targets."""
    kept = set()
    for name in list(method.nets):
        net = method.nets.pop(name)
        try:
            _decide(method)
        except KeyError:
            kept.add(name)
        method.nets[name] = net
    return {key: value for key, value in method.nets.state_dict().items() if key.partition(".")[0] in kept}


def _decide(method: Algorithm) -> None:
    """The first two decisions of an episode. KeyError where they take a network that the method has not."""
    spec = method.spec
    obs = torch.zeros(len(method.seeds), 1, spec.agents, spec.obs, device=method.device)
    legal = torch.ones(*obs.shape[:3], spec.actions, dtype=torch.bool, device=method.device) if spec.discrete else None
    _, memory = method.act(obs, legal)
    method.act(obs, legal, memory)


def spec_of(task: Task) -> TaskSpec:
    """What methods know of a task."""
    return TaskSpec(task.agents, task.obs, task.state, task.actions, task.discrete)


def describe(algorithm: Algorithm) -> dict[str, Any]:
    """A method's facts and sizes, as records hold them."""
    names = ("name", "title", "paper", "source_code", "execution")
    facts = {name: getattr(algorithm, name) for name in names} | {"actions": sorted(algorithm.actions)}
    facts |= {"acting_rule": algorithm.acting_rule()}
    sizes = {"nfe": algorithm.nfe(), "parameters": algorithm.parameters(), "reduced": algorithm.config.reduced()}
    return facts | sizes
