"""The papers' experiments on the suites' tasks: arms trained on the same data and seeds, through the grid.

Their runs are stored like any others, in a store of their own (`<results>/experiments/`), so that no table of a suite
shows them; experiments share the arms that they have in common.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, PositiveInt, model_validator

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import MEAN_Q, OWN
from offmarl.benchmarks.yaml_files import Strict, packaged
from offmarl.datasets.catalogue import EMBEDDED, catalogue
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.config import resolve
from offmarl.experiments.grid.jobs import Job, OnlinePhase, Request
from offmarl.experiments.grid.suite import load_suite, profiles, suite_names
from offmarl.experiments.launch.serial import largest_first, train_pending
from offmarl.experiments.store.reading import by_play, finished, scale, told
from offmarl.experiments.store.store import Store
from offmarl.experiments.studies.experiment import Experiment, File, Row, Seeds
from offmarl.experiments.training.machine import Host

PICTURES = ("learning", "categories")
LOSSES = ("critic", "distillation", "q")  # of MAC-Flow's critics and policies
QUANTITIES = ("return", "relative", MEAN_Q, *LOSSES)
Datasets = dict[str, list[str]]  # suite to datasets of it, task:quality


class Arm(Strict):
    """A method, with a variant on top of the profile's, settings, and the share of offline data in online batches."""

    method: str
    variant: str = ""
    set: dict[str, Any] = {}
    share: float = Field(0.0, ge=0.0, le=1.0)


class Budget(Strict):
    """How much work a profile is; what it does not say, the grid's profile of that name says."""

    seeds: Seeds
    evaluations: PositiveInt
    lanes: PositiveInt  # episodes side by side in online play
    datasets: Datasets
    steps: PositiveInt | None = None
    episodes: PositiveInt | None = None  # of an evaluation


