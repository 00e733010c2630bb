"""The fingerprint of a task: the simulator and the versions that decide its numbers."""

import re
from functools import cache
from importlib.metadata import requires, version

from offmarl.benchmarks.tasks import ENGINES, Task, adapter_module


def fingerprint(task: Task) -> dict[str, str]:
    """The simulator's label and versions, without importing it.

    `unlocked` names packages of another version than offmarl requires: simulators change between versions.
    """
    engine = ENGINES[task.engine]
    facts = {"engine": engine.label, **{name: version(name) for name in engine.packages}}
    others = [name for name in engine.packages if _locked().get(name, facts[name]) != facts[name]]
    if others:
        facts["unlocked"] = ", ".join(f"{name} {facts[name]} instead of {_locked()[name]}" for name in others)
    if engine.rules:
        facts["rules"] = str(engine.rules)
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
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)$", "\n".join(requires("offmarl") or []), re.MULTILINE))
