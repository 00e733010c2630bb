"""How many trainings run side by side."""

import os

JOBS_PER_GPU = 6  # small networks share a card well; --jobs says otherwise


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(device: str, threads: int) -> int:
    """How many trainings: as many as the cores feed, and on CUDA not more than a few share a card."""
    most = max(1, core_count() // max(1, threads))
    if not device.startswith("cuda"):
        return most
    import torch

    return min(most, JOBS_PER_GPU * torch.cuda.device_count())
