"""Suites and profiles: what their YAML files hold, checked when they are read."""

import re
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, PositiveInt, field_validator, model_validator

from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import OWN, PLAYS
from offmarl.benchmarks import own
from offmarl.benchmarks.tasks import tasks
from offmarl.benchmarks.yaml_files import Strict, known_name, packaged, parse
from offmarl.datasets.catalogue import OWN as OWN_DATA
from offmarl.datasets.catalogue import SOURCES, catalogue, originals
from offmarl.experiments.errors import UserError, check_name
from offmarl.experiments.grid.claim import Claim
from offmarl.experiments.grid.config import every_setting, setting_names

ALL = "all"  # every suite
FILES: dict[str, Path] = {}  # the user's own suites by name, as `add_file` was given them
REFERENCE = "standard"  # the profile of the results that ship
TUNED = "tuned"  # the variant of what `offmarl tune` chose
PACKAGE = "offmarl.experiments.grid"
LARGEST_SEED = 2**32 - 1  # evaluation episodes of larger ones would be those of smaller ones
T = TypeVar("T")


def _distinct(names: list[T]) -> list[T]:
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]} stands there twice")
    return names


def _distinct_names(named: dict[str, str]) -> dict[str, str]:
    if twice := next((name for name, times in Counter(named.values()).items() if times > 1), ""):
        raise ValueError(f"two methods are called '{twice}'")
    return named


def _fixed_names() -> list[str]:
    by_space = [f"{name}:{space}" for name, method in registry().items() for space in sorted(method.actions)]
    return [*registry(), ALL, *by_space]


Some = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]  # at least one, each of them once
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Settings = dict[str, Any]  # of a method, by name
Method = Annotated[str, AfterValidator(lambda name: check_name("algorithm", name, registry()))]
MethodOrAll = Annotated[str, AfterValidator(lambda name: check_name("algorithm", name, [*registry(), ALL]))]
Fixed = Annotated[str, AfterValidator(lambda name: check_name("algorithm", name, _fixed_names()))]
Setting = Annotated[str, AfterValidator(lambda name: check_name("setting", name, every_setting()))]
Titles = Annotated[dict[Method, str], Field(min_length=1), AfterValidator(_distinct_names)]  # in a table, by method
TaskName = Annotated[str, AfterValidator(lambda name: check_name("task", name, tasks()))]
Group = Annotated[dict[TaskName, Some[str]], Field(min_length=1)]  # task to qualities
Family = Annotated[str, AfterValidator(lambda name: check_name("family", name, {t.family for t in tasks().values()}))]
Plays = Annotated[
    list[Annotated[str, known_name("play", PLAYS)]],
    Field(min_length=1),
    AfterValidator(lambda names: [*dict.fromkeys(names)]),
]
OwnSteps = PositiveInt | dict[str, PositiveInt]  # of a method's own updates, or by family, task or task:quality


