"""From a job to the method that trains, and its data."""

from typing import Any

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import TaskSpec
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.grid.jobs import Job


def build(job: Job, task: Task, seeds: Any, device: str) -> Algorithm:
    """The job's method for these seeds."""
    return registry()[job.algorithm](spec_of(task), job.algorithm_config(), list(seeds), device)


def spec_of(task: Task) -> TaskSpec:
    """What methods know of a task."""
    return TaskSpec(task.agents, task.obs, task.state, task.actions, task.discrete)


def make_sampler(job: Job, data: Dataset, device: str) -> Sampler:
    """The job's batches."""
    window = job.algorithm_config().window
    return Sampler(data, list(job.seeds), device, job.protocol["timeout_bootstrap"], window)


def describe(algorithm: Algorithm) -> dict[str, Any]:
    """What reports say about a method, as it stands in the run."""
    names = ("name", "title", "paper", "source_code", "execution")
    facts = {name: getattr(algorithm, name) for name in names} | {"actions": sorted(algorithm.actions)}
    sizes = {"nfe": algorithm.nfe(), "parameters": algorithm.parameters(), "reduced": algorithm.config.reduced()}
    return facts | sizes
