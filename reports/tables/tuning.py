"""What tuning brought each method: the scores of the paper's settings and of the chosen ones, and of every trial.

Takes a list of choices as dicts: what tuned.yaml holds of a method, with `suite`, `family`, `title`, and `stale` where
the code has changed since.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from offmarl.reports.tables.markdown import escape
from offmarl.reports.tables.markdown import table as markdown_table

RULE = (
    "Every method has the same number of trials, with the same seeds, on tuning datasets, which are in no table. A "
    "score is the mean normalised return of the last evaluation over seeds and these datasets: 0 and 1 are the "
    "task's own scale, or a return of 0 and the best published mean of its data. The settings of the best trial are "
    "chosen; the paper's win a tie. The best of eight noisy scores is too high by chance; the result tables, on other "
    "data, show the real gain."
)


class Grid(NamedTuple):
    """A table in words."""

    head: list[str]
    rows: list[list[str]]


def summary(tuned: Sequence[Mapping[str, Any]]) -> Grid:
    """A row for each choice: the paper's score, the best one, the gain, and what was chosen."""
    head = ["suite", "family", "method", "paper's settings", "chosen", "gain", "chosen settings", "of"]
    return Grid(head, [_row(choice) for choice in tuned])


def trials(tuned: Sequence[Mapping[str, Any]]) -> Grid:
    """A row for every trial: its settings, the mean score, and the scores by dataset."""
    head = ["suite", "family", "method", "settings", "score", "on"]
    return Grid(
        head,
        [
            [*_names(choice), _words(trial["settings"]), _number(score(trial)), _by_dataset(choice, trial)]
            for choice in tuned
            for trial in choice["trials"]
        ],
    )


def text(tuned: Sequence[Mapping[str, Any]]) -> str:
    """The summary as a Markdown table, and what its numbers are."""
    if not tuned:
        return "Nothing has been tuned yet: `offmarl tune --suite smac`."
    head, rows = summary(tuned)
    return markdown_table(head, [[escape(cell) for cell in row] for row in rows]) + "\n\n" + RULE


def score(trial: Mapping[str, Any]) -> float | None:
    """The mean score of a trial; None where a seed diverged."""
    return sum(trial["scores"]) / len(trial["scores"]) if trial["scores"] else None


def _row(choice: Mapping[str, Any]) -> list[str]:
    scores = {str(trial["settings"]): score(trial) for trial in choice["trials"]}
    paper, best = (scores[str(choice[key])] for key in ("paper", "settings"))
    gain = "–" if paper is None or best is None else f"{best - paper:+.3f}"
    chosen = "the paper's" if choice["settings"] == choice["paper"] else _words(choice["settings"])
    seeds = f"{len(choice['seeds'])} seeds"
    origin = f"{choice['profile']}, {choice['steps']:,} updates, {seeds}, {choice['date']}"
    origin += f"; stale: {choice['stale']}" if choice.get("stale") else ""
    return [*_names(choice), _number(paper), _number(best), gain, chosen, origin]


def _names(choice: Mapping[str, Any]) -> list[str]:
    return [choice["suite"], choice["family"], choice["title"]]


def _by_dataset(choice: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in zip(choice["data"], trial["scores"])) or "diverged"


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
