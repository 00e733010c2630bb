"""All datasets by source: `embedded` and `tuning` ones, which are recorded here, public ones, and the user's own.

Tables are of a source in SOURCES; the datasets of `tuning` are what settings are chosen on, and in no table.
"""

from collections.abc import Mapping

from offmarl.datasets import derived, own
from offmarl.datasets.cache import Entry
from offmarl.datasets.embedded import recipes as embedded
from offmarl.datasets.imported.offered import offered
from offmarl.datasets.public import releases as public
from offmarl.datasets.public.sources import sources

EMBEDDED, TUNING = RECORDED = tuple(embedded.FILES)
OWN = own.SOURCE
SOURCES = (EMBEDDED, *sources(), OWN)  # of tables
ALL_SOURCES = (*SOURCES, TUNING)


def catalogue(source: str) -> Mapping[tuple[str, str], Entry]:
    """The datasets of a source by task and quality, those that were derived from them last."""
    found = originals(source)
    made = derived.catalogue(source, found)
    return {**found, **made} if made else found


def originals(source: str) -> Mapping[tuple[str, str], Entry]:
    """The datasets of a source without derived ones."""
    if source == OWN:
        return offered() | own.catalogue()
    return embedded.catalogue(source) if source in RECORDED else public.catalogue(source)
