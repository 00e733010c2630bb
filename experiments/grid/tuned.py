"""What `offmarl tune` chose for every method, as tuned.yaml holds it, and what the variant `tuned` makes of it."""

from collections.abc import Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, model_validator

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.benchmarks.tasks import tasks
from offmarl.benchmarks.yaml_files import Strict, packaged, parse
from offmarl.datasets.catalogue import TUNING, catalogue
from offmarl.experiments.grid.config import resolve
from offmarl.experiments.grid.suite import PACKAGE, Seed, Settings, Suite

TRIALS = 8  # of every method
FILE = "tuned.yaml"


def _tuning_datasets(data: dict[str, str]) -> dict[str, str]:
    known = {f"{task}:{quality}" for task, quality in catalogue(TUNING)}
    if not data or not data.keys() <= known:
        raise ValueError(f"settings are chosen on tuning datasets alone: {', '.join(sorted(known))}")
    return data


class Trial(Strict):
    """A combination of settings, and its normalised return on every dataset; none where a seed diverged."""

    settings: Settings
    scores: list[float] = []

    @property
    def score(self) -> float:
        """The mean over the datasets; less than any number where there is none."""
        return sum(self.scores) / len(self.scores) if self.scores else float("-inf")


def fair_trials(tried: Sequence[Settings]) -> bool:
    """Whether these are as many trials as everyone has, all different."""
    return len(tried) == TRIALS and all(tried.count(one) == 1 for one in tried)


class Choice(Strict):
    """What a method's trials on a family's tuning datasets gave."""

    settings: Settings  # chosen
    paper: Settings  # of those that were searched
    profile: str
    seeds: list[Seed]
    steps: int  # updates of every trial
    date: date  # of the last trial
    data: Annotated[dict[str, str], AfterValidator(_tuning_datasets)]  # dataset to the key of its content
    hash: str  # of the settings of all trials, searched or not
    code: dict[str, str]  # sums of the method and of every task
    trials: list[Trial]

    @model_validator(mode="after")
    def _fair(self) -> "Choice":
        """Everyone has the same number of trials, all different, the paper's settings and the best among them."""
        tried = [trial.settings for trial in self.trials]
        if not fair_trials(tried):
            raise ValueError(f"{len(tried)} trials; every method has {TRIALS} different ones")
        if any(trial.scores and len(trial.scores) != len(self.data) for trial in self.trials):
            raise ValueError("a trial has not one score for each dataset")
        best = max(trial.score for trial in self.trials)
        if self.paper not in tried or best != max(t.score for t in self.trials if t.settings == self.settings):
            raise ValueError("the chosen settings are not those of the best trial, or the paper's are not among them")
        return self


Choices = dict[str, dict[str, dict[str, Choice]]]  # by suite, family and method


def choices(file: Path | None = None) -> Choices:
    """Every choice of a file; None: of the package's own, which the variant `tuned` trains.

    Raises:
        FileError: naming the part that is wrong, and the reason.
    """
    return parse(Choices, str(file), file.read_bytes()) if file else packaged(Choices, PACKAGE, FILE)


def own_file() -> Path:
    """The package's own file."""
    return Path(str(resources.files(PACKAGE).joinpath(FILE)))


def chosen(suite: str, family: str, method: str) -> Choice | None:
    """What was chosen for a method; None where it has not been tuned."""
    return choices().get(suite, {}).get(family, {}).get(method)


def untuned(name: str, suite: Suite) -> dict[str, list[str]]:
    """Methods of the suite `name` to the families in which they have nothing chosen, though settings to search."""
    families = dict.fromkeys(tasks()[task].family for task in suite.qualities)
    methods = [method for method in registry().values() if method.tunes]
    return {m.name: [own for own in families if not chosen(suite.base or name, own, m.name)] for m in methods}


def settings(name: str, suite: Suite, method: type[Algorithm], task: str, quality: str) -> Settings:
    """The settings of the variant `tuned` on a dataset of the suite `name`: the paper's where a method is not tuned."""
    found = chosen(suite.base or name, tasks()[task].family, method.name)
    return found.settings if found else paper_settings(suite, method, task, quality)


def paper_settings(suite: Suite, method: type[Algorithm], task: str, quality: str) -> Settings:
    """The paper's values, as the suite has them, of the settings that may be searched."""
    own = suite.settings_of(method.name, task, quality)
    config = resolve(method, suite.variant(method.name, "paper"), tasks()[task].space, [own], {})
    return {key: getattr(config, key) for key in method.tunes}
