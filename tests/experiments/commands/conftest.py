"""What tests of several commands need."""

import os

import pytest

from offmarl.algorithms import PATHS, registry


@pytest.fixture
def no_leftovers(monkeypatch):
    """Each test starts and ends with the methods of the repository only."""
    monkeypatch.setenv(PATHS, "")
    registry.cache_clear()
    yield
    os.environ[PATHS] = ""
    registry.cache_clear()
