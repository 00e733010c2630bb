"""From a suite, a profile and the command line to the jobs of the grid.

A job trains all seeds of one dataset x algorithm x variant in lock step; each seed is a cell of the store.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tqdm import tqdm

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import OWN, Algorithm
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.catalogue import EMBEDDED, SOURCES, Entry, catalogue
from offmarl.datasets.derived import Derived
from offmarl.datasets.part import part
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid import tuned
from offmarl.experiments.grid.config import Overrides, config_from, of_method, resolve
from offmarl.experiments.grid.suite import TUNED, Profile, Suite, expand, load_suite
from offmarl.experiments.store.reading import plays_of
from offmarl.experiments.store.store import WITH_RESULT, Cell, Group, Record, Store, config_hash, group_name

REPEATED = ("batch_size",)  # of the config, which a record's protocol repeats
FOLLOWING = ("round_updates",)  # settings in updates of the profile's length, in proportion to a run's own


@dataclass(frozen=True)
class OnlinePhase:
    """Online fine-tuning after the offline updates."""

    start: int  # updates before it
    lanes: int  # parallel episodes of each seed
    share: float  # of every batch that is offline data
    noise: float  # standard deviation of normal noise on continuous actions


@dataclass(frozen=True)
class Protocol:
    """How long a job trains, how it is evaluated, and on which data. The order of fields is that of records."""

    eval_every: int  # updates
    eval_episodes: int  # of each seed
    timeout_bootstrap: bool  # value what follows a time-out
    steps: int  # updates
    data: str  # key of the dataset's content
    plays: tuple[str, ...] = (OWN,)  # how the trained networks are evaluated, each in turn
    online: OnlinePhase | None = None
    data_share: float = 1.0  # of the dataset's episodes

    def to_json(self) -> dict[str, Any]:
        """As records hold it: online phase and share only where there is one, the phase's start called `from`."""
        facts = {**dataclasses.asdict(self), "plays": list(self.plays)}
        if facts["data_share"] == 1:
            del facts["data_share"]
        if online := facts.pop("online"):
            facts["online"] = {"from": online.pop("start"), **online}
        return facts

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Protocol":
        """From a record's protocol. TypeError or KeyError where it has other keys."""
        facts: dict[str, Any] = {**_own_facts(stored), "plays": tuple(plays_of(stored))}
        if "online" in facts:
            online = dict(facts["online"])
            facts["online"] = OnlinePhase(online.pop("from"), **online)
        return cls(**facts)


@dataclass(frozen=True)
class Job(Group):
    """One training: a dataset, a method with its resolved config, and the seeds that train together."""

    seeds: tuple[int, ...]
    config: Any  # the method's Config
    protocol: Protocol

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its settings: another process cannot import the Config of a method file by name."""
        return stored_job, ({"cell": self._cell, **self.settings}, self.seeds)

    @property
    def _cell(self) -> dict[str, str]:
        """What names a cell, but for its seed."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Group)}

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Config and protocol as records hold them: everything that decides the result of a seed."""
        return {"config": dataclasses.asdict(self.config), "protocol": self.protocol.to_json()}

    @cached_property
    def hash(self) -> str:
        """Of the settings."""
        return config_hash(self.settings)

    @property
    def key(self) -> str:
        """Names the job and its group of seeds."""
        return f"{self.run_ids()[0]}+{group_name(self.seeds)}"

    @property
    def lock_name(self) -> str:
        """Names the job whatever its seeds."""
        name, _, settings = self.run_ids()[0].rsplit(".", 2)
        return f"{name}.{settings}"

    @property
    def title(self) -> str:
        """For progress lines: 3m:good mac_flow."""
        return f"{self.task.split('/')[1]}:{self.quality} {self.algorithm}"

    @property
    def entry(self) -> Entry:
        """The dataset in its source's catalogue, or a part of it. Raises UserError for a derived one that is gone."""
        if (entry := catalogue(self.source).get((self.task, self.quality))) is None:
            raise UserError(
                f"{self.task}:{self.quality} ({self.source}): is not here; derive or import it again, or name the "
                "file of a task of your own: --task FILE"
            )
        return part(entry, self.protocol.data_share)

    def cells(self) -> list[Cell]:
        """A cell for each seed."""
        return [Cell(**self._cell, seed=seed) for seed in self.seeds]

    def run_ids(self) -> list[str]:
        """The store's names of the cells."""
        return [cell.run_id(self.hash) for cell in self.cells()]


@dataclass(frozen=True)
class Request:
    """What is to run; None means all."""

    suite: str
    profile: str = "quick"
    source: str = EMBEDDED
    algorithms: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    variant: str | None = None
    steps: int | None = None  # updates of every method, which its rows' variant names; None: the profile's
    data_share: float = 1.0  # of every dataset's episodes, which its rows' variant names
    overrides: Overrides = field(default_factory=dict)
    as_named: bool = False  # train a variant as it is named, where the suite has others in its place


