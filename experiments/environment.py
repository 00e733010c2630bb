"""The environment variables of this process and of those that it starts, set once before anything heavy is imported.

A variable of the user's shell must neither change what a simulator records nor end a command: what offmarl depends on
is set here, and paths become absolute, because Ray's workers start in another directory.
"""

import os
from pathlib import Path

PATHS = ("OFFMARL_CACHE", "OFFMARL_DATA", "OFFMARL_PREY", "SC2PATH", "XDG_CACHE_HOME", "HF_HOME")
LISTS = ("OFFMARL_ALGORITHMS",)  # joined as in PATH
REQUIRED = {
    "JAX_PLATFORMS": "cpu",  # battles are small; the accelerator belongs to the networks
    "MPLBACKEND": "agg",  # figures are written, never shown; a notebook's backend cannot be imported here
}
PREFERRED = {"THP_MEM_ALLOC_ENABLE": "1"}  # torch: large tensors on huge pages, a fifth fewer page faults
REMOVED = ("MUJOCO_GL", "PYOPENGL_PLATFORM")  # nothing is rendered, and their libraries may be missing


def settle() -> None:
    """Set the variables. Empty paths count as not set."""
    for name in (*PATHS, *LISTS):
        if not os.environ.get(name, "x").strip():
            del os.environ[name]
    for name in filter(os.environ.get, PATHS):
        os.environ[name] = absolute(os.environ[name])
    for name in filter(os.environ.get, LISTS):
        os.environ[name] = os.pathsep.join(map(absolute, filter(None, os.environ[name].split(os.pathsep))))
    for name in [name for name in os.environ if name.startswith("JAX_") or name in REMOVED]:
        del os.environ[name]  # precision, random numbers and devices of JAX are part of what a recording is
    os.environ.update(REQUIRED)
    for name, value in PREFERRED.items():
        os.environ.setdefault(name, value)


def absolute(path: str) -> str:
    """The path from the root, with ~ as the home directory where there is one."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError:  # no home directory
        return str(Path(path).absolute())
