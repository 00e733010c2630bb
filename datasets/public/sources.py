"""What is known of the public sources, from sources.yaml; this module imports nothing heavy."""

from importlib import resources
from typing import Any

import yaml


def sources() -> dict[str, Any]:
    """Publishers by source: title, licence, page, download, and their tasks."""
    return yaml.safe_load(resources.files("offmarl.datasets.public").joinpath("sources.yaml").read_text())