class Profile(Strict):
    """How much work: seeds, updates, evaluations and sizes of networks."""

    note: str = ""  # for the captions of tables
    variant: str
    seeds: Some[Seed]
    steps: PositiveInt  # updates
    own_steps: dict[MethodOrAll, OwnSteps] = {}  # by method, or for all that have none of their own
    trial_steps: dict[Family, PositiveInt] = {}  # of `tune`'s trials, by family; methods with fewer keep their share
    eval_every: PositiveInt | None = None  # updates
    looks: PositiveInt | None = None  # evaluations, evenly over the updates: instead of `eval_every`
    eval_episodes: PositiveInt  # of each seed
    config: dict[Setting, Any] = {}  # of every method that has them
    fixed: dict[Fixed, Settings] = {}  # by method, method:discrete, or for all: the same in every variant
    tasks: Some[TaskName] | None = None  # None: all of the suite

    @model_validator(mode="after")
    def _evaluates(self) -> "Profile":
        """A profile says when it evaluates, in one way."""
        if type(self) is Profile and (self.eval_every is None) == (self.looks is None):
            raise ValueError("write either eval_every or looks")
        return self

    def eval_every_of(self, steps: int) -> int:
        """The updates between two evaluations of a training of so many updates."""
        return self.eval_every or max(1, steps // (self.looks or 1))

    def steps_of(self, method: str, task: str, quality: str) -> int:
        """The updates of a method on a dataset."""
        own = self.own_steps.get(method, self.own_steps.get(ALL, self.steps))
        if isinstance(own, int):
            return own
        return next((own[name] for name in reversed(names_of(task, quality)) if name in own), self.steps)

    def trial_steps_of(self, method: str, task: str, quality: str) -> int | None:
        """The updates of a trial of `tune`; None where they are those of a run."""
        trial = self.trial_steps.get(tasks()[task].family)
        return trial and trial * self.steps_of(method, task, quality) // self.steps

    def changed(self, changes: "ProfileChanges") -> "Profile":
        """The profile with a suite's changes."""
        values = changes.model_dump(exclude_unset=True, exclude_none=True)
        fixed = {
            name: self.fixed.get(name, {}) | changes.fixed.get(name, {}) for name in {**self.fixed, **changes.fixed}
        }
        return self.model_copy(update=values | {"config": self.config | changes.config, "fixed": fixed})


class ProfileChanges(Profile):
    """What a suite changes of a profile; None changes nothing."""

    variant: str | None = None
    seeds: Some[Seed] | None = None
    steps: PositiveInt | None = None
    eval_every: PositiveInt | None = None
    eval_episodes: PositiveInt | None = None


class SuiteProtocol(Strict):
    """How a suite's methods are evaluated."""

    plays: Plays = [OWN]  # of `Algorithm.play`; the first one has the standing
    timeout_bootstrap: bool = False  # value what follows a time-out, instead of ending the episode there


class Suite(Strict):
    """A table: its methods, its datasets, and what it sets otherwise."""

    title: str
    paper: str = ""
    published: str = ""  # table in reports/published; empty: nothing was
    algorithms: Titles
    groups: Annotated[dict[str, Group], Field(min_length=1)]  # of columns
    base: str = ""  # of a part of a board: the suite whose datasets, protocol and settings it has
    protocol: SuiteProtocol = SuiteProtocol()
    headline: str = ""  # the method that others are compared with
    normalised: list[TaskName] = []  # tasks with scores for returns
    profiles: dict[str, ProfileChanges] = {}
    settings: dict[Method, dict[str, Settings]] = {}  # by method, then by family, task or task:quality
    variants: dict[Method, dict[str, str]] = {}  # by method: others in place of one
    notes: dict[Method, dict[str, str]] = {}  # by method and variant: what a table that shows it says
    bench: dict[Method, list[Settings]] = {}  # settings of a method that `bench train` compares
    claims: list[Claim] = []
    scaling: dict[Method, dict[str, list[int]]] = {}  # by method and cost: exponents of agents and denoising steps

    @field_validator("profiles")
    @classmethod
    def _known_profiles(cls, changes: dict[str, ProfileChanges]) -> dict[str, ProfileChanges]:
        return {check_name("profile", name, profiles()): own for name, own in changes.items()}

    def variant(self, method: str, asked: str) -> str:
        """The variant that a method trains where `asked`, one or several joined by a plus, is asked for.

        What was tuned changes settings of another variant; where none is named, of the paper's.
        """
        own, names = self.variants.get(method, {}), asked.split("+")
        names = ["paper", *names] if names[0] == TUNED else names
        return "+".join(own.get(name, name) for name in names)

    def settings_of(self, method: str, task: str, quality: str) -> Settings:
        """What it sets for a method on a dataset: for its family first, then for its task, then for itself."""
        own = self.settings.get(method, {})
        return {key: value for name in names_of(task, quality) for key, value in own.get(name, {}).items()}

    @model_validator(mode="after")
    def _is_consistent(self) -> "Suite":
        """A dataset counts in one average; published numbers are of a paper."""
        if self.published and not self.paper:
            raise ValueError("published: name its paper too: paper: …")
        doubled = [":".join(pair) for pair, times in Counter(self.datasets).items() if times > 1]
        if doubled:
            raise ValueError(f"{doubled[0]} stands in two groups; leave it in one")
        return self

    @model_validator(mode="after")
    def _known_places(self) -> "Suite":
        """Settings and steps are for families, tasks and datasets of the suite."""
        known = sorted({name for pair in self.datasets for name in names_of(*pair)})
        tables = [*self.settings.values(), *(own for p in self.profiles.values() for own in p.own_steps.values())]
        for name in (name for table in tables if isinstance(table, dict) for name in table):
            check_name("family, task or dataset", name, known)
        return self

    @model_validator(mode="after")
    def _known_settings(self) -> "Suite":
        """Settings are of their methods; what stands in place of a variant is one, or bears a suite's name."""
        for name, method in registry().items():
            for settings in (*self.settings.get(name, {}).values(), *self.bench.get(name, [])):
                for key in settings:
                    check_name(f"setting of {name}", key, setting_names(method))
            for variant in self.variants.get(name, {}).values():
                check_name(f"variant of {name}", variant, ["paper", *method.variant_names(), *_tables(), *FILES])
        return self

    @model_validator(mode="after")
    def _known_claims(self) -> "Suite":
        """Claims and the headline are about methods of the suite, claims about its groups."""
        if self.headline:
            check_name("method of the headline", self.headline, self.algorithms)
        for claim in self.claims:
            claim.check(self.algorithms, self.groups)
        return self

    @property
    def qualities(self) -> dict[str, list[str]]:
        """The qualities of each task."""
        found: dict[str, list[str]] = {}
        for task, qualities in (pair for group in self.groups.values() for pair in group.items()):
            found[task] = [*found.get(task, []), *qualities]
        return found

    @property
    def datasets(self) -> list[tuple[str, str]]:
        """Pairs of task and quality, in the order of the table."""
        return [(task, quality) for task, qualities in self.qualities.items() for quality in qualities]

    def profile(self, name: str) -> Profile:
        """A profile as this suite has it. Raises UserError for an unknown profile."""
        profile = profiles()[check_name("profile", name, profiles())]
        return profile.changed(self.profiles.get(name, ProfileChanges()))


class Board(Strict):
    """More methods, with their names in the tables, on several suites: a part for each, which is a suite of its own."""

    title: str
    paper: str
    parts: dict[
        Annotated[str, AfterValidator(lambda name: check_name("suite", name, _tables()))], str
    ]  # to `published`
    algorithms: Titles
    notes: dict[Method, dict[str, str]] = {}  # as a suite's

    def part(self, name: str) -> Suite:
        """The suite `name` with the methods of the board that act there, and without its paper's claims."""
        base = load_suite(name)
        spaces = {tasks()[task].space for task in base.qualities}
        fits = {method: title for method, title in self.algorithms.items() if registry()[method].actions & spaces}
        own = {"title": f"{self.title}, {', '.join(base.groups)}", "paper": self.paper, "published": self.parts[name]}
        own |= {"algorithms": fits, "notes": base.notes | self.notes, "claims": [], "base": name}
        return base.model_copy(update=own)


def names_of(task: str, quality: str) -> tuple[str, str, str]:
    """What a dataset's settings may be filed under, the later ones overriding the earlier: family, task, dataset."""
    return task.split("/")[0], task, f"{task}:{quality}"


def profiles() -> dict[str, Profile]:
    """Every profile by name. Raises FileError where profiles.yaml is not as `Profile` says."""
    return packaged(dict[str, Profile], PACKAGE, "profiles.yaml")


def suite_names() -> list[str]:
    """Every suite: ours, the parts of our boards, a suite for each family of the user's tasks, and his own files."""
    return [*_tables(), *(part for parts in boards().values() for part in parts), *own_suites(), *FILES]


def add_file(file: Path) -> str:
    """Make a user's file a suite, which is called by its name without the ending; returns that.

    Raises UserError for a name that is taken, a file that cannot be read, or a dataset that no source has; FileError
    where it is not as `Suite` says.
    """
    name = file.stem
    if not re.fullmatch(own.WORD, name) or name in (*_taken(), *own_suites()):
        raise UserError(f"--suite {file}: the suite name '{name}' is invalid or already taken; rename the file")
    FILES[name] = file.absolute()
    known = [pair for source in SOURCES for pair in catalogue(source)]
    for task, quality in load_suite(name).datasets:
        check_name(f"quality of {task}", quality, dict.fromkeys(own for of, own in known if of == task))
    return name


def own_suites() -> list[str]:
    """The families of the user's own tasks. Raises UserError where one is called as a suite of ours."""
    families = {task.family: task for task in own.registry().values()}
    for name in _taken():
        if name in families:
            raise UserError(f"{families[name].place}: {families[name].name}: '{name}' is a suite; name another family")
    return list(families)


def _tables() -> list[str]:
    """Our own suites."""
    return _files("suites")


def boards() -> dict[str, dict[str, str]]:
    """Our boards, to the names of their parts and the suites that these are of."""
    found = {name: packaged(Board, PACKAGE, "boards", f"{name}.yaml") for name in _files("boards")}
    return {name: {f"{name}_{base}": base for base in board.parts} for name, board in found.items()}


def _files(folder: str) -> list[str]:
    entries = resources.files(PACKAGE).joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in entries if file.name.endswith(".yaml"))


