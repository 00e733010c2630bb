"""The pool of `offmarl select`: every method's trials, as `tune` declares them, on each dataset of a suite.

A trial is an ordinary job, in a store of its own: `<results>/pool/`, on tuning datasets `<results>/tuning/`, which
`tune` fills. Runs of the suite itself in `<results>` belong to the pool too, and, where they are asked for, those that
ship with offmarl.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.catalogue import SOURCES, TUNING, catalogue
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.jobs import Job, Request
from offmarl.experiments.grid.suite import Suite, expand, load_suite, suite_of
from offmarl.experiments.store.archive import shipped, unpacked
from offmarl.experiments.store.reading import FINISHED, has_returns, told
from offmarl.experiments.store.store import Record, Store
from offmarl.experiments.studies.tuning import on_tuning_data, trials_of

SHARE = 0.9  # of the episodes, where the others judge


def by_suite(asked: Request) -> list[Request]:
    """A request for every suite that it means, of what it has. Raises UserError for an unknown name, or for none."""
    if not (found := grid.by_suite(asked) if asked.source != TUNING else _by_suite_on_tuning_data(asked)):
        raise UserError(
            f"{asked.suite}: has no dataset that --tasks names, or none where a method of --algorithms acts"
        )
    return found


def _by_suite_on_tuning_data(asked: Request) -> list[Request]:
    suites = {name: _tuning_suite(load_suite(name)) for name in expand(asked.suite)}
    grid.select([pair for suite in suites.values() for pair in suite.datasets], asked.tasks)
    methods = [check_name("algorithm", name, registry()) for name in asked.algorithms or ()]
    found = []
    for name, suite in suites.items():
        known = {f"{task}:{quality}" for task, quality in suite.datasets} | suite.qualities.keys()
        wanted = None if asked.tasks is None else [dataset for dataset in asked.tasks if dataset in known]
        own = asked.algorithms and [m for m in methods if any(grid.acts_in(registry()[m], t) for t in suite.qualities)]
        if wanted != [] and own != []:
            found.append(replace(asked, suite=name, tasks=wanted, algorithms=own))
    return found


def _tuning_suite(suite: Suite) -> Suite:
    """A suite with the tuning datasets of its families."""
    return on_tuning_data(suite, dict.fromkeys(tasks()[task].family for task in suite.qualities))


def pool_jobs(asked: Request) -> list[Job]:
    """Every trial of every method on the datasets of a request; on tuning datasets where that is its source.

    Raises UserError for an unknown name, and where no method acts in any dataset, or nothing can be played.
    """
    suite = load_suite(asked.suite)
    if asked.source == TUNING:
        suite = _tuning_suite(suite)
    names = asked.tasks or [f"{task}:{quality}" for task, quality in suite.datasets]
    grid.select(suite.datasets, names)
    methods = asked.algorithms or [*suite.algorithms]
    found = []
    for method in (check_name("algorithm", name, registry()) for name in methods):
        if any(grid.acts_in(registry()[method], task) for task in suite.qualities):
            found += [job for _, jobs in trials_of(suite, method, replace(asked, tasks=names)) for job in jobs]
    if not (found := _played(found)):
        reasons = "; ".join(dict.fromkeys(grid.unavailable_datasets(suite, asked.source).values()))
        raise UserError(f"no pool: {reasons or 'none of these methods can play any of these tasks'}")
    return found


def _played(jobs: Sequence[Job]) -> list[Job]:
    """Those of tasks with an environment: what cannot be played has no return."""
    return [job for job in jobs if tasks()[job.task].played]


def pool_store(results: Path, source: str) -> Store:
    """Where the trials on datasets of a source are."""
    return Store(results / ("tuning" if source == TUNING else "pool"))


def pool_records(
    asked: Request, jobs: Sequence[Job], results: Path, reference: bool = False
) -> tuple[list[Record], list[str]]:
    """The finished runs of a pool by today's code, trials first; and a line for each gap, by dataset and method.

    With `reference` those that ship with offmarl are in it too.
    """
    pool, own = pool_store(results, asked.source), Store(results)
    usual = _played(grid.jobs(asked)) if asked.source != TUNING else []
    stored = [(told(store), store, wanted) for store, wanted in ((pool, jobs), (own, usual)) if wanted]
    trials, *others = [_finished(*one) for one in stored]
    runs = [record for found in (trials, *others) for record in found.values()]
    if reference:
        with unpacked(*shipped()) as place:
            runs += finished(Store(place), usual).values()
    absent = grid.unavailable(asked) if asked.source != TUNING else {}
    gaps = [*_gaps(jobs, trials), *(f"{dataset}: {reason}" for dataset, reason in absent.items())]
    return runs, gaps + [line for records, _, wanted in stored for line in _diverged(wanted, records)]


def folders(asked: Request, run_ids: Sequence[str], results: Path) -> dict[str, Path]:
    """Where the runs of a pool are."""
    stores = pool_store(results, asked.source), Store(results)
    return {run_id: next(s.runs / run_id for s in stores if (s.runs / run_id).is_dir()) for run_id in run_ids}


def _gaps(jobs: Sequence[Job], trials: Mapping[str, Record]) -> list[str]:
    """What is not there: 'bc: 4 of 16 runs on 3m:good, 3m:poor'."""
    total, found = Counter(), Counter()
    for place, run_id in _by_dataset(jobs):
        total[place] += 1
        found[place] += run_id in trials
    partial = {place: f"{found[place]} of {count} runs" for place, count in total.items() if found[place] < count}
    return _lines(partial)


def _diverged(jobs: Sequence[Job], records: Mapping[str, Record]) -> list[str]:
    """What was trained, but is no policy: 'macql: 2 runs diverged on 3m:good'."""
    own = ((place, records.get(run_id)) for place, run_id in _by_dataset(jobs))
    count = Counter(place for place, record in own if record and record["status"] == "diverged")
    return _lines({place: f"{n} {'run' if n == 1 else 'runs'} diverged" for place, n in count.items()})


def _by_dataset(jobs: Sequence[Job]) -> list[tuple[tuple[str, str], str]]:
    """Dataset and method of every run, and its name."""
    return [((job.title.split()[0], job.title.split()[1]), run_id) for job in jobs for run_id in job.run_ids()]


def _lines(facts: Mapping[tuple[str, str], str]) -> list[str]:
    """A line for each method and fact, with the datasets where it holds."""
    lines: dict[str, list[str]] = {}
    for (dataset, method), fact in facts.items():
        lines.setdefault(f"{method}: {fact}", []).append(dataset)
    return [f"{line} on {', '.join(datasets)}" for line, datasets in lines.items()]


def finished(store: Store, jobs: Sequence[Job]) -> dict[str, Record]:
    """The finished runs of some jobs by today's code, in their order, with episodes where these could be played.

    Each with `weights`, the sum of its networks' file, where there is one.
    """
    return _finished(told(store), store, jobs)


def _finished(records: Mapping[str, Record], store: Store, jobs: Sequence[Job]) -> dict[str, Record]:
    ended = ((k, own) for k, own in records.items() if own["status"] in FINISHED)
    sound = {k: own for k, own in ended if own["status"] != "done" or has_returns(own)}
    runs = {run_id: sound[run_id] for job in jobs for run_id in job.run_ids() if run_id in sound}
    return {
        run_id: record | {"weights": store.weights(run_id)} for run_id, record in runs.items() if not why_stale(record)
    }


def on_one(dataset: str, profile: str, source: str) -> Request:
    """A request for one dataset (task:quality), on nine tenths of its episodes, in the first suite that has it.

    Raises UserError for an unknown one, or one of no suite.
    """
    task, colon, quality = dataset.partition(":")
    check_name("task", task, tasks())
    if not colon:
        raise UserError(f"{dataset}: must be task:quality, for example smac/3m:good")
    check_name("source", source, SOURCES)
    check_name(f"quality of {task}", quality, sorted(q for t, q in catalogue(source) if t == task))
    return Request(suite_of(dataset), profile, source, tasks=[dataset], data_share=SHARE)
