"""What decides a task's numbers: the simulator and its versions."""

import re
from functools import cache
from importlib.metadata import requires, version

from offmarl.benchmarks.tasks import ENGINES, Task, adapter_module


def fingerprint(task: Task) -> dict[str, str]:
    """The simulator's label and versions, without importing it.

    `unlocked` names the packages of another version than offmarl requires: simulators change between versions.
    """
    engine = ENGINES[task.engine]
    facts = {"engine": engine.label, **{name: version(name) for name in engine.packages}}
    strangers = [name for name in engine.packages if _locked().get(name, facts[name]) != facts[name]]
    if strangers:
        facts["unlocked"] = ", ".join(f"{name} {facts[name]} instead of {_locked()[name]}" for name in strangers)
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
    """The packages that offmarl requires in one version only, and that version."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)$", "\n".join(requires("offmarl") or []), re.MULTILINE))
