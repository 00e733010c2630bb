"""The page of replays: one file that opens from disk and asks nothing of anybody else."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from offmarl.reports.records.files import write_text
from offmarl.reports.records.replay import Replay, pack

WHAT = {
    "units": "Filled: the agents; open: their enemies. Thick lines are shots, dotted ones orders; a ring is a hit, a "
    "cross a death. Bars are health and, above, shields.",
    "particles": "Filled: agents, with their last ten steps; dashed: landmarks that nobody runs into.",
    "cells": "Discs: the agents, and where they look; squares: what lies on the board. A yellow rim marks agents that "
    "carry something, and what is asked for.",
    "robot": "Segments have the colour of the agent that moves them; a rim marks those on the ground.",
}


def files() -> tuple[str, str]:
    """The player's style sheet and its script."""
    folder = resources.files("offmarl.reports.replays")
    style, script = ((folder / f"player.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return style, script


def embedded(replays: Sequence[Replay]) -> list[str]:
    """Replays as a page holds them."""
    return [b64encode(pack(replay)).decode() for replay in replays]


def write(path: Path, title: str, scenes: Mapping[str, Sequence[Replay]]) -> None:
    """Write a page of scenes by what they are called; the replays of a scene play side by side, in step."""
    style, script = files()
    packed = {label: embedded(replays) for label, replays in scenes.items()}
    note = WHAT[next(iter(scenes.values()))[0].header.kind]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(
        (resources.files("offmarl.reports.replays") / "page.html").read_text(encoding="utf-8")
    )
    nonce = hashlib.sha256(repr(packed).encode()).hexdigest()[:32]
    facts = {"title": title, "note": note, "scenes": packed, "style": style, "script": script, "nonce": nonce}
    write_text(path, page.render(facts) + "\n")
