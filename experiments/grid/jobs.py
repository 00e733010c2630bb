"""From a suite, a profile and the command line to the jobs of the grid.

A job trains all seeds of one dataset x algorithm x variant in lock step; each seed is a cell of the store.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.catalogue import EMBEDDED, SOURCES, Entry, catalogue
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid.config import parse_overrides, resolve
from offmarl.experiments.grid.suite import ALL, expand, load_suite, profiles, suite_names  # noqa: F401 - a part of the grid
from offmarl.experiments.store.store import Cell, Store, config_hash

REPEATED = ("eval_noise", "batch_size")  # of the config, which a record's protocol repeats


@dataclass(frozen=True)
class Job:
    """One training: a dataset, a method with its resolved config, and the seeds that train together."""

    task: str
    quality: str
    source: str
    algorithm: str
    variant: str
    profile: str
    seeds: tuple[int, ...]
    config: Mapping[str, Any]
    protocol: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """Of everything that decides the result of a seed."""
        return config_hash({"config": dict(self.config), "protocol": dict(self.protocol)})

    @property
    def key(self) -> str:
        """Names the job and its group of seeds."""
        return f"{self.run_ids()[0]}+{','.join(map(str, self.seeds))}"

    @property
    def lease(self) -> str:
        """Names the job whatever its seeds."""
        name, _, settings = self.run_ids()[0].rsplit(".", 2)
        return f"{name}.{settings}"

    @property
    def title(self) -> str:
        """For progress lines: 3m:good mac_flow."""
        return f"{self.task.split('/')[1]}:{self.quality} {self.algorithm}"

    @property
    def entry(self) -> Entry:
        """The dataset in its source's catalogue."""
        return catalogue(self.source)[self.task, self.quality]

    def cells(self) -> list[Cell]:
        """A cell for each seed."""
        names = (self.task, self.quality, self.source, self.algorithm, self.variant, self.profile)
        return [Cell(*names, seed) for seed in self.seeds]

    def run_ids(self) -> list[str]:
        """The store's names of the cells."""
        return [cell.run_id(self.hash) for cell in self.cells()]

    def algorithm_config(self) -> Any:
        """The method's Config."""
        return registry()[self.algorithm].Config(**self.config)


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None means all."""

    suite: str
    profile: str = "quick"
    source: str = EMBEDDED
    algorithms: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    variant: str | None = None
    overrides: Sequence[str] = ()


def unavailable(suite: Mapping[str, Any]) -> dict[str, str]:
    """The suite's methods that cannot run on any of its tasks, with the reason."""
    reasons = {}
    for name in suite["algorithms"]:
        if name not in registry():
            reasons[name] = "this method is not implemented yet"
        elif not _fits(registry()[name], suite):
            reasons[name] = f"this method is implemented for {'/'.join(registry()[name].actions)} actions only"
    return reasons


def lacking(suite: Mapping[str, Any], source: str) -> dict[str, str]:
    """The suite's datasets (task:quality) that this source cannot offer here, with the reason and what to do."""
    reasons = {}
    for task, quality in _pairs(suite):
        if (task, quality) in catalogue(source):
            reasons[f"{task}:{quality}"] = catalogue(source)[task, quality].unavailable()
        else:
            others = [other for other in SOURCES if (task, quality) in catalogue(other)]
            reasons[f"{task}:{quality}"] = f"not part of {source}; --source {' or '.join(others)} has it"
    return {name: reason for name, reason in reasons.items() if reason}


def by_suite(request: Request) -> list[Request]:
    """One request for every suite, of what it has of the tasks and algorithms that the request names.

    Raises:
        UserError: for a task or algorithm that no suite has.
    """
    suites = {name: load_suite(name) for name in suite_names()}
    known = {name: _qualities(suite) for name, suite in suites.items()}
    union: dict[str, set[str]] = {}
    for own in known.values():
        for task, qualities in own.items():
            union.setdefault(task, set()).update(qualities)
    check_datasets(request.tasks or (), union)
    for method in request.algorithms or ():
        check_name("algorithm", method, registry())

    def has(suite: str, dataset: str) -> bool:
        task, colon, quality = dataset.partition(":")
        return task in known[suite] and (not colon or quality in known[suite][task])

    found = []
    for name, suite in suites.items():
        names = None if request.tasks is None else [dataset for dataset in request.tasks if has(name, dataset)]
        methods = request.algorithms and [m for m in request.algorithms if _fits(registry()[m], suite)]
        if names != [] and methods != []:
            found.append(dataclasses.replace(request, suite=name, tasks=names, algorithms=methods))
    return found


