"""What the tests of the grid ask for."""

from offmarl.experiments.grid.config import parse_overrides
from offmarl.experiments.grid.jobs import Request, jobs


def only(*overrides, algorithm="bc", **request):
    """The one job of a method on smac/3m:good."""
    request = {"tasks": ["smac/3m:good"], "algorithms": [algorithm], "overrides": parse_overrides(overrides), **request}
    (job,) = jobs(Request("smac", **request))
    return job
