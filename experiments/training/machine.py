"""Where and how a process computes, and the facts about it in records."""

import contextlib
import os
import platform
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offmarl.experiments.training import matmul


@dataclass(frozen=True)
class Host:
    """A device and the way it is used."""

    device: str = "cpu"
    threads: int = 1  # of the CPU
    tf32: bool = False  # on CUDA: matrix products and convolutions with ten bits of mantissa
    eager: bool = False  # on CUDA: launch every operation of an update, instead of replaying its captured graph
    deterministic: bool = False  # only operations that give the same bits every time, even where they are slower
    matmul: str = matmul.MKL  # on a CPU: the library of matrix products
    replays: int = 0  # that every run keeps of its last evaluation

    @property
    def cuda(self) -> bool:
        """Whether it computes on a CUDA device."""
        return self.device.startswith("cuda")

    @property
    def captures(self) -> bool:
        """Whether updates are captured as CUDA graphs."""
        return self.cuda and not self.eager

    def set_up(self) -> None:
        """Apply these settings to this process."""
        torch.set_num_threads(self.threads)
        if self.deterministic:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when CUDA begins
        torch.use_deterministic_algorithms(self.deterministic)
        if ":" in self.device:
            torch.cuda.set_device(self.device)  # where graphs are captured
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        if not self.cuda:
            matmul.use(self.matmul)

    def synchronise(self) -> None:
        """Wait until the device has finished its work."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def peak_mb(self) -> float:
        """Peak memory of this process in MiB: on the device on CUDA, else resident."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        with contextlib.suppress(OSError):  # Linux: ru_maxrss starts from the parent's
            if found := re.search(r"VmHWM:\s*(\d+)", _text("/proc/self/status")):
                return int(found[1]) / 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    def facts(self) -> dict[str, Any]:
        """Hardware, the versions that matter, and the settings above."""
        own = {"cuda": torch.version.cuda, "tf32": self.tf32, "captured": self.captures}
        return {
            "device": torch.cuda.get_device_name(self.device) if self.cuda else processor(),
            "system": platform.system(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": self.threads,
            "deterministic": self.deterministic,
        } | (own if self.cuda else {"matmul": self.matmul})


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


@cache
def processor() -> str:
    """The processor's name, as the system reports it."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()


@cache
def code() -> dict[str, str]:
    """The version of offmarl, and its commit where it runs from a checkout."""
    return {"version": version("offmarl"), "commit": commit_of(Path(__file__).resolve().parents[2])}


def commit_of(root: Path) -> str:
    """The commit of the checkout whose top is `root`; "unknown" elsewhere, as within another repository."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in a hook
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    try:
        top, commit = (
            subprocess.run([*git, *words], capture_output=True, env=plain, timeout=10, check=True).stdout.strip()
            for words in (["rev-parse", "--show-toplevel"], ["describe", "--always", "--dirty", "--abbrev=12"])
        )
        return commit.decode() if os.path.samefile(top, root) else "unknown"
    except (OSError, ValueError, subprocess.SubprocessError):
        return "unknown"


def provenance(host: Host) -> dict[str, Any]:
    """The part of a record that says which machine and code it comes from."""
    return {"machine": host.facts(), "code": code()}
