"""The page of `offmarl judge`: one file of HTML that opens from disk and asks nothing of anybody else."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from offmarl.reports.records.files import write_text
from offmarl.reports.replays.page import files as player
from offmarl.reports.site.build import environment
from offmarl.reports.site.replays import kept, of_page


def write(path: Path, shown: Mapping[str, Any], results: Path) -> None:
    """Write the page of `selection.verdict.facts`, with the replays that the chosen run in `results` kept.

    Where none is chosen, with those of the first policy of each method.
    """
    replays, _ = kept(results)
    runs: dict[str, str] = {}
    for row in shown["trained"][1]:
        runs.setdefault(row[0], row[-1])
    chosen = [shown["chosen"].run_id] if shown["chosen"] else runs.values()
    most = 3 if shown["chosen"] else 1
    found = [one for run in chosen for one in of_page(replays.get(run, []))[:most]]
    folder = resources.files("offmarl.reports.site") / "templates"
    style, script = ((folder / f"site.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    if found:
        style, script = (own + players for own, players in zip((style, script), player(), strict=True))
    template = environment({}).get_template("judge.html")
    write_text(path, template.render(root=None, style=style, script=script, replays=found, **shown))