def unavailable_methods(suite: Suite) -> dict[str, str]:
    """The suite's methods that cannot run on any of its tasks, with the reason."""
    reasons = {}
    for name in suite.algorithms:
        if not _fits(registry()[name], suite):
            reasons[name] = f"this method is implemented for {'/'.join(registry()[name].actions)} actions only"
    return reasons


def unavailable_datasets(suite: Suite, source: str, pairs: Iterable[tuple[str, str]] | None = None) -> dict[str, str]:
    """The datasets (task:quality) that a known source cannot offer here, with the reason and what to do.

    They are the suite's, or those of these pairs of task and quality.
    """
    reasons, known = {}, catalogue(source) if source in SOURCES else {}
    for pair in (suite.datasets if pairs is None else pairs) if source in SOURCES else ():
        if pair in known:
            reasons[":".join(pair)] = known[pair].unavailable()
        else:
            others = [other for other in SOURCES if pair in catalogue(other)]
            reasons[":".join(pair)] = f"not part of {source}; --source {' or '.join(others)} has it"
    return {name: reason for name, reason in reasons.items() if reason}


def by_suite(request: Request) -> list[Request]:
    """A request for every suite that it means, of what it has. Raises UserError for a task or method that none has."""
    suites = {name: load_suite(name) for name in expand(request.suite)}
    select([pair for suite in suites.values() for pair in offered(suite, request)], request.tasks)
    for method in request.algorithms or ():
        check_name("algorithm", method, registry())
    found = []
    for name, suite in suites.items():
        names = {f"{task}:{quality}" for task, quality in offered(suite, request)} | suite.qualities.keys()
        wanted = None if request.tasks is None else [dataset for dataset in request.tasks if dataset in names]
        methods = request.algorithms and [m for m in request.algorithms if _fits(registry()[m], suite)]
        if wanted != [] and methods != []:
            found.append(dataclasses.replace(request, suite=name, tasks=wanted, algorithms=methods))
    return found


def jobs(request: Request) -> list[Job]:
    """The grid, in the suite's order, of the datasets that are there. Raises UserError for anything unknown."""
    if expand(request.suite) != [request.suite]:
        return list({job.key: job for one in by_suite(request) for job in jobs(one)}.values())
    check_name("source", request.source, SOURCES)
    return jobs_of(load_suite(request.suite), request)


