"""`offmarl tune`: the same number of trials of every method, on the tuning datasets alone.

A trial is an ordinary job with settings of its own, so the grid's launchers, locks and store carry it, in a store of
its own (`<results>/tuning/`); a second start trains what is missing. The settings of the highest mean score over a
family's tuning datasets are chosen; the paper's win a tie.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from offmarl.algorithms import registry
from offmarl.benchmarks.tasks import Task, tasks
from offmarl.datasets.cache import replacing
from offmarl.datasets.catalogue import EMBEDDED, TUNING, catalogue
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid import tuned
from offmarl.experiments.grid.code import changed_parts, code_sums
from offmarl.experiments.grid.jobs import Job, Request
from offmarl.experiments.grid.suite import TUNED, Settings, Suite, expand, load_suite
from offmarl.experiments.store.reading import by_play
from offmarl.experiments.store.store import WITH_RESULT, Store, config_hash

HEAD = """# What `offmarl tune` chose, by suite, family and method: the settings that the variant `tuned` trains, the
# paper's, and every trial with its scores. The command writes this file.
"""


@dataclass(frozen=True)
class Search:
    """The trials of a method on a family's tuning datasets, as a suite trains it."""

    suite: str
    family: str
    method: str
    paper: Settings
    trials: list[tuple[Settings, list[Job]]]  # a job for every dataset

    @property
    def jobs(self) -> list[Job]:
        """Of all trials, dataset by dataset."""
        return [job for jobs in zip(*(jobs for _, jobs in self.trials), strict=True) for job in jobs]


def searches(
    suites: str, profile: str, algorithms: Sequence[str] | None = None, families: Sequence[str] | None = None
) -> list[Search]:
    """Every method's trials in a suite, or in all: of its own methods and families, where none are named.

    Parts of a board are searched as the suites that they are of, which have the same settings.

    Raises:
        UserError: for an unknown name, and where nothing is left to search.
    """
    for name in algorithms or ():
        check_name("algorithm", name, registry())
    for name in families or ():
        check_name("family", name, sorted({task.family for task in tasks().values()}))
    found: dict[tuple[str, str, str], Search | None] = {}
    for suite, name in ((load_suite(name), name) for name in expand(suites)):
        own = dict.fromkeys(tasks()[task].family for task in suite.qualities)
        for family in (family for family in own if families is None or family in families):
            methods = algorithms or [*suite.algorithms]
            for place in ((suite.base or name, family, method) for method in methods):
                found[place] = found[place] if place in found else _search(*place, profile)
    if not any(found.values()):
        raise UserError("nothing to tune: none of these algorithms declares settings and acts in these families")
    return [search for search in found.values() if search]


def _search(name: str, family: str, method: str, profile: str) -> Search | None:
    """None where the method has nothing to search or does not act in the family, or nothing is for choosing on."""
    datasets, cls = tuning_datasets(family), registry()[method]
    if not datasets or not cls.tunes or not grid.acts_in(cls, datasets[0][0]):
        return None
    suite = on_tuning_data(load_suite(name), [family])
    names = [f"{task}:{quality}" for task, quality in datasets]
    steps = suite.profile(profile).trial_steps_of(method, *datasets[0])
    trials = trials_of(suite, method, Request(name, profile, TUNING, tasks=names, steps=steps))
    tried, paper = [settings for settings, _ in trials], tuned.paper_settings(suite, cls, *datasets[0])
    if not tuned.fair_trials(tried) or paper not in tried:
        needed = f"a fair search has {tuned.TRIALS} different ones, the paper's among them: {paper}"
        raise UserError(f"{method}: `tunes` has {len(tried)} combinations of settings; {needed}")
    return Search(name, family, method, paper, trials)


def on_tuning_data(suite: Suite, families: Iterable[str]) -> Suite:
    """The suite with the tuning datasets of some families in the place of its own."""
    found = {family: {task: [quality] for task, quality in tuning_datasets(family)} for family in families}
    return suite.model_copy(update={"groups": {family: tasks for family, tasks in found.items() if tasks}})


def trials_of(suite: Suite, method: str, asked: Request) -> list[tuple[Settings, list[Job]]]:
    """A method's trials on the datasets of a request: settings, and a job for each dataset."""
    parts = suite.profile(asked.profile).variant.split("+")
    variant = "+".join(part for part in parts if part != TUNED) or "paper"
    found = []
    for settings in registry()[method].trials():
        one = replace(asked, algorithms=[method], variant=variant, overrides={method: settings})
        found.append((settings, [_trial(job, settings) for job in grid.jobs_of(suite, one)]))
    return found


def _trial(job: Job, settings: Settings) -> Job:
    """The job under a name that has its settings, played once: at its end, in the play that has the standing."""
    words = "".join(f"+{key}={value}" for key, value in settings.items())
    protocol = replace(job.protocol, eval_every=job.protocol.steps, plays=job.protocol.plays[:1])
    return replace(job, variant=job.variant + words, protocol=protocol)


def tuning_datasets(family: str) -> list[tuple[str, str]]:
    """Task and quality of a family's tuning datasets."""
    return [(task, quality) for task, quality in catalogue(TUNING) if tasks()[task].family == family]


