"""What a grid will cost here, before it runs: `offmarl run --dry-run`."""

from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from offmarl.experiments.grid.estimate import duration, time_left
from offmarl.experiments.grid.jobs import Job
from offmarl.experiments.timing.throughput import Pace, training_pace
from offmarl.experiments.training.machine import Host

BYTES = 4  # of a parameter


def describe(grid: Sequence[Job], left: Sequence[Job], host: Host, workers: int) -> str:
    """The cells by method, the time of training as a few updates of each pending job predict it, and the disk."""
    lines = [f"{'method':14} {'variant':9} {'datasets':>8} {'cells':>6}"]
    cells = Counter[str]()
    for job in grid:
        cells[job.algorithm] += len(job.seeds)
    for (algorithm, variant), datasets in Counter((job.algorithm, job.variant) for job in grid).items():
        lines.append(f"{algorithm:14} {variant:9} {datasets:8} {cells[algorithm]:6}")
    pending = sum(len(job.seeds) for job in left)
    total = cells.total()
    lines.append(f"{total} cells: {total - pending} done, {pending} pending; {workers} jobs at once on {host.device}")
    paces = _measure(left, host)
    seconds = time_left(((_kind(job), job.protocol.steps) for job in left), {k: p.seconds for k, p in paces.items()})
    lines.append(f"training: about {duration((seconds or 0.0) / workers)}, as measured just now, without evaluation")
    weights = BYTES * sum(paces[_kind(job)].facts["parameters"] * len(job.seeds) for job in left)
    entries = {(job.task, job.quality): job.entry for job in left}
    data = sum(entry.disk() for entry in entries.values() if not entry.place().exists())
    lines.append(f"disk: at most {data / 1e9:.1f} GB of data to prepare, {weights / 1e9:.2f} GB of runs")
    return "\n".join(lines)


def _kind(job: Job) -> tuple[str, str, int]:
    """Jobs of equal cost: the qualities of a task cost the same."""
    return job.task, job.algorithm, len(job.seeds)


def _measure(left: Sequence[Job], host: Host) -> dict[tuple[str, str, int], Pace]:
    """The updates of one job of each kind."""
    host.set_up()
    first = {_kind(job): job for job in reversed(left)}
    return {kind: training_pace(job, host, 0.2) for kind, job in tqdm(first.items(), desc="measuring", leave=False)}