def jobs_of(suite: Suite, request: Request) -> list[Job]:
    """The grid of a suite, which may have other datasets than the one that the request names."""
    profile = suite.profile(request.profile)
    methods = _methods(suite, request)
    variant = request.variant or profile.variant
    for name in variant.split("+"):
        check_name(
            "variant", name, sorted({"paper", TUNED, *(v for m in registry().values() for v in m.variant_names())})
        )
    variants = {m.name: variant if request.as_named else suite.variant(m.name, variant) for m in methods}
    selected, known = _selected(suite, profile, request), catalogue(request.source)
    trained_as = {pair: known[pair].trained_as for pair in selected if pair in known}
    configs = {}
    as_trained = [(task, quality) for (task, _), quality in trained_as.items()]
    for method, (task, quality) in itertools.product(methods, dict.fromkeys([*suite.datasets, *as_trained])):
        if acts_in(method, task):
            layers, space = (profile.config, suite.settings_of(method.name, task, quality)), tasks()[task].space
            own, chosen = variants[method.name], {}
            if TUNED in own.split("+"):
                chosen = {method.name: tuned.settings(request.suite, suite, method, task, quality)}
            overrides = profile.fixed, chosen, request.overrides
            configs[method.name, task, quality] = resolve(method, own, space, layers, *overrides)
    seeds = tuple(profile.seeds if request.seeds is None else request.seeds)
    skipped = unavailable_datasets(suite, request.source, selected)
    found = []
    for task, quality in selected:
        if f"{task}:{quality}" in skipped:
            continue
        data, own = part(known[task, quality], request.data_share).key(), trained_as[task, quality]
        for name in [m.name for m in methods if acts_in(m, task)]:
            config, variant = configs[name, task, own], variants[name]
            if request.steps is not None:
                variant = f"{variant}+steps={request.steps}"
            steps = request.steps or profile.steps_of(name, task, own)
            if config.decay_steps == profile.steps:  # the learning rate falls until the end
                config = dataclasses.replace(config, decay_steps=steps)
            given = of_method(request.overrides, registry()[name], tasks()[task].space)
            follow = [key for key in FOLLOWING if hasattr(config, key) and key not in given]
            config = dataclasses.replace(config, **{k: getattr(config, k) * steps // profile.steps for k in follow})
            if request.data_share != 1:
                variant = f"{variant}+data={request.data_share!r}"
            plays, bootstrap = tuple(suite.protocol.plays), suite.protocol.timeout_bootstrap
            eval_every = profile.eval_every_of(steps)
            protocol = Protocol(
                eval_every, profile.eval_episodes, bootstrap, steps, data, plays, data_share=request.data_share
            )
            cell = (task, quality, request.source, name, variant, request.profile)
            found.append(Job(*cell, seeds, config, protocol))
    return found


def unavailable(request: Request) -> dict[str, str]:
    """The datasets (task:quality) of a request that are unavailable here, with the reason and what to do."""
    if expand(request.suite) != [request.suite]:
        return {name: reason for one in by_suite(request) for name, reason in unavailable(one).items()}
    suite = load_suite(request.suite)
    return unavailable_datasets(suite, request.source, _selected(suite, suite.profile(request.profile), request))


def _fits(method: type[Algorithm], suite: Suite) -> bool:
    return any(acts_in(method, task) for task in suite.qualities)


def acts_in(method: type[Algorithm], task: str) -> bool:
    """Whether a method can play a task."""
    return tasks()[task].space in method.actions


def _methods(suite: Suite, request: Request) -> list[type[Algorithm]]:
    if request.algorithms is None:
        return [registry()[name] for name in suite.algorithms]
    for name in request.algorithms:
        method = registry()[check_name("algorithm", name, registry())]
        if not _fits(method, suite):
            spaces = "/".join(method.actions)
            raise UserError(f"--algorithms {name}: acts in {spaces} spaces, unlike this suite's tasks")
    return [registry()[name] for name in dict.fromkeys(request.algorithms)]


def select(known: Iterable[tuple[str, str]], names: Collection[str] | None) -> list[tuple[str, str]]:
    """The pairs that names (task, or task:quality) mean; None means all. Raises UserError for a name that fits none."""
    known = list(known)
    for name in names or ():
        task, colon, quality = name.partition(":")
        check_name("task", task, dict.fromkeys(known_task for known_task, _ in known))
        if colon:
            check_name(f"quality of {task}", quality, sorted({q for t, q in known if t == task}))
    return [(t, q) for t, q in known if names is None or t in names or f"{t}:{q}" in names]


def _selected(suite: Suite, profile: Profile, request: Request) -> list[tuple[str, str]]:
    if request.tasks is not None and not request.tasks:
        raise UserError("--tasks: names no task; leave it out for all of the suite")
    found = select(offered(suite, request), request.tasks or profile.tasks)
    named = request.tasks or ()
    return [pair for pair in found if pair in suite.datasets or ":".join(pair) in named]


def offered(suite: Suite, request: Request) -> list[tuple[str, str]]:
    """The suite's datasets, and what is derived of its tasks' in the request's source, which must be named in full."""
    known = catalogue(request.source) if request.source in SOURCES else {}
    made = [pair for pair, entry in known.items() if isinstance(entry, Derived) and pair[0] in suite.qualities]
    return [*suite.datasets, *(pair for pair in made if pair not in suite.datasets)]


def stored_hash(record: Mapping[str, Any]) -> str:
    """The hash of a record's settings, whether or not its method is known here. KeyError where it has none."""
    return config_hash({"config": record["config"], "protocol": _own_facts(record["protocol"])})


def _own_facts(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A record's protocol without what it repeats of the config; older ones repeat the noise of evaluation."""
    return {key: value for key, value in protocol.items() if key not in (*REPEATED, "eval_noise")}


def stored_job(record: Mapping[str, Any], seeds: Sequence[int]) -> Job:
    """The job that made a stored run, for these seeds.

    Raises UserError where its method or task is unknown here; KeyError or TypeError where the record does not say, or
    its method has other settings today.
    """
    cell = {key: value for key, value in record["cell"].items() if key != "seed"}
    check_name("task", cell["task"], tasks())
    config = config_from(registry()[check_name("algorithm", cell["algorithm"], registry())], record["config"])
    return Job(**cell, seeds=tuple(seeds), config=config, protocol=Protocol.from_json(record["protocol"]))


def pending(grid: Sequence[Job], store: Store, retry_failed: bool = True) -> list[Job]:
    """The jobs with the seeds that are not done yet. Reads every stored run, to see that it is intact."""
    return left(grid, stored(grid, store), retry_failed)


def stored(grid: Sequence[Job], store: Store) -> dict[str, Record]:
    """The stored runs of the jobs, by run id. Each is read once, with all its files; a damaged one is set aside."""
    bar = tqdm(grid, desc="checking runs", unit="job", leave=False, disable=None, delay=1)
    ids = (run_id for job in bar for run_id in job.run_ids())
    return {run_id: record for run_id in ids if (record := store.read(run_id, all_files=True))}


def left(grid: Sequence[Job], runs: Mapping[str, Record], retry_failed: bool = True) -> list[Job]:
    """The jobs with the seeds that have no run among these; with `retry_failed`, none that counts."""
    done = {run_id for run_id, record in runs.items() if not retry_failed or record["status"] in WITH_RESULT}
    found = []
    for job in grid:
        seeds = tuple(seed for seed, run_id in zip(job.seeds, job.run_ids()) if run_id not in done)
        if seeds:
            found.append(dataclasses.replace(job, seeds=seeds))
    return found
