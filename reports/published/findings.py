"""What is wrong with the published tables, and where their copied cells come from: findings.csv, in words.

The tables are constant, so the findings are data. The rules that found them are in tests/tools/published_findings.py.
"""

from collections.abc import Sequence

from offmarl.reports.published.numbers import rows_about


def notes(name: str, titles: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """The footnotes of a report's published columns, those of `titles`: the columns concerned, and the text.

    In the order of `titles`, those about two columns last; where the numbers come from precedes what is wrong.
    """
    texts: dict[tuple[str, ...], list[str]] = {}
    for row in rows_about(name, "findings"):
        methods = tuple(row["methods"].split(";"))
        if set(methods) <= set(titles):
            texts.setdefault(methods, []).append(row["text"])
    order = sorted(texts, key=lambda methods: (len(methods), titles.index(methods[0])))
    return [(methods, f"Paper's {' and '.join(methods)}: {'; '.join(texts[methods])}.") for methods in order]
