"""The fixtures of this folder, and the choice of one method."""

import os

from offmarl.contract.fixtures import *  # noqa: F403


def pytest_collection_modifyitems(items):
    """Keep the tests of one method, if OFFMARL_METHOD names it, as `offmarl validate` does."""
    if name := os.environ.get("OFFMARL_METHOD"):
        items[:] = [item for item in items if name in methods_of(item)]


def methods_of(item):
    """The names of the methods among a test's parameters."""
    for value in item.callspec.params.values() if hasattr(item, "callspec") else ():
        yield getattr(value[0] if isinstance(value, tuple) else value, "name", None)