def _taken() -> list[str]:
    """The names that no suite of the user's may have."""
    return [ALL, *_tables(), *boards(), *(part for parts in boards().values() for part in parts)]


def expand(name: str) -> list[str]:
    """The suite itself, the parts of a board, or every suite for `all`. Raises UserError for an unknown name."""
    known = {one: [one] for one in suite_names()} | {board: list(parts) for board, parts in boards().items()}
    return (known | {ALL: suite_names()})[check_name("suite", name, [*known, ALL])]


def load_suite(name: str) -> Suite:
    """A suite by name. Raises UserError for an unknown one, FileError where its file is not as `Suite` says."""
    if check_name("suite", name, suite_names()) in FILES:
        try:
            return parse(Suite, str(FILES[name]), FILES[name].read_bytes())
        except OSError as error:
            raise UserError(f"--suite {FILES[name]}: cannot be read ({error.strerror})") from error
    if name in own_suites():
        return _own_suite(name)
    for board, parts in boards().items():
        if name in parts:
            return packaged(Board, PACKAGE, "boards", f"{board}.yaml").part(parts[name])
    return packaged(Suite, PACKAGE, "suites", f"{name}.yaml")


def suite_of(dataset: str) -> str:
    """The first suite that has a dataset (task:quality), or else its task. Raises UserError where none has."""
    suites, (task, colon, _) = {name: load_suite(name) for name in suite_names()}, dataset.partition(":")
    own = [name for name, suite in suites.items() if dataset in map(":".join, suite.datasets)]
    if colon and (found := own or [name for name, suite in suites.items() if task in suite.qualities]):
        return found[0]
    raise UserError(f"{dataset}: is in no suite; write task:quality, as mpe/spread:medium; `offmarl data list` has all")


def _own_suite(family: str) -> Suite:
    """All datasets of a family of the user's own tasks, and every method that acts in one of them."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name, task in own.registry().items():
        if task.family == family:
            groups.setdefault(task.title, {})[name] = [quality for of, quality in originals(OWN_DATA) if of == name]
    spaces = {tasks()[name].space for group in groups.values() for name in group}
    methods = {method.name: method.title for method in registry().values() if method.actions & spaces}
    protocol = SuiteProtocol(timeout_bootstrap=True)  # a task's clock is no end of its game
    return Suite(title=f"{family}: tasks of your own", algorithms=methods, groups=groups, protocol=protocol)
