"""A dataset's card: a page of Markdown and the histogram of its returns."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offmarl.reports.measures import described
from offmarl.reports.tables.markdown import table as markdown_table

ORDER = ("source", "origin", "licence", "episodes", "transitions", "length_mean", "return_mean", "return_std")


def markdown(
    card: dict[str, Any], findings: list[str], picture: str, measures: dict[str, Any], relations: dict[str, str]
) -> str:
    """The card as a page: `findings` of `offmarl data check`, `picture` the histogram's file name.

    `measures` are those of `datasets.measures`, `relations` lines on what other datasets of the task share with it.
    """
    facts = {key: card[key] for key in ORDER if card.get(key) is not None}
    if card.get("published_mean") is not None:
        facts["published return"] = f"{card['published_mean']} ± {card['published_std']}"
    facts |= {"sha256": card["sha256"], **card.get("engine", {})}
    lines = [f"# {card['dataset']} ({card['source']})", "", f"![Returns of its episodes]({picture})", ""]
    lines += [markdown_table(["", ""], [[key.replace("_", " "), _text(value)] for key, value in facts.items()])]
    told = [[name, text] for name, text in (described(measures) | relations).items()]
    lines += ["", *(f"- {finding}" for finding in findings), "", "## Measures", "", markdown_table(["", ""], told)]
    lines += ["", card["note"]] if card.get("note") else []
    return "\n".join(lines) + "\n"


def histogram(returns: np.ndarray, card: dict[str, Any]) -> Figure:
    """Episodes by return, with the mean and the published one."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.hist(returns, bins=50, color="#4c72b0", edgecolor="white", linewidth=0.3)
    axes.axvline(returns.mean(), color="black", linewidth=1.2, label=f"mean {returns.mean():.2f}")
    if card.get("published_mean") is not None:
        label = f"published {card['published_mean']:.2f}"
        axes.axvline(card["published_mean"], color="#c44e52", linewidth=1.2, linestyle="--", label=label)
    axes.set(xlabel="return of an episode", ylabel="episodes", title=f"{card['dataset']} ({card['source']})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
