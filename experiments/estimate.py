"""What a grid will cost here, before it runs: `offmarl run --dry-run`."""

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.canonical import Dataset, from_episodes
from offmarl.datasets.embedded import catalogue
from offmarl.experiments.grid import Job
from offmarl.experiments.train import build, make_sampler

BYTES = 4


def describe(grid: Sequence[Job], left: Sequence[Job], device: str, workers: int) -> str:
    """The cells by method, the time that a few updates of each pending training extrapolate to, and the disk."""
    done = sum(len(job.seeds) for job in grid) - sum(len(job.seeds) for job in left)
    lines = [f"{'method':14} {'variant':9} {'datasets':>8} {'cells':>6}"]
    rows = Counter((job.algorithm, job.variant) for job in grid)
    for (algorithm, variant), datasets in rows.items():
        cells = sum(len(job.seeds) for job in grid if job.algorithm == algorithm)
        lines.append(f"{algorithm:14} {variant:9} {datasets:8} {cells:6}")
    total = sum(len(job.seeds) for job in grid)
    lines.append(f"{total} cells: {done} done, {total - done} pending; {workers} trainings side by side on {device}")
    seconds, weights = _training(left, device)
    lines.append(
        f"training: about {_hours(seconds / workers)} (updates measured here just now; evaluation comes on top)"
    )
    missing = [
        r for key, r in catalogue().items() if key in {(j.task, j.quality) for j in left} and not r.file().exists()
    ]
    data = sum(_data_bytes(recipe.task, recipe.episodes) for recipe in missing)
    lines.append(f"disk: at most {data / 1e9:.1f} GB of data to record, {weights / 1e9:.2f} GB of runs")
    return "\n".join(lines)


def _training(left: Sequence[Job], device: str) -> tuple[float, float]:
    """Seconds of all updates, and bytes of all checkpoints."""
    cost: dict[tuple, tuple[float, int]] = {}
    seconds = size = 0.0
    for job in tqdm(left, desc="measuring", unit="job", leave=False):
        key = (job.task, job.algorithm, len(job.seeds))  # qualities of a task cost the same
        if key not in cost:
            cost[key] = _measure(job, device)
        seconds += cost[key][0] * job.protocol["steps"]
        size += cost[key][1] * len(job.seeds) * BYTES
    return seconds, size


def _measure(job: Job, device: str) -> tuple[float, int]:
    """Seconds of one update on made-up data, and parameters of one seed."""
    task = tasks()[job.task]
    algorithm = build(job, task, job.seeds, device)
    sampler = make_sampler(job, _made_up(task), device)
    sampler.data = algorithm.prepare(sampler.data)
    algorithm.update(sampler.sample(job.config["batch_size"]))
    began, updates = time.perf_counter(), 0
    while updates < 2 or (updates < 10 and time.perf_counter() - began < 0.2):
        next(iter(algorithm.update(sampler.sample(job.config["batch_size"])).values())).cpu()
        updates += 1
    return (time.perf_counter() - began) / updates, algorithm.parameters()


def _made_up(task: Task, episodes: int = 20, length: int = 50) -> Dataset:
    """Random numbers in the shape of the task's data."""
    rng, per_agent = np.random.default_rng(0), (task.agents, task.actions)
    one: dict[str, np.ndarray] = {
        "done": np.array(True),
        "timeout": np.array(False),
        "obs": rng.random((length + 1, task.agents, task.obs), np.float32),
        "state": rng.random((length + 1, task.state), np.float32),
        "rewards": rng.random((length, task.agents), np.float32),
    }
    if task.discrete:
        one["actions"] = rng.integers(task.actions, size=(length, task.agents))
        one["legal"] = np.ones((length + 1, *per_agent), bool)
    else:
        one["actions"] = rng.uniform(-1, 1, (length, *per_agent)).astype(np.float32)
    return from_episodes([one] * episodes, [0] * episodes)


def _data_bytes(task: Task, episodes: int) -> int:
    """An upper bound: episodes that last half their limit."""
    row = BYTES * (task.agents * task.obs + task.state) + task.agents * (task.actions + 12)
    return episodes * task.limit // 2 * row


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
