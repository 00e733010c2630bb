"""Offline data in one canonical form, and the recording of the embedded datasets."""

from typing import Annotated

from offmarl.benchmarks.yaml_files import known_name

QUALITIES = ("good", "medium", "poor", "replay", "expert", "medium-expert", "medium-replay", "random")
Quality = Annotated[str, known_name("quality", QUALITIES)]
