"""What a grid will cost here, before it runs: `offmarl run --dry-run`."""

import time
from collections import Counter
from collections.abc import Sequence

import torch
from tqdm import tqdm

from offmarl.algorithms.base import Batch
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.embedded import catalogue
from offmarl.experiments.grid import Job
from offmarl.experiments.train import build

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
    batch = _batch(task, len(job.seeds), job.config["batch_size"], device)
    algorithm.update(batch)
    began, updates = time.perf_counter(), 0
    while updates < 2 or (updates < 10 and time.perf_counter() - began < 0.2):
        next(iter(algorithm.update(batch).values())).cpu()
        updates += 1
    return (time.perf_counter() - began) / updates, algorithm.parameters()


def _batch(task: Task, S: int, B: int, device: str) -> Batch:
    """Random numbers in the shape of data."""
    obs = torch.rand(S, B, task.agents, task.obs, device=device)
    if task.discrete:
        actions = torch.randint(task.actions, (S, B, task.agents), device=device)
        legal = torch.ones(S, B, task.agents, task.actions, dtype=torch.bool, device=device)
    else:
        actions, legal = 2 * torch.rand(S, B, task.agents, task.actions, device=device) - 1, None
    state, team = torch.rand(S, B, task.state, device=device), torch.zeros(S, B, device=device)
    return Batch(obs, actions, obs[..., 0], obs, team, legal, legal, state, state, actions)


def _data_bytes(task: Task, episodes: int) -> int:
    """An upper bound: episodes that last half their limit."""
    row = BYTES * (task.agents * task.obs + task.state) + task.agents * (task.actions + 12)
    return episodes * task.limit // 2 * row


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