class Comparison(Experiment):
    """One experiment of comparisons.yaml."""

    arms: dict[str, Arm]
    quantities: list[str]
    profiles: dict[str, Budget]
    datasets: dict[str, Datasets] = {}  # by profile, where they are not the profile's
    steps: dict[str, PositiveInt] = {}  # likewise
    set: dict[str, Any] = {}  # settings of every arm
    online: bool = False  # the second half of the updates learns from what is played
    stored: bool = False  # trains nothing, and shows the runs of the store
    axis: str = ""

    @model_validator(mode="after")
    def _known(self) -> "Comparison":
        """Every name is one that the harness knows."""
        for label, arm in self.arms.items():
            method = registry()[check_name(f"method of {label}", arm.method, registry())]
            for variant in filter(None, arm.variant.split("+")):
                check_name(f"variant of {arm.method}", variant, method.variant_names())
            for space in method.actions:
                resolve(method, arm.variant, space, [], {arm.method: self.set | arm.set})
        for profile in (*self.profiles, *self.datasets, *self.steps):
            check_name("profile", profile, self.profiles.keys() & profiles().keys())
        for datasets in (*self.datasets.values(), *(budget.datasets for budget in self.profiles.values())):
            for suite, names in datasets.items():
                check_name("suite", suite, suite_names())
                grid.select(catalogue(EMBEDDED), names)
        for quantity in self.quantities:
            check_name("quantity", quantity, QUANTITIES)
        arms = [method.title for method in registry().values()] if self.stored else self.arms
        self.check(PICTURES, arms, QUANTITIES, ("before", "gain") if self.online else ())
        return self

    def on(self, profile: str, names: Sequence[str]) -> "Comparison":
        """The experiment on other datasets (tasks, or task:quality), in its own suites where these have them.

        Raises UserError for a dataset that no suite has, and where the experiment trains nothing.
        """
        if self.stored:
            raise UserError(f"--tasks: {self.title} shows what the store holds, and trains nothing")
        own = [suite for datasets in (*self.datasets.values(), self.profiles[profile].datasets) for suite in datasets]
        suites = {suite: load_suite(suite).datasets for suite in dict.fromkeys([*own, *suite_names()])}
        grid.select([pair for datasets in suites.values() for pair in datasets], names)
        found: Datasets = {}
        for name in names:
            suite = next(s for s, has in suites.items() if any(name in (task, f"{task}:{q}") for task, q in has))
            found.setdefault(suite, []).append(name)
        note = f"Only on {', '.join(names)}, which --tasks named. {self.note}".strip()
        return self.model_copy(update={"datasets": self.datasets | {profile: found}, "note": note})

    def jobs(self, profile: str, source: str) -> dict[str, list[Job]]:
        """Every arm's trainings, on the datasets that the source has here."""
        pairs = [(suite, dataset) for suite, names in self._datasets(profile).items() for dataset in names]
        return {
            label: [job for suite, dataset in pairs for job in self._jobs(arm, suite, dataset, profile, source)]
            for label, arm in self.arms.items()
        }

    def unavailable(self, profile: str, source: str) -> list[str]:
        """A line for each of its datasets that the source does not have here, with the reason and what to do."""
        asked = [Request(suite, profile, source, tasks=names) for suite, names in self._datasets(profile).items()]
        found = {name: reason for request in asked for name, reason in grid.unavailable(request).items()}
        return [f"{name} on {source} data: {reason}" for name, reason in found.items()]

    def _datasets(self, profile: str) -> Datasets:
        return self.datasets.get(profile) or self.profiles[profile].datasets

    def _jobs(self, arm: Arm, suite: str, dataset: str, profile: str, source: str) -> Iterator[Job]:
        """None where the method does not act in the dataset's space, or the source does not have the dataset here."""
        budget, changes = self.profiles[profile], self.set | arm.set
        if not grid.acts_in(registry()[arm.method], dataset.split(":")[0]):
            return
        request = Request(
            suite=suite,
            profile=profile,
            source=source,
            algorithms=[arm.method],
            tasks=[dataset],
            seeds=budget.seeds,
            variant="+".join(filter(None, [profiles()[profile].variant, arm.variant])),
            overrides={arm.method: changes},
            as_named=True,  # ablations are of the paper's text
        )
        for job in grid.jobs(request):
            steps = self.steps.get(profile) or budget.steps or job.protocol.steps
            protocol = replace(
                job.protocol,
                steps=steps,
                eval_every=max(1, steps // budget.evaluations),
                eval_episodes=budget.episodes or job.protocol.eval_episodes,
                plays=(OWN,),
                online=OnlinePhase(steps // 2, budget.lanes, arm.share, 0.0) if self.online else None,
            )
            shown = {**changes, **({"offline": arm.share} if self.online else {})}
            variant = job.variant + "".join(f"+{key}={value}" for key, value in shown.items())
            yield replace(job, variant=variant, protocol=protocol)

    def run(self, profile: str, source: str, host: Host, results: Path, workers: int, again: bool = False) -> Row:
        """Train what is pending, `again` what is stale too; return what reports need. UserError without any run."""
        if self.stored:
            failures, (rows, lost) = [], stored_rows(results, profile, source)
            words = " ".join(str(word) for rule in self.rules for word in rule)
            arms = {name: method.title for name, method in registry().items() if f"{method.title}." in words}
            missing = [
                f"a seed of {arms[name]} on {where} ({why})" for (name, where), why in lost.items() if name in arms
            ]
        else:
            store = Store(results / "experiments")
            rows, failures, missing = self._train(profile, source, host, store, workers, again)
        if not rows:
            none = f"no finished run of profile {profile} on {source} data with two evaluations or more"
            raise UserError(f"{self.title}: nothing to show: {'; '.join(missing) or none}")
        budget = {"seeds": sorted({row["seed"] for row in rows}), "steps": max(row["step"] for row in rows)}
        facts = self.model_dump(include={"quantities", "axis", "online"}) | {"source": source, "settings": None}
        return self.record(profile, host, **facts, missing=missing, failures=failures, budget=budget, rows=rows)

    def _train(
        self, profile: str, source: str, host: Host, store: Store, workers: int, again: bool
    ) -> tuple[list[Row], list[str], list[str]]:
        """Train what is pending. Returns a row for every evaluation, what failed now, and what is missing and why."""
        arms = self.jobs(profile, source)
        jobs = largest_first(list({job.key: job for found in arms.values() for job in found}.values()))
        failures, stale = train_pending(jobs, source, store, host, workers, again)
        missing = [*failures, *self.unavailable(profile, source)]
        missing += [f"{stale} runs with current code (stored ones are stale; --again retrains them)"] if stale else []
        missing += [f"{job.title} ({job.variant}): not done yet" for job in grid.pending(jobs, store, False)]
        rows, failed = [], set()
        for label, job in ((label, job) for label, found in arms.items() for job in found):
            for seed, run_id in zip(job.seeds, job.run_ids()):
                record = store.read(run_id)
                if record and record["status"] == "done":
                    names = {"arm": label, "setting": _setting(vars(job)), "seed": seed}
                    rows += [names | row for row in evaluations(record, store.runs / run_id)]
                elif record:
                    failed.add(f"{run_id}: {record['status']}: {record['reason']}")
        return rows, failures, [*missing, *sorted(failed)]


def comparisons() -> dict[str, Comparison]:
    """Every experiment by name."""
    return packaged(File[Comparison], "offmarl.experiments.studies", "comparisons.yaml").experiments


def stored_rows(results: Path, profile: str, source: str) -> tuple[list[Row], dict[tuple[str, str], str]]:
    """A row for every evaluation of the stored runs with two or more, of suites and experiments; what lost seeds, why.

    Runs with changed settings are not among them. Of two runs of one cell, the one with more evaluations is. A method
    on a dataset where one of its seeds failed, diverged or is stale has no rows.
    """
    variants, cells, lost = _variants(profile), {}, {}

    def wanted(cell: Row) -> bool:
        own = variants.get((cell["algorithm"], cell["task"], cell["quality"]), profiles()[profile].variant)
        return (cell["profile"], cell["source"], cell["variant"]) == (profile, source, own)

    stored = [(store, told(store)) for store in (Store(results), Store(results / "experiments"))]
    for record in (record for _, records in stored for record in records.values()):
        status = "stale" if record["status"] == "done" and why_stale(record) else record["status"]
        if status != "done" and wanted(record["cell"]):
            lost[record["cell"]["algorithm"], _setting(record["cell"])] = status
    for folder, record in itertools.chain.from_iterable(itertools.starmap(finished, stored)):
        cell = record["cell"]
        whole = wanted(cell) and (cell["algorithm"], _setting(cell)) not in lost
        if whole and len(by_play(record).get(OWN, ())) > 1:
            key = record["algorithm"]["title"], _setting(cell), cell["seed"]
            names = dict(zip(("arm", "setting", "seed"), key))
            rows = [names | row for row in evaluations(record, folder)]
            cells[key] = max(cells.get(key, []), rows, key=len)
    return [row for rows in cells.values() for row in rows], dict(sorted(lost.items()))


def _variants(profile: str) -> dict[tuple[str, str, str], str]:
    """The variant that the first suite with a method and a dataset trains."""
    found: dict[tuple[str, str, str], str] = {}
    for suite in map(load_suite, suite_names()):
        for method, (task, quality) in itertools.product(suite.algorithms, suite.datasets):
            found.setdefault((method, task, quality), suite.variant(method, suite.profile(profile).variant))
    return found


def _setting(cell: Mapping[str, Any]) -> str:
    return f"{cell['task'].split('/')[1]} {cell['quality']}"


def evaluations(record: Row, folder: Path) -> Iterator[Row]:
    """A run's evaluations in its own play: step, mean return, the data's, normalised, the critic's mean if any.

    And its losses, if any: their means since the evaluation before.
    """
    curves = pd.read_parquet(folder / "curves.parquet").set_index("step")
    losses, before = [name for name in LOSSES if name in curves], 0
    data, (low, high) = record["dataset"]["return_mean"], scale(record)
    for evaluation in by_play(record).get(OWN, ()):
        value = float(np.mean(evaluation["returns"]))
        row = {"step": evaluation["step"], "return": value, "data": data, "relative": (value - low) / (high - low)}
        if MEAN_Q in curves:
            row[MEAN_Q] = float(curves[MEAN_Q].loc[: evaluation["step"]].iloc[-1])
        yield row | curves.loc[before + 1 : evaluation["step"], losses].mean().to_dict()
        before = evaluation["step"]
