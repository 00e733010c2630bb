"""What stands in YAML: profiles and suites, read strictly, because somebody may have edited them."""

from importlib import resources
from typing import Any

import yaml

from offmarl.benchmarks.tasks import tasks
from offmarl.experiments.errors import UserError, check_name

ALL = "all"  # every suite
SUITE_KEYS = {
    **dict.fromkeys(("title", "paper", "published", "headline"), str),
    **dict.fromkeys(("algorithms", "groups", "profiles", "protocol", "settings", "variants", "bench", "scaling"), dict),
    "normalised": list,
}
NEEDED = {"title", "paper", "published", "algorithms", "groups", "protocol"}


def _yaml(*path: str) -> Any:
    return parse_yaml("/".join(path), resources.files("offmarl.experiments.grid").joinpath(*path).read_text())


def parse_yaml(place: str, text: str) -> dict[str, Any]:
    """A mapping from a file of ours that somebody may have edited.

    Raises:
        UserError: naming file and line when it is none.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{place}{where}: is not YAML ({getattr(error, 'problem', None) or 'unreadable'})") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{place}: write a mapping of names")
    return found


def check_suite(place: str, suite: dict[str, Any]) -> dict[str, Any]:
    """The suite, if every key is known and has the shape that it must have.

    Raises:
        UserError: naming file and key.
    """
    for key, value in suite.items():
        kind = SUITE_KEYS[check_name(f"key of {place}", key, SUITE_KEYS)]
        if not isinstance(value, kind):
            raise UserError(f"{place}: {key}: write a {'mapping' if kind is dict else kind.__name__}")
    if missing := sorted(NEEDED - suite.keys()):
        raise UserError(f"{place}: lacks {', '.join(missing)}")
    for group, own in suite["groups"].items():
        for task, qualities in own.items() if isinstance(own, dict) else [(group, own)]:
            check_name(f"task in {place}, groups", str(task), tasks())
            if not isinstance(qualities, list):
                raise UserError(f"{place}: groups: {task}: write a list of qualities")
    return suite


def profiles() -> dict[str, dict[str, Any]]:
    """Every profile by name."""
    return _yaml("profiles.yaml")


def suite_names() -> list[str]:
    """Every suite."""
    folder = resources.files("offmarl.experiments.grid").joinpath("suites")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def expand(name: str) -> list[str]:
    """The suite itself, or every suite for `all`.

    Raises:
        UserError: for an unknown suite.
    """
    return suite_names() if check_name("suite", name, [*suite_names(), ALL]) == ALL else [name]


def load_suite(name: str) -> dict[str, Any]:
    """A suite's file.

    Raises:
        UserError: for an unknown suite.
    """
    file = check_name("suite", name, suite_names()) + ".yaml"
    return check_suite(f"suites/{file}", _yaml("suites", file))
