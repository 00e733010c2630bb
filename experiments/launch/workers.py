"""How many jobs train at once."""

import os

JOBS_PER_GPU = 6  # small networks share a GPU well; --jobs overrides it


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(device: str, threads: int) -> int:
    """Jobs to train at once: by the cores, and on CUDA at most JOBS_PER_GPU for each GPU."""
    most = max(1, core_count() // max(1, threads))
    if not device.startswith("cuda"):
        return most
    import torch

    return min(most, JOBS_PER_GPU * torch.cuda.device_count())
