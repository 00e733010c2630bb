"""Tables in Markdown."""

import html
import re
from collections.abc import Iterable, Sequence

_COMMAND = re.compile(r"(`offmarl [\w ./:=-]+`)")  # in a note: stays code


def escape(text: str) -> str:
    """The text for a cell or a paragraph: no HTML or Markdown in it counts as such, but for commands in backticks."""
    parts = _COMMAND.split(text)  # what matched has the odd places
    parts[::2] = [re.sub(r"([|*`\\])", r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    return "".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """A GitHub table without a line break at its end; cells are Markdown, escaped already.

    With `numbers` all columns but the first are aligned to the right.
    """
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
