"""All datasets by source: `embedded` ones, which are recorded here, and public ones."""

from collections.abc import Mapping

from offmarl.datasets.cache import Entry
from offmarl.datasets.embedded import recipes as embedded
from offmarl.datasets.public import releases as public
from offmarl.datasets.public.sources import sources

EMBEDDED = "embedded"
SOURCES = (EMBEDDED, *sources())


def catalogue(source: str) -> Mapping[tuple[str, str], Entry]:
    """The datasets of a source by task and quality."""
    return embedded.catalogue() if source == EMBEDDED else public.catalogue(source)
