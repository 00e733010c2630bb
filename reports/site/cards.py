"""The cards that `offmarl data card` wrote, for the pages of their datasets: measures in words, figures as geometry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offmarl.reports.measures import described, related
from offmarl.reports.records.files import read_each
from offmarl.reports.site import charts
from offmarl.reports.tables.table import decimals

SIDES = {"ours": "our units", "theirs": "the enemy’s"}
EVENTS = {"start": "starts", "death": "deaths"}


def kept(*folders: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Every card in some folders by the SHA-256 of its data, as the template shows it, and a line for each unreadable.

    Of two of the same data the last one is shown.
    """

    def take(_: Path, card: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return str(card["sha256"]), {"measures": card["measures"], **_shown(card)}

    read = [read_each(folder, take, "data card") for folder in folders]
    return dict(card for found, _ in read for card in found), [note for _, notes in read for note in notes]


def _shown(card: Mapping[str, Any]) -> dict[str, Any]:
    pictures, quality = card["pictures"], card["dataset"].partition(":")[2]
    shared: dict[str, str] = {}
    for other, relation in card["relations"].items():
        shared |= related(relation, quality, other)
    returns, actions = pictures["returns"], pictures["actions"]
    low, high = returns["ends"]
    return {
        "told": described(card["measures"]) | shared,
        "episodes": pictures["episodes"],
        "returns": charts.bars(returns["counts"], (low, high), returns["mean"], 470, 150),
        "ends": {"low": low, "high": high, "mean": returns["mean"], "n": sum(returns["counts"])}
        | {"digits": decimals((low, high))},
        "lengths": _lengths(pictures["lengths"]) if "lengths" in pictures else None,
        "kinds": actions["names"],
        "steps": actions["steps"],
        "agents": [charts.stack(shares) for shares in actions["shares"]],
        "places": _places(pictures["places"]) if "places" in pictures else [],
    }


def _lengths(grid: Mapping[str, Any]) -> dict[str, Any]:
    width, height = 470, 260
    (short, long), (low, high) = grid["lengths"], grid["returns"]
    x, y = charts.Axis(short, long, 64, width - 10), charts.Axis(low, high, height - 40, 10)
    return {"width": width, "height": height, "x": x, "y": y, "cells": charts.heat(grid["counts"], x, y)}


def _places(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    size, width = float(found["size"]), 180
    ends = charts.Axis(0, size, 0, width), charts.Axis(0, size, width, 0)
    return [
        {"side": side, "title": f"{whose}: {what}", "width": width, "n": sum(map(sum, found[side][event]))}
        | {"cells": charts.heat(found[side][event], *ends)}
        for side, whose in SIDES.items()
        for event, what in EVENTS.items()
    ]
