"""Tables in Markdown."""

import html
import re
from collections.abc import Iterable, Sequence


def escape(text: str) -> str:
    """The text for a cell or a paragraph: neither HTML nor the signs of Markdown in it count as such."""
    return re.sub(r"([|*`\\])", r"\\\1", html.escape(text, quote=False))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """A GitHub table without a line break at its end; cells are Markdown, escaped already.

    With `numbers` all columns but the first are aligned to the right.
    """
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
