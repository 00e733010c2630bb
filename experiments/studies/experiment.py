"""What every experiment of the papers has: claim, figure and the rules of its verdict; and the checks of its file."""

import re
from collections.abc import Collection
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, NonNegativeInt

from offmarl.benchmarks.yaml_files import Strict
from offmarl.experiments.errors import check_name
from offmarl.experiments.training.machine import Host, provenance

STATISTICS = ("last", "first", "least", "most", "mean", "worst")  # of any quantity, as reports/studies.py reads them
Seeds = Annotated[list[NonNegativeInt], Field(min_length=1)]
Rule = Annotated[tuple[str, Literal[">", "<", ">=", "<="], str | float], Field(strict=False)]  # YAML has no tuples
Row = dict[str, Any]
T = TypeVar("T")


class Experiment(Strict):
    """What a report shows of an experiment beside its measurements."""

    title: str
    claim: str
    note: str = ""
    picture: str
    rules: Annotated[list[Rule], Field(min_length=1)]

    def check(
        self, pictures: Collection[str], arms: Collection[str], quantities: Collection[str], statistics: Collection[str]
    ) -> None:
        """Refuse a picture, or a word of a rule, that reports would not understand, with the nearest known name."""
        check_name("picture", self.picture, pictures)
        for word in (word for rule in self.rules for word in rule[::2] if isinstance(word, str)):
            term = re.sub(r"^\d+(\.\d+)? ", "", word)
            arm = max((arm for arm in arms if term.startswith(f"{arm}.")), key=len, default=term.partition(".")[0])
            quantity, _, statistic = term[len(arm) + 1 :].partition(".")
            check_name(f"arm in the rule term '{word}':", arm, arms)
            check_name(f"quantity in the rule term '{word}':", quantity, quantities)
            check_name(f"statistic in the rule term '{word}':", statistic or "last", [*STATISTICS, *statistics])

    def record(self, profile: str, host: Host, **measured: Any) -> Row:
        """What is stored and reported: the experiment, what was measured, on which machine and with which code."""
        facts = self.model_dump(include={"title", "claim", "note", "picture", "rules"})
        return {"profile": profile, **facts, **measured, **provenance(host)}


class File(Strict, Generic[T]):
    """A file of experiments by name; they take what they share from `defaults` by YAML's own merge keys."""

    defaults: dict[str, Any]
    experiments: dict[str, T]
