"""The papers' experiments on the suites' tasks: arms trained on the same data and seeds, through the grid.

Their runs are stored like any others, in a store of their own (`<results>/experiments/`), so that no table of a suite
takes them for its runs; experiments share the arms that they have in common.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import MEAN_Q
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.jobs import Job, Request
from offmarl.experiments.launch.prepare_data import prepare
from offmarl.experiments.launch.serial import launch
from offmarl.experiments.store.leftovers import clear_leftovers
from offmarl.experiments.store.reading import finished
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host, code

Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """A method, with a variant on top of the profile's, settings, and the share of offline data in online batches."""

    method: str
    variant: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    share: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """One experiment, as comparisons.yaml has it."""

    name: str
    title: str
    claim: str
    arms: Mapping[str, Mapping[str, Any]]
    rules: list[list[Any]]
    picture: str
    quantities: list[str]
    profiles: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, Any] = field(default_factory=dict)  # by profile, where they are not the common ones
    set: Mapping[str, Any] = field(default_factory=dict)  # settings of every arm that has them
    online: bool = False  # the second half of the updates learns from what is played
    axis: str = ""
    note: str = ""

    def jobs(self, profile: str, source: str) -> dict[str, list[Job]]:
        """Every arm's trainings, on the datasets that the source has here."""
        wanted = self.datasets.get(profile) or self.profiles[profile]["datasets"]
        pairs = [(suite, dataset) for suite, names in wanted.items() for dataset in names]
        arms = {label: Arm(**arm) for label, arm in self.arms.items()}
        return {
            label: [job for suite, dataset in pairs for job in self._jobs(arm, suite, dataset, profile, source)]
            for label, arm in arms.items()
        }

    def _jobs(self, arm: Arm, suite: str, dataset: str, profile: str, source: str) -> Iterator[Job]:
        """None where the method does not act in the dataset's space, or the dataset is not here."""
        budget, own = self.profiles[profile], grid.profiles()[profile]["variant"]
        if not grid.acts_in(registry()[arm.method], dataset.split(":")[0]):
            return
        request = Request(
            suite=suite,
            profile=profile,
            source=source,
            algorithms=[arm.method],
            tasks=[dataset],
            seeds=budget["seeds"],
            variant="+".join(filter(None, [own, arm.variant])),
            overrides=[f"{arm.method}.{key}={json.dumps(value)}" for key, value in {**self.set, **arm.set}.items()],
        )
        for job in grid.jobs(request):
            steps = budget.get("steps", job.protocol["steps"])
            protocol = {**job.protocol, "steps": steps, "eval_every": max(1, steps // budget["looks"])}
            protocol["eval_episodes"] = budget.get("episodes", job.protocol["eval_episodes"])
            if self.online:
                protocol["online"] = {"from": steps // 2, "lanes": budget["lanes"], "share": arm.share, "noise": 0.0}
            changes = {**self.set, **arm.set, **({"offline": arm.share} if self.online else {})}
            label = "".join(f"+{key}={value}" for key, value in changes.items())
            yield replace(job, variant=job.variant + label, protocol=protocol)

    def conduct(self, profile: str, source: str, host: Host, results: Path, workers: int) -> Row:
        """Train what the store lacks, and return what reports need.

        Raises:
            UserError: when nothing can be shown.
        """
        found = self.jobs(profile, source)
        store, every = Store(results / "experiments"), [job for jobs in found.values() for job in jobs]
        clear_leftovers(store.root)
        left = grid.pending(list({job.key: job for job in every}.values()), store)
        faults = prepare([*{(job.task, job.quality): job.entry for job in left}.values()], source, min(workers, 2))
        faults += launch(left, store.root, host, workers)
        faults += [
            f"{job.title} ({job.variant}): not done yet" for job in grid.pending(every, store, retry_failed=False)
        ]
        rows = [row for label, jobs in found.items() for job in jobs for row in _seen(store, label, job)]
        lost = {f"{run_id}: {record['status']}: {record['reason']}" for run_id, record in _ended(store, every)}
        return self.told(profile, source, host, rows, [*faults, *sorted(lost)])

    def told(self, profile: str, source: str, host: Host, rows: list[Row], missing: list[str]) -> Row:
        """What reports need: what stands in comparisons.yaml, the rows, and where they were measured.

        Raises:
            UserError: when there are no rows.
        """
        if not rows:
            why = "; ".join(missing) or f"no finished run of profile {profile} on {source} data with two looks or more"
            raise UserError(f"{self.name}: nothing to show: {why}")
        names = ("title", "claim", "note", "rules", "picture", "quantities", "axis", "online")
        facts = {"study": self.name, "profile": profile, "source": source, "missing": missing, "settings": None}
        facts |= {name: getattr(self, name) for name in names} | {"machine": host.facts(), "code": code()}
        seeds, steps = sorted({row["seed"] for row in rows}), max(row["step"] for row in rows)
        return facts | {"budget": {"seeds": seeds, "steps": steps}, "rows": rows}


class Everything(Comparison):
    """Trains nothing: shows the runs of the store that were looked at twice or more, other experiments' too.

    Those with changed settings are left to their experiments.
    """

    def conduct(self, profile: str, source: str, host: Host, results: Path, workers: int) -> Row:
        """Collect them. Where two runs are of one cell, the one with more looks is shown."""
        usual, cells = grid.profiles()[profile]["variant"], {}
        for place, record in (*finished(results), *finished(results / "experiments")):
            cell = record["cell"]
            wanted = (cell["profile"], cell["source"], cell["variant"]) == (profile, source, usual)
            if wanted and len(record["evaluations"]) > 1:
                key = record["algorithm"]["title"], _setting(cell["task"], cell["quality"]), cell["seed"]
                rows = [dict(zip(("arm", "setting", "seed"), key)) | row for row in looks(record, place)]
                cells[key] = max(cells.get(key, []), rows, key=len)
        return self.told(profile, source, host, [row for rows in cells.values() for row in rows], [])


@cache
def comparisons() -> dict[str, Comparison]:
    """Every experiment by name."""
    entries = yaml.safe_load(resources.files("offmarl.experiments.studies").joinpath("comparisons.yaml").read_text())
    defaults = entries.pop("defaults")
    kinds = {name: Everything if entry.pop("stored", False) else Comparison for name, entry in entries.items()}
    return {name: kinds[name](name, **(defaults | entry)) for name, entry in entries.items()}


def _setting(task: str, quality: str) -> str:
    return f"{task.split('/')[1]} {quality}"


def _ended(store: Store, jobs: list[Job]) -> Iterator[tuple[str, Row]]:
    """The runs that ended without a result."""
    for run_id in {run_id for job in jobs for run_id in job.run_ids()}:
        record = store.read(run_id)
        if record and record["status"] != "done":
            yield run_id, record


def _seen(store: Store, arm: str, job: Job) -> Iterator[Row]:
    """A row for every look at every seed of a finished job."""
    for seed, run_id in zip(job.seeds, job.run_ids()):
        record = store.read(run_id)
        if record and record["status"] == "done":
            for row in looks(record, store.runs / run_id):
                yield {"arm": arm, "setting": _setting(job.task, job.quality), "seed": seed, **row}


def looks(record: Row, folder: Path) -> Iterator[Row]:
    """A run's evaluations: step, return, normalised return, the critic's mean value where there is one."""
    curves = pd.read_parquet(folder / "curves.parquet").set_index("step")
    data = record["dataset"]["return_mean"]
    low, high = record.get("score") or (0.0, data)
    for evaluation in record["evaluations"]:
        value = float(np.mean(evaluation["returns"]))
        row = {"step": evaluation["step"], "return": value, "data": data, "relative": (value - low) / (high - low)}
        if MEAN_Q in curves:
            row[MEAN_Q] = float(curves[MEAN_Q].loc[: evaluation["step"]].iloc[-1])
        yield row
