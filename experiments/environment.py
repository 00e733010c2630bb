"""The environment variables of this process and of those that it starts, set once before anything heavy is imported.

A variable of the user's shell must neither change what is recorded or measured nor end a command: what offmarl depends
on is set here, and paths become absolute, because Ray's workers start in another directory.
"""

import io
import os
import pwd
import sys
from pathlib import Path

PATHS = ("HOME", "OFFMARL_CACHE", "OFFMARL_DATA", "OFFMARL_PREY", "SC2PATH", "XDG_CACHE_HOME", "HF_HOME")
SCRATCH = ("TMPDIR", "RAY_TMPDIR", "MPLCONFIGDIR")
LISTS = ("OFFMARL_ALGORITHMS", "OFFMARL_TASKS", "PYTHONPATH")  # joined as in PATH
REQUIRED = {
    "JAX_PLATFORMS": "cpu",  # battles are small; the accelerator belongs to the networks
    "PYTHONUTF8": "1",  # of the processes that it starts
    "MPLBACKEND": "agg",  # figures are written, never shown; a notebook's backend cannot be imported here
}
REMOVED = (
    "XLA_FLAGS",  # of simulators only; one that this version does not know ends the process
    "MUJOCO_GL",  # nothing is rendered, and these libraries may be missing
    "PYOPENGL_PLATFORM",
    "NVIDIA_TF32_OVERRIDE",  # --tf32 alone decides
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",  # oneDNN may round to what it names
    "DNNL_DEFAULT_FPMATH_MODE",
)


def settle() -> None:
    """Set the variables. Empty paths count as not set. Text that a terminal cannot show is escaped there."""
    for name in (*PATHS, *SCRATCH, *LISTS):
        if not os.environ.get(name, "x").strip():
            del os.environ[name]
    _settle_user()
    for name in filter(os.environ.get, (*PATHS, *SCRATCH)):
        os.environ[name] = absolute(os.environ[name])
    for name in filter(os.environ.get, LISTS):
        os.environ[name] = os.pathsep.join(map(absolute, filter(None, os.environ[name].split(os.pathsep))))
    for name in [name for name in os.environ if name.startswith("JAX_") or name in REMOVED]:
        del os.environ[name]  # precision, random numbers and devices of JAX are part of what a recording is
    os.environ.update(REQUIRED)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large tensors on huge pages, a fifth fewer page faults
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def chosen_paths() -> dict[str, str]:
    """The folders and files that variables name here, for workers on other nodes."""
    return {name: os.environ[name] for name in (*PATHS[1:], *LISTS) if os.environ.get(name)}


def _settle_user() -> None:
    """In a container the user id may be in no list of users: libraries that ask for name or home then find them."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", str(os.getuid()))
        if "HOME" not in os.environ and os.environ.get("OFFMARL_CACHE"):
            os.environ["HOME"] = os.environ["OFFMARL_CACHE"]


def absolute(path: str) -> str:
    """The path from the root, with ~ as the home directory where there is one."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:  # no home directory
        return str(Path(path).absolute())
