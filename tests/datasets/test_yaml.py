"""Each YAML file of data and tasks is checked: one line with file, key, reason and the nearest name."""

from importlib import resources

import pytest

from offmarl.benchmarks import tasks as tasks_module
from offmarl.benchmarks.yaml_files import FileError, parse
from offmarl.datasets.embedded import recipes
from offmarl.datasets.public import releases, sources


def read_tasks():
    return tasks_module._all_tasks.__wrapped__(())


def read_recipes():
    return recipes._catalogue.__wrapped__("embedded")


def read_sources():
    return [releases._catalogue.__wrapped__(name, "", releases.data_dir()) for name in sources.sources()]


# What reads a file, its module, package and name, a text of it and what replaces that, and the words of the refusal.
TASKS = (read_tasks, tasks_module, "offmarl.benchmarks", "tasks.yaml")
RECIPES = (read_recipes, recipes, "offmarl.datasets.embedded", "recipes.yaml")
SOURCES = (read_sources, sources, "offmarl.datasets.public", "sources.yaml")
FAULTS = [
    (TASKS, "limit: 60", "limits: 60", "tasks.yaml: unknown key 'limits' in smac/3m: did you mean 'limit'?"),
    (TASKS, "limit: 60, ", "", "tasks.yaml: smac/3m: lacks limit"),
    (TASKS, "obs: 30", "obs: thirty", "tasks.yaml: smac/3m.obs: input should be a valid integer"),
    (TASKS, "engine: smax", "engine: smaxx", "smac/3m.engine: unknown engine 'smaxx': did you mean 'smax'?"),
    (
        TASKS,
        "allies: {marine: 3}",
        "alies: {marine: 3}",
        "unknown key 'alies' in smac/3m.roster: did you mean 'allies'?",
    ),
    (TASKS, "marine: 3}", "marine: many}", "smac/3m.roster.allies.marine: input should be a valid integer"),
    (TASKS, "physics: native", "physics: modern", "roster.physics: input should be 'native' or 'legacy'"),
    (TASKS, "[159.8, 516.8]", "[159.8]", "tasks.yaml: mpe/spread.score: list should have at least 2 items"),
    (RECIPES, "episodes: 2000", "epsiodes: 2000", "recipes.yaml: unknown key 'epsiodes' in smac/3m: did you mean"),
    (RECIPES, "smac/3m:", "smac/3n:", "recipes.yaml: smac/3n: unknown task 'smac/3n': did you mean 'smac/3m'?"),
    (RECIPES, "    good:", "    goood:", "smac/3m.datasets.goood: unknown quality 'goood': did you mean 'good'?"),
    (RECIPES, "behaviours: trained", "behavior: trained", "in smac/3m.datasets.good: did you mean 'behaviours'?"),
    (RECIPES, "runs: 5", "run: 5", "unknown key 'run' in smac/3m.training: did you mean 'runs'?"),
    (RECIPES, "[16.49, 5.92]", "[16.49, x]", "smac/3m.datasets.good.target.1: input should be a valid number"),
    (RECIPES, "{medium: 0.9,", "{medum: 0.9,", "unknown quality 'medum': did you mean 'medium'?"),
    (SOURCES, "licence:", "license:", "sources.yaml: unknown key 'license' in og_marl: did you mean 'licence'?"),
    (SOURCES, "  revision: main\n", "", "sources.yaml: og_marl: lacks revision"),
    (SOURCES, "smac/3m:", "smac/3n:", "sources.yaml: unknown task 'smac/3n': did you mean 'smac/3m'?"),
    (
        SOURCES,
        "{good:",
        "{goood:",
        "og_marl.tasks.smac/3m.returns.goood: unknown quality 'goood': did you mean 'good'?",
    ),
    (SOURCES, "ends: last", "ends: late", "smac/3m.ends: input should be 'last', 'delimiter', 'limit' or 'detect'"),
    (SOURCES, "gigabytes: 1.39", "gigabyte: 1.39", "in og_marl.tasks.smac/3m: did you mean 'gigabytes'?"),
    (SOURCES, "[16.49, 5.92]", "[16.49]", "og_marl.tasks.smac/3m.returns.good: list should have at least 2 items"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), FAULTS, ids=[said for *_, said in FAULTS])
def test_a_wrong_key_is_one_line_with_file_key_reason_and_nearest_name(monkeypatch, file, old, new, said):
    read, module, package, name = file
    text = resources.files(package).joinpath(name).read_text()
    assert old in text
    monkeypatch.setattr(module, "packaged", lambda kind, *_: parse(kind, name, text.replace(old, new, 1)))
    with pytest.raises(FileError) as refused:
        read()
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("file", [TASKS, RECIPES, SOURCES], ids=["tasks", "recipes", "sources"])
def test_the_files_as_they_are_are_read(file):
    assert file[0]()