def unique(found: Iterable[Search]) -> list[Job]:
    """The jobs of some searches, each once."""
    return list({job.key: job for search in found for job in search.jobs}.values())


def planned(found: Sequence[Search], store: Store) -> tuple[list[Job], list[Job]]:
    """All jobs, and those that are pending, with suite and family in the place of their variants."""
    places = {job.lock_name: f"{search.suite}/{search.family}" for search in found for job in search.jobs}
    jobs = unique(found)
    both = jobs, grid.pending(jobs, store)  # of which some may be left with fewer seeds
    shown, left = ([replace(job, variant=places[job.lock_name]) for job in own] for own in both)
    return shown, left


def choose(search: Search, store: Store) -> tuned.Choice | None:
    """What a search found; None while a seed of any trial is not done."""
    runs = {run_id: store.read(run_id) for job in search.jobs for run_id in job.run_ids()}
    records = {run_id: record for run_id, record in runs.items() if record and record["status"] in WITH_RESULT}
    if len(records) < len(runs):
        return None
    trials = []
    for settings, jobs in search.trials:
        scores = [_score(job, [records[run_id] for run_id in job.run_ids()]) for job in jobs]
        sound = [score for score in scores if score is not None]
        trials.append(tuned.Trial(settings=settings, scores=sound if len(sound) == len(scores) else []))
    best = max(trials, key=lambda trial: (trial.score, trial.settings == search.paper))
    finished = date.fromisoformat(max(record["finished"] for record in records.values())[:10])
    return tuned.Choice(settings=best.settings, date=finished, trials=trials, **_facts(search))


def is_settled(search: Search, known: tuned.Choices) -> bool:
    """Whether a file has what this search would find: the same trials on the same data, by the code of today."""
    choice = known.get(search.suite, {}).get(search.family, {}).get(search.method)
    if not choice or [trial.settings for trial in choice.trials] != [settings for settings, _ in search.trials]:
        return False
    facts = _facts(search)
    if choice.code.keys() != facts["code"].keys() or changed_parts(choice.code, facts.pop("code")):
        return False
    return all(getattr(choice, name) == value for name, value in facts.items())


def _facts(search: Search) -> dict[str, Any]:
    """What decides the outcome of a search."""
    first, (_, jobs) = search.jobs[0], search.trials[0]
    sums = {job.task: code_sums(job.algorithm, job.task) for job in jobs}
    return {
        "paper": search.paper,
        "profile": first.profile,
        "seeds": list(first.seeds),
        "steps": first.protocol.steps,
        "data": {f"{job.task}:{job.quality}": job.protocol.data for job in jobs},
        "hash": config_hash({"jobs": [job.hash for job in search.jobs]}),
        "code": {"method": sums[first.task]["method"], **{task: own["task"] for task, own in sums.items()}},
    }


def _score(job: Job, records: list[Any]) -> float | None:
    """The normalised return of the last evaluation, the mean over seeds; None where one diverged."""
    if any(record["status"] != "done" for record in records):
        return None
    low, high = scale(job.entry.task)
    returns = [np.mean(by_play(record)[job.protocol.plays[0]][-1]["returns"]) for record in records]
    return round((float(np.mean(returns)) - low) / (high - low), 4)


def scale(task: Task) -> tuple[float, float]:
    """The returns that count as 0 and 1: the task's own scale, or 0 and its data's best mean, published or here."""
    if task.score:
        return task.score[0], task.score[1]
    own = [entry for (name, _), entry in catalogue(EMBEDDED).items() if name == task.name]
    if published := [target[0] for entry in own if (target := entry.target)]:
        return 0.0, max(published)
    return 0.0, max(
        entry.load()[1]["return_mean"] for (name, _), entry in catalogue(TUNING).items() if name == task.name
    )


def write(file: Path, found: Iterable[tuple[Search, tuned.Choice]]) -> None:
    """Put choices into a file, in place of those of the same suite, family and method."""
    known = tuned.choices(file) if file.exists() else {}
    for search, choice in found:
        known.setdefault(search.suite, {}).setdefault(search.family, {})[search.method] = choice
    plain = {s: {f: {m: c.model_dump() for m, c in ms.items()} for f, ms in fs.items()} for s, fs in known.items()}
    with replacing(file) as draft:
        draft.write_text(HEAD + yaml.safe_dump(plain, sort_keys=False, width=120, default_flow_style=None))


def listing(found: tuned.Choices) -> list[dict[str, Any]]:
    """Every choice as reports take it: with suite, family, the method's title, and why it is stale, if it is."""
    return [
        {"suite": suite, "family": family, "stale": _why_stale(method, choice), **choice.model_dump()}
        | {"title": registry()[method].title if method in registry() else method}
        for suite, families in found.items()
        for family, methods in families.items()
        for method, choice in methods.items()
    ]


def _why_stale(method: str, choice: tuned.Choice) -> str:
    if method not in registry():
        return ""
    sums = {task: code_sums(method, task) for task in choice.code.keys() - {"method"}}
    today = {task: own["task"] for task, own in sums.items()} | {"method": next(iter(sums.values()))["method"]}
    changed = changed_parts(choice.code, today)
    return f"the code of {' and '.join(changed)} has changed since" if changed else ""
