"""A headline of a suite's paper as a rule over the results."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from offmarl.benchmarks.yaml_files import Strict
from offmarl.experiments.errors import check_name


class Claim(Strict):
    """A headline of the paper, which `reports.tables.claims` judges."""

    text: str
    rule: Literal["ahead", "faster", "gains"]
    method: str
    others: Annotated[list[str], Field(min_length=1)]
    groups: list[str] = []  # ahead, gains
    at_least: float = 1.0  # ahead: of the other's score
    times: float = 1.0  # faster
    quality: str = ""  # gains: where they are largest
    than: list[str] = []  # gains: the other qualities

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        """What its rule needs is there."""
        if self.rule == "ahead" and not self.groups:
            raise ValueError("groups: name one at least, on which it should be ahead")
        if self.rule == "gains" and (len(self.groups) != 1 or not self.quality or not self.than):
            raise ValueError("gains are of one group, on data of a quality and of others: groups, quality, than")
        return self

    def check(self, methods: Mapping[str, Any], groups: Mapping[str, Mapping[str, list[str]]]) -> None:
        """It is about methods and groups of its suite, and their qualities. Raises UserError naming what is not."""
        for method in (self.method, *self.others):
            check_name("method of a claim", method, methods)
        for group in self.groups:
            check_name("group of a claim", group, groups)
        known = [quality for group in self.groups for own in groups[group].values() for quality in own]
        for quality in (self.quality, *self.than) if self.rule == "gains" else ():
            check_name(f"quality in {' and '.join(self.groups)}", quality, known)
