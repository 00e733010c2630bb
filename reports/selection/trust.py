"""How far offline selectors can be trusted: the verdict on each, and how it is told."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from offmarl.reports.tables.markdown import table as markdown_table

RANDOM = "random"  # no selector: every policy is as good
METHODS, DATASETS, LUCK = 3, 2, 0.025  # the fewest that trust needs, and the most luck
NAMES = {
    "agreement": "agreement with the data",
    "best": "agreement with the best episodes",
    "critic": "own critic",
    "fitted_q": "fitted Q evaluation",
    RANDOM: "at random",
}
NOTE = (
    "Agreement: how often a policy takes the data's actions (continuous: minus the mean square error), one draw each "
    "where it samples; it stands for their likelihood, which flows and diffusion do not tell. Spearman: rank "
    "correlation between a selector's values and the played mean returns of a pool's policies, averaged over datasets; "
    "brackets: 95 % bootstrap intervals over methods (the same on all datasets), their policies and stored episodes. "
    "Regret@1: how far the selector's top policy is below the pool's best, in scores; brackets: 95 % bootstrap "
    "intervals over stored episodes. Luck: the share of lucky choices with a regret at least as small: their favourite "
    "methods are drawn, as the selector's own exchanged names, the same on all datasets. A selector is trusted in a "
    f"family if, over {DATASETS} datasets and {METHODS} methods or more, the whole interval of its rank correlation is "
    f"above 0 and its luck is at most {LUCK:.1%}."
)


class Judged(NamedTuple):
    """A selector in a family: the mean of each number over datasets, and its 95 % limits."""

    family: str
    selector: str
    datasets: int
    policies: int  # with a number
    methods: int  # of these
    rho: tuple[float, float, float]
    regret: tuple[float, float, float]
    random_regret: float  # of a policy at random, among those with a number
    luck: float  # share of choices by luck that do as well

    @property
    def trusted(self) -> bool:
        """Whether it is better than nothing."""
        enough = self.datasets >= DATASETS and self.methods >= METHODS
        return enough and self.rho[1] > 0 and self.luck <= LUCK

    @property
    def relative_regret(self) -> float:
        """Its regret as a share of a random choice's on the same datasets, by which selectors compare."""
        return self.regret[0] / self.random_regret if self.random_regret > 0 else 1.0


def judged_from(stored: Mapping[str, Any]) -> Judged:
    """As it was stored. Raises TypeError or KeyError for anything else."""
    return Judged(**{**stored, **{name: tuple(stored[name]) for name in ("rho", "regret")}})


def trusted(judged: Iterable[Judged], family: str) -> Judged | None:
    """The trusted selector of the least share of a random regret in a family; None where none can be."""
    own = [one for one in judged if one.family == family and one.trusted]
    return min(own, key=lambda one: one.relative_regret, default=None)


def markdown(judged: Sequence[Judged], held_out: bool) -> str:
    """A row for each family and selector, and which can be trusted."""
    parts = [markdown_table(*rows(judged)), f"**Without an episode:** {verdicts(judged)}", told_split(held_out), NOTE]
    return "\n\n".join(parts)


def told_split(held_out: bool) -> str:
    """On which episodes agreement is measured, in a sentence."""
    split = "on episodes that were not trained on" if held_out else "on the data that were trained on"
    return f"Agreement is measured {split}."


def rows(judged: Sequence[Judged]) -> tuple[list[str], list[list[str]]]:
    """Head, and a row for each family and selector; none where nothing was asked."""
    head = ["family", "selector", "datasets", "policies", "methods", "Spearman", "regret@1", "luck", "trusted"]
    return head, [
        [one.family, NAMES.get(one.selector, one.selector), str(one.datasets), str(one.policies), str(one.methods),
         "–" if one.selector == RANDOM else _text(one.rho), _text(one.regret),
         "–" if one.selector == RANDOM else f"{one.luck:.3f}", "yes" if one.trusted else "no"]
        for one in judged
    ]  # fmt: skip


def verdicts(judged: Sequence[Judged]) -> str:
    """Whom to trust in each family, in a sentence."""
    words = []
    for family in dict.fromkeys(one.family for one in judged):
        best = trusted(judged, family)
        words.append(f"{family}: " + (NAMES[best.selector] if best else "none can be trusted"))
    return "; ".join(words) + "."


def _text(numbers: tuple[float, float, float]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)
