"""What tests of several commands need."""

import os

import pytest

from offmarl import algorithms
from offmarl.benchmarks import own


@pytest.fixture
def no_leftovers(monkeypatch):
    """Each test starts and ends with the methods and tasks of the repository only."""
    for module in (algorithms, own):
        monkeypatch.setenv(module.PATHS, "")
        module.registry.cache_clear()
    yield
    for module in (algorithms, own):
        os.environ[module.PATHS] = ""
        module.registry.cache_clear()
