"""A replay as a moving picture, drawn as player.js draws it on a light ground: for slides and READMEs.

A GIF, or an MP4 where imageio's ffmpeg is installed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from offmarl.reports.records.files import replacing
from offmarl.reports.records.replay import Replay
from offmarl.reports.tables.table import decimals

WIDE, BAND, FINE = 440, 24, 2  # pixels of a picture, of the line above it; drawn at twice the size, for smooth edges
SECONDS, MOST = 0.1, 200  # between two pictures, and how many there are; longer episodes leave steps out
REST = 1500  # milliseconds of the last picture
NO_DITHER = Image.Dither.NONE
PAPER, BAR, INK, LINE, HIT, NOBODYS, HEALTH, SHIELD = (
    *("#ffffff", "#f5f6f8", "#1b1f24", "#dfe3e8", "#d1a400"),
    *("#6d7680", "#2b8a3e", "#3d8fd1"),
)
SIDES = ("#0b62b8", "#b3470b", NOBODYS)
AGENTS = (*SIDES[:2], "#2b8a3e", "#8a3fa0", "#1c8a8a", "#a03f5c")


def write(path: Path, replays: Sequence[Replay]) -> int:
    """Write or replace a picture of replays side by side, in step: a GIF, or an MP4 by its name; its size in bytes."""
    with replacing(path) as draft:
        if path.suffix == ".mp4":
            _write_film(draft, replays)
        else:
            first, *others = (one.quantize(palette=_palette(), dither=NO_DITHER) for one in _pictures(replays))
            each = [int(1000 * SECONDS)] * len(others) + [REST]
            first.save(draft, save_all=True, append_images=others, duration=each, loop=0)
        return draft.stat().st_size


def _write_film(path: Path, replays: Sequence[Replay]) -> None:
    """An MP4 (H.264)."""
    write_frames = import_module("imageio_ffmpeg").write_frames  # optional
    pictures = list(_pictures(replays))
    pictures += pictures[-1:] * round(REST / 1000 / SECONDS)
    film = write_frames(str(path), pictures[0].size, fps=1 / SECONDS, macro_block_size=2)
    with contextlib.closing(film):
        film.send(None)
        for picture in pictures:
            film.send(picture.tobytes())


def _pictures(replays: Sequence[Replay]) -> Iterator[Image.Image]:
    """What is seen every tenth of a second, side by side."""
    area = _area(replays)
    last, tick = max(one.header.steps for one in replays), replays[0].header.tick
    for t in np.linspace(0, last, min(max(round(last * tick / SECONDS), 1), MOST) + 1):
        parts = [_picture(one, area, min(t, one.header.steps)) for one in replays]
        whole = Image.new("RGB", (sum(part.width for part in parts), parts[0].height), PAPER)
        for k, part in enumerate(parts):
            whole.paste(part, (k * parts[0].width, 0))
            ImageDraw.Draw(whole).line((k * part.width, 0, k * part.width, part.height), LINE, 2 * FINE)
        yield whole.resize((whole.width // FINE, whole.height // FINE), Image.Resampling.LANCZOS)


@cache
def _palette() -> Image.Image:
    """Every ink, and its smooth edges on the ground: one palette for all pictures, so that no colour wanders."""
    inks = [ImageColor.getrgb(ink) for ink in dict.fromkeys((INK, LINE, HIT, HEALTH, SHIELD, BAR, *SIDES, *AGENTS))]
    ground = np.array(ImageColor.getrgb(PAPER))
    mixed = [ground + share * (np.array(ink) - ground) for ink in inks for share in (0.3, 0.6, 1.0)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.array([ground, *mixed]).round().astype(np.uint8).tobytes())
    return palette


def _area(replays: Sequence[Replay]) -> np.ndarray:
    """Left, bottom, right, top of what all of them show."""
    head = replays[0].header
    if head.kind in ("robot", "cells"):
        return np.array(head.area)
    places = np.concatenate([one.frames[..., :2].reshape(-1, 2) for one in replays])
    room = max(body.size for body in head.bodies) + (1.0 if head.kind == "units" else 0.1)
    return np.concatenate([places.min(0) - room, places.max(0) + room])


def _picture(replay: Replay, area: np.ndarray, t: float) -> Image.Image:
    """One replay at a time in steps, which may lie between two."""
    head, size = replay.header, area[2:] - area[:2]
    high = 2 * int(np.clip(WIDE * size[1] / size[0], 0.3 * WIDE, 0.9 * WIDE) / 2)
    image = Image.new("RGB", (WIDE * FINE, (high + BAND) * FINE), PAPER)
    pen = ImageDraw.Draw(image)
    unit, middle = FINE * min(WIDE / size[0], high / size[1]), (area[:2] + area[2:]) / 2

    def at(place: np.ndarray) -> np.ndarray:
        offset = (np.asarray(place) - middle) * unit
        return np.array([WIDE / 2 * FINE + offset[0], (BAND + high / 2) * FINE - offset[1]])

    step = int(np.ceil(t - 1e-9))
    before = max(step - 1, 0)
    smooth = replay.frames[before] + (replay.frames[step] - replay.frames[before]) * (t - before)
    columns = {column.name: k for k, column in enumerate(head.columns)}
    {"units": _units, "particles": _particles, "robot": _robot, "cells": _cells}[head.kind](
        pen, replay, columns, unit, at, (before, step), smooth
    )
    pen.rectangle((0, 0, WIDE * FINE, BAND * FINE), fill=BAR)
    end = f", {head.end}" if step == head.steps else ""
    found = f"{replay.returns[step]:.{decimals(replay.returns)}f}"
    _say(pen, f"{head.title}: return {found}{end}", (8 * FINE, BAND * FINE / 2), INK, 15 * FINE, "lm")
    return image


def _units(pen, replay, columns, unit, at, steps, smooth) -> None:
    bodies, (old, now) = replay.header.bodies, (replay.frames[k] for k in steps)
    health, shield, target, fires = (columns[name] for name in ("health", "shield", "target", "fires"))
    spots = [at(row[:2]) for row in smooth]
    for k, body in enumerate(bodies):
        if (aim := int(now[k, target])) >= 0 and old[k, health] > 0 and now[k, fires]:
            pen.line((*spots[k], *spots[aim]), SIDES[body.side], 3 * FINE)
    for k, body in enumerate(bodies):
        (x, y), radius, colour = spots[k], max(body.size * unit, 8 * FINE), SIDES[body.side]
        if now[k, health] <= 0:
            arm = 0.6 * radius
            for way in (-1, 1):
                pen.line((x - arm, y - way * arm, x + arm, y + way * arm), colour, FINE)
            continue
        if now[k, [health, shield]].sum() < old[k, [health, shield]].sum() - 0.05:
            _disc(pen, (x, y), radius + 4 * FINE, HIT, None)
        _disc(pen, (x, y), radius, PAPER if body.side else colour, colour)
        number = sum(other.side == body.side for other in bodies[:k])
        _say(pen, f"{number}", (x, y), colour if body.side else PAPER, min(radius * 1.1, 14 * FINE))
        shares = [(now[k, health] / (body.health or 1), 5, HEALTH), (now[k, shield] / (body.shield or 1), 9, SHIELD)]
        for share, row, paint in shares[: 1 + (body.shield > 0)]:
            for part, ink in ((1.0, LINE), (min(share, 1.0), paint)):
                bar = y - radius - row * FINE
                pen.line((x - radius, bar, x - radius + 2 * radius * part, bar), ink, 3 * FINE)


def _particles(pen, replay, columns, unit, at, steps, smooth) -> None:
    open_ = [body.side == 2 and body.name != "obstacle" for body in replay.header.bodies]
    for k in sorted(range(len(smooth)), key=lambda k: (open_[k], -replay.header.bodies[k].side)):
        body, colour = replay.header.bodies[k], SIDES[replay.header.bodies[k].side]
        trail = [tuple(at(row[k])) for row in replay.frames[max(steps[0] - 9, 0) : steps[0] + 1]]
        if body.side < 2 and len(trail) > 1:
            pen.line([*trail, tuple(at(smooth[k]))], colour, FINE)
        _disc(pen, at(smooth[k]), body.size * unit, None if open_[k] else colour, INK if open_[k] else PAPER)
        if body.side == 0:
            _say(pen, f"{body.agent}", at(smooth[k]), PAPER, 12 * FINE)


def _cells(pen, replay, columns, unit, at, steps, smooth) -> None:
    left, bottom, right, top = replay.header.area
    for x in np.arange(left, right + 0.01):
        pen.line((*at(np.array([x, bottom])), *at(np.array([x, top]))), LINE, FINE)
    for y in np.arange(bottom, top + 0.01):
        pen.line((*at(np.array([left, y])), *at(np.array([right, y]))), LINE, FINE)
    for k in sorted(range(len(smooth)), key=lambda k: -replay.header.bodies[k].side):
        now = {name: replay.frames[steps[1]][k, column] for name, column in columns.items()}
        if now.get("there", 1):
            _cell(pen, replay.header.bodies[k], at(smooth[k, :2]), 0.4 * unit, now)


def _cell(pen, body, spot, radius, now) -> None:
    colour, ink, box = SIDES[body.side], INK if body.side == 2 else PAPER, (*(spot - radius), *(spot + radius))
    if (heading := now.get("heading", -1)) >= 0:
        turn = np.pi / 2 * heading
        pen.line((*spot, *(spot + 1.3 * radius * np.array([np.sin(turn), -np.cos(turn)]))), colour, 4 * FINE)
    edge, width = (HIT, 4 * FINE) if now.get("mark") else (colour, 2 * FINE)
    if body.side == 2:
        pen.rectangle(box, PAPER, edge, width)
    else:
        pen.ellipse(box, colour, edge, width)
    size = min(radius, 13 * FINE)
    if body.agent >= 0:
        _say(pen, f"{body.agent}", spot - [0, 0.3 * radius * bool(body.name)], ink, size)
        spot = spot + [0, 0.45 * radius]
    _say(pen, body.name, spot, ink, min(size, 3 * radius / max(len(body.name), 1)))


def _robot(pen, replay, columns, unit, at, steps, smooth) -> None:
    def flat(row: np.ndarray, end: int) -> np.ndarray:
        return np.array([row[columns[f"{a}{end}"]] if f"{a}{end}" in columns else 0.0 for a in "xyz"])

    def slant(point: np.ndarray) -> np.ndarray:
        return at(np.array([point[0] + 0.5 * point[1], point[2] + 0.3 * point[1]]))

    eye, deep = (flat(smooth[0], 0) + flat(smooth[0], 1)) / 2 * [1, 1, 0], "y0" in columns
    for x in range(int(eye[0]) - 6, int(eye[0]) + 7):
        ends = ([x - eye[0], -3, 0], [x - eye[0], 3, 0]) if deep else ([x - eye[0], 0, 0], [x - eye[0], 0, -0.06])
        pen.line((*slant(np.array(ends[0])), *slant(np.array(ends[1]))), LINE, FINE)
    pen.line((*slant(np.array([-9, 0, 0])), *slant(np.array([9, 0, 0]))), LINE, FINE)
    for k in np.argsort([-flat(row, 0)[1] - flat(row, 1)[1] for row in smooth], kind="stable"):
        body, ends = replay.header.bodies[k], [slant(flat(smooth[k], end) - eye) for end in (0, 1)]
        colour = NOBODYS if body.agent < 0 else AGENTS[body.agent % len(AGENTS)]
        rim = 3 * FINE * bool(replay.frames[steps[1]][k, columns["ground"]])
        for more, ink in ((rim, HIT), (0, colour)):
            radius = max(body.size * unit, 1.5 * FINE) + more
            pen.line((*ends[0], *ends[1]), ink, int(2 * radius))
            for end in ends:
                _disc(pen, end, radius, ink, None)


def _disc(pen, place, radius: float, fill: str | None, edge: str | None) -> None:
    x, y = place
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill, edge, 2 * FINE if edge else 0)


def _say(pen, text: str, place, colour: str, size: float, anchor: str = "mm") -> None:
    pen.text(tuple(place), text, colour, ImageFont.load_default(size), anchor)
