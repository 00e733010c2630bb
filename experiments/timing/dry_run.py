"""What a grid will cost here, before it runs: `offmarl run --dry-run`."""

from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.timing.throughput import Pace, training_pace
from offmarl.experiments.training.machine import Host

BYTES = 4


def describe(grid: Sequence[Job], left: Sequence[Job], host: Host, workers: int) -> str:
    """The cells by method, the time that a few updates of each pending training extrapolate to, and the disk."""
    done = sum(len(job.seeds) for job in grid) - sum(len(job.seeds) for job in left)
    lines = [f"{'method':14} {'variant':9} {'datasets':>8} {'cells':>6}"]
    rows = Counter((job.algorithm, job.variant) for job in grid)
    for (algorithm, variant), datasets in rows.items():
        cells = sum(len(job.seeds) for job in grid if job.algorithm == algorithm)
        lines.append(f"{algorithm:14} {variant:9} {datasets:8} {cells:6}")
    total = sum(len(job.seeds) for job in grid)
    lines.append(
        f"{total} cells: {done} done, {total - done} pending; {workers} trainings side by side on {host.device}"
    )
    seconds, weights = _training(left, host)
    lines.append(
        f"training: about {_hours(seconds / workers)} (updates measured here just now; evaluation comes on top)"
    )
    entries = {(job.task, job.quality): job.entry for job in left}
    data = sum(entry.disk() for entry in entries.values() if not entry.place().exists())
    lines.append(f"disk: at most {data / 1e9:.1f} GB of data to prepare, {weights / 1e9:.2f} GB of runs")
    return "\n".join(lines)


def _training(left: Sequence[Job], host: Host) -> tuple[float, float]:
    """Seconds of all updates, and bytes of all checkpoints."""
    cost: dict[tuple, Pace] = {}
    seconds = size = 0.0
    for job in tqdm(left, desc="measuring", unit="job", leave=False):
        key = (job.task, job.algorithm, len(job.seeds))  # qualities of a task cost the same
        if key not in cost:
            cost[key] = training_pace(job, host, 0.2)
        seconds += cost[key].seconds * job.protocol["steps"]
        size += cost[key].facts["parameters"] * len(job.seeds) * BYTES
    return seconds, size


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
