"""The site of a store."""

import pytest

from offmarl.reports.records.reader import Records
from offmarl.reports.site import build as site
from offmarl.reports.site.boards import Suite


@pytest.fixture
def make(tmp_path, suite):
    """The site of a store, by default of the suite of known numbers."""

    def make(results, name="smac", folder=tmp_path / "site", **facts):
        site.write(Records.read(results), folder, {name: Suite(facts.pop("suite", suite), **facts)})
        return folder

    return make