def jobs(request: Request) -> list[Job]:
    """The grid, in the suite's order, of the datasets that are there.

    Raises:
        UserError: for anything unknown, with the nearest known name.
    """
    if request.suite == ALL:
        return list({job.key: job for one in by_suite(request) for job in jobs(one)}.values())
    suite = load_suite(request.suite)
    profile = _profile(suite, request)
    check_name("source", request.source, SOURCES)
    methods = _methods(suite, request)
    overrides = parse_overrides(request.overrides)
    variant = request.variant or profile["variant"]
    for name in variant.split("+"):
        check_name("variant", name, sorted({"paper", *(v for m in registry().values() for v in m.variants)}))
    steps = dict.fromkeys((m.name for m in methods), profile["steps"]) | profile.get("own_steps", {})
    protocol = {k: profile[k] for k in ("eval_every", "eval_episodes")}
    protocol |= {"timeout_bootstrap": False}
    seeds = tuple(profile["seeds"] if request.seeds is None else request.seeds)
    variants = {m.name: suite.get("variants", {}).get(m.name, {}).get(variant, variant) for m in methods}
    layers = (profile["config"], suite["protocol"])
    configs = {
        (method.name, task): resolve(method, variants[method.name], [*layers, _of_task(suite, method, task)], overrides)
        for method in methods
        for task in _qualities(suite)
        if acts_in(method, task)
    }
    return [
        Job(
            *(task, quality, request.source, method.name, variants[method.name], request.profile, seeds),
            config=configs[method.name, task],
            protocol=protocol | {"steps": steps[method.name], "data": key},
        )
        for task, quality in _datasets(suite, profile, request)
        for key in [catalogue(request.source)[task, quality].key()]
        for method in methods
        if acts_in(method, task)
    ]


def left_out(request: Request) -> dict[str, str]:
    """The datasets (task:quality) that a request asks for and that are not there, with the reason and what to do."""
    if request.suite == ALL:
        return {name: reason for one in by_suite(request) for name, reason in left_out(one).items()}
    suite = load_suite(request.suite)
    wanted = {f"{task}:{quality}" for task, quality in _selected(suite, _profile(suite, request), request)}
    return {name: reason for name, reason in lacking(suite, request.source).items() if name in wanted}


def _profile(suite: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The profile, with what the suite's file has otherwise."""
    profile = profiles()[check_name("profile", request.profile, profiles())]
    differences = suite.get("profiles", {}).get(request.profile, {})
    return profile | differences | {"config": profile["config"] | differences.get("config", {})}


def _of_task(suite: Mapping[str, Any], method: type[Algorithm], task: str) -> dict[str, Any]:
    """What the suite sets for a method on a task: for its family first, then for itself."""
    own = suite.get("settings", {}).get(method.name, {})
    return own.get(task.split("/")[0], {}) | own.get(task, {})


def _fits(method: type[Algorithm], suite: Mapping[str, Any]) -> bool:
    return any(acts_in(method, task) for task in _qualities(suite))


def acts_in(method: type[Algorithm], task: str) -> bool:
    """Whether a method can play a task."""
    return ("discrete" if tasks()[task].discrete else "continuous") in method.actions


def _methods(suite: Mapping[str, Any], request: Request) -> list[type[Algorithm]]:
    if request.algorithms is None:
        return [registry()[name] for name in suite["algorithms"] if name in registry()]
    for name in request.algorithms:
        method = registry()[check_name("algorithm", name, registry())]
        if not _fits(method, suite):
            raise UserError(
                f"--algorithms {name}: acts in {'/'.join(method.actions)} spaces, unlike this suite's tasks"
            )
    return [registry()[name] for name in dict.fromkeys(request.algorithms)]


def _qualities(suite: Mapping[str, Any]) -> dict[str, list[str]]:
    """Task to the qualities of it that the suite has."""
    return {task: qualities for group in suite["groups"].values() for task, qualities in group.items()}


def _pairs(suite: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(task, quality) for task, qualities in _qualities(suite).items() for quality in qualities]


def check_datasets(names: Iterable[str], known: Mapping[str, Iterable[str]]) -> None:
    """Refuse a task, or a task:quality, that is not among the known ones."""
    for name in names:
        task, colon, quality = name.partition(":")
        check_name("task", task, known)
        if colon:
            check_name(f"quality of {task}", quality, sorted(known[task]))


def _datasets(suite: Mapping[str, Any], profile: Mapping[str, Any], request: Request) -> list[tuple[str, str]]:
    absent = lacking(suite, request.source)
    return [(t, q) for t, q in _selected(suite, profile, request) if f"{t}:{q}" not in absent]


def _selected(suite: Mapping[str, Any], profile: Mapping[str, Any], request: Request) -> list[tuple[str, str]]:
    known = _qualities(suite)
    if request.tasks is not None and not request.tasks:
        raise UserError("--tasks: names no task; leave it out for all of the suite")
    wanted = request.tasks or profile.get("tasks") or list(known)
    check_datasets(wanted, known)
    return [(t, q) for t, q in _pairs(suite) if t in wanted or f"{t}:{q}" in wanted]


def stored_job(record: Mapping[str, Any], seeds: Sequence[int]) -> Job:
    """The job that made a stored run, for these seeds. KeyError where the record does not say."""
    cell = {key: value for key, value in record["cell"].items() if key != "seed"}
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in record["config"].items()}
    protocol = {key: value for key, value in record["protocol"].items() if key not in REPEATED}
    return Job(**cell, seeds=tuple(seeds), config=config, protocol=protocol)


def pending(grid: Sequence[Job], store: Store, retry_failed: bool = True) -> list[Job]:
    """The jobs with the seeds that are not done yet. It reads what is done, to see that it is whole."""
    open_status = ("pending", "failed") if retry_failed else ("pending",)
    left = []
    for job in tqdm(grid, desc="checking runs", unit="job", leave=False, disable=None, delay=1):
        seeds = tuple(s for s, run_id in zip(job.seeds, job.run_ids()) if store.status(run_id) in open_status)
        if seeds:
            left.append(dataclasses.replace(job, seeds=seeds))
    return left
