"""The fingerprint of a task: the simulator and versions that decide its numbers, and the checksum of a rollout."""

import hashlib
import re
from functools import cache
from importlib.metadata import requires, version

import numpy as np

from offmarl.benchmarks import own
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import Task, adapter_module, make_env

STEPS, DECIMALS = 50, 3  # of the reference rollout
SEED = 800_000_000  # no recording or evaluation uses it


def fingerprint(task: Task) -> dict[str, str]:
    """The simulator's label and versions, without importing it.

    `unlocked` names packages of another version than offmarl requires: simulators change between versions.
    """
    engine = task.simulator
    if reason := own.missing(engine.packages):
        return {"engine": engine.label, "missing": reason}
    facts = {"engine": engine.label, **{name: version(name) for name in engine.packages}}
    others = [name for name in engine.packages if _locked().get(name, facts[name]) != facts[name]]
    if others:
        facts["unlocked"] = ", ".join(f"{name} {facts[name]} instead of {_locked()[name]}" for name in others)
    if rules := task.roster.get("rules", engine.rules):
        facts["rules"] = str(rules)
    if engine.presence:
        facts |= adapter_module(engine.presence).facts(task.engine)
    if task.roster.get("physics") == "legacy":
        facts["physics"] = "legacy"
    if "prey" in task.roster:
        from offmarl.benchmarks.mpe import load_prey

        facts["prey"] = load_prey(task.short, task.roster.get("weights")).name
    return facts


@cache
def _locked() -> dict[str, str]:
    """The packages that offmarl requires in exactly one version, and that version."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)(?: *;.*)?$", "\n".join(requires("offmarl") or []), re.MULTILINE))


def reference(task: Task) -> dict[str, str]:
    """`rollout`: the SHA-256 of fifty steps with random legal actions from a fixed seed, rounded against round-off.

    Nothing for real StarCraft, which takes minutes to start, and for a task without a simulator.
    """
    return {} if task.simulator.presence or not task.played else {"rollout": _played(task, repr(task))}


@cache
def _played(task: Task, facts: str) -> str:
    """The checksum of one rollout. `facts` distinguishes tasks of one name, which compare as equal, in the cache."""
    digest, rng, act = hashlib.sha256(), np.random.default_rng(SEED), uniform(task)
    env = make_env(task, 1)
    view = env.reset(np.array([SEED]))
    for k in range(STEPS):
        step = env.step(act(view, rng))
        for part in (step.view.obs, step.reward):
            digest.update((np.round(np.asarray(part, np.float64), DECIMALS) + 0.0).tobytes())
        view = env.reset(np.array([SEED + k + 1])) if step.done.all() else step.view
    env.close()
    return digest.hexdigest()
