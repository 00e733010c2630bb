"""Replays: what one episode looked like, in a file of a few kilobytes that needs no simulator to be played.

A file is a gzip stream (so `zcat` shows it) of a header, one line of JSON with the keys of `Header`, and then numbers:
for every body and each of its columns its values over time, the return so far over time, and for every agent and each
of its actions their values over time. Values are whole multiples of a step (a column's own, RETURN_STEP, and the
header's `action_step`); a series is written as its first value and its changes, each as a variable-length integer of
zigzag form (0, -1, 1, -2 … are 0, 1, 2, 3 …; seven bits a byte, the lowest first, the high bit set where more follow).
Nothing in a file is executed, and what does not fit the header is refused. reports/replays/player.js reads the same.
Shapes: T actions, K bodies, C columns, I agents, A actions of one agent.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offmarl.reports.records.files import replacing

FORMAT, SUFFIX = "offmarl replay 1", ".replay"
RETURN_STEP = 1e-5
MOST_BYTES, MOST_UNPACKED = 2**20, 2**24  # of a file, and of what is in it
LONGEST_VALUE = 5  # bytes; sums of such values are exact, in JavaScript too
LARGEST = 2 ** (7 * LONGEST_VALUE - 3)  # of a value, so that its changes fit
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
Positive = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1e6)]
Short = Annotated[str, Field(max_length=200)]


class ReplayError(ValueError):
    """A replay that is damaged, or is none."""

    in_a_line = True  # for the command line


class Part(BaseModel):
    """A part of a header: nothing else may be in it."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Body(Part):
    """A unit, a particle, a landmark, or a segment of a robot."""

    name: Short
    side: Annotated[int, Field(ge=0, le=2)]  # the learners', their foes', nobody's
    agent: Annotated[int, Field(ge=-1, le=200)] = -1  # which agent it is, or is moved by; -1: none
    size: Finite = 0.0
    health: Finite = 0.0  # at the start, as the following
    shield: Finite = 0.0
    sight: Finite = 0.0


class Column(Part):
    """What a frame has of every body, in whole steps."""

    name: Short
    step: Positive


class Header(Part):
    """What a replay says of itself."""

    format: Literal["offmarl replay 1"] = FORMAT
    task: Short
    quality: Short
    source: Short
    title: Short  # who plays
    algorithm: Short = ""  # its name; empty for data
    seed: Annotated[int, Field(ge=0)] | None = None  # of the run
    episode: Annotated[int, Field(ge=0)]  # of the evaluation, or of the dataset
    play: Short = ""
    return_: Annotated[Finite, Field(alias="return")]
    stored: Finite | None = None  # the return of this episode in the run or the dataset
    same: bool | None = None  # whether it is the stored episode, as far as that can be told; None: nothing to compare
    end: Short  # won, lost, time limit, over
    run: Short = ""  # that the policy or the episode comes from
    code_sums: Annotated[dict[Short, Short], Field(max_length=10)] = {}  # of the run
    kind: Literal["units", "particles", "robot", "cells"]
    tick: Positive  # seconds between two frames
    area: Annotated[list[Finite], Field(min_length=4, max_length=4)]  # left, bottom, right, top
    columns: Annotated[list[Column], Field(min_length=1, max_length=16)]
    bodies: Annotated[list[Body], Field(min_length=1, max_length=300)]
    moves: Annotated[list[Short], Field(max_length=100)] = []  # the first discrete actions; attacks on foes follow
    steps: Annotated[int, Field(ge=0, le=20_000)]  # T
    agents: Annotated[int, Field(ge=1, le=200)]
    actions: Annotated[int, Field(ge=1, le=100)]  # of one agent: one where they are discrete
    action_step: Positive


@dataclass
class Replay:
    """An episode."""

    header: Header
    frames: np.ndarray  # [T+1,K,C]
    returns: np.ndarray  # [T+1], the return so far
    actions: np.ndarray  # [T,I,A]


def pack(replay: Replay) -> bytes:
    """The content of a file. Raises ReplayError for what a file cannot hold."""
    head = replay.header
    steps = np.array([column.step for column in head.columns])
    frames = np.asarray(replay.frames, float) / steps
    series = [frames.transpose(1, 2, 0), replay.returns / RETURN_STEP, replay.actions.transpose(1, 2, 0)]
    series[2] = series[2] / head.action_step
    if not all(np.isfinite(part).all() and np.abs(part).max(initial=0) < LARGEST for part in series):
        raise ReplayError("replay: a number in it is not finite, or too large")
    body = b"".join(_varints(np.diff(np.rint(part).astype(np.int64), axis=-1, prepend=0)) for part in series)
    line = json.dumps(head.model_dump(by_alias=True, exclude_defaults=True) | {"format": FORMAT}, separators=(",", ":"))
    packer = zlib.compressobj(9, wbits=31)
    content = packer.compress(line.encode() + b"\n" + body) + packer.flush()
    unpack(content)  # so that nothing is written that will be refused
    return content


def unpack(content: bytes, name: str = "replay") -> Replay:
    """The replay in the content of a file. Raises ReplayError naming it and what is wrong, in one line."""
    try:
        return _unpack(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"its header has no valid {where[:60]}: {first['msg']}" if where else "its header is no JSON object"
    except (ValueError, RecursionError, zlib.error) as error:
        reason = str(error) or type(error).__name__
    raise ReplayError(f"{name}: is not a whole replay: {' '.join(reason.split())[:200]}")


def _unpack(content: bytes) -> Replay:
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    opener = zlib.decompressobj(wbits=31)
    text = opener.decompress(content, MOST_UNPACKED)
    if opener.unconsumed_tail or not opener.eof or opener.unused_data:
        raise ValueError("it is cut off, goes on after its end, or holds too much")
    line, _, body = text.partition(b"\n")
    head = Header.model_validate(json.loads(line))
    T, K, C, I, A = head.steps, len(head.bodies), len(head.columns), head.agents, head.actions
    sizes = [K * C * (T + 1), T + 1, I * A * T]
    values = _values(np.frombuffer(body, np.uint8), sum(sizes))
    frames, returns, actions = np.split(values, np.cumsum(sizes)[:2])
    frames = frames.reshape(K, C, T + 1).cumsum(-1).transpose(2, 0, 1)
    actions = actions.reshape(I, A, T).cumsum(-1).transpose(2, 0, 1)
    if int(returns.sum()) != round(head.return_ / RETURN_STEP):
        raise ValueError("its return is not the sum of its rewards")
    for k, column in enumerate(head.columns):
        if column.name == "target" and ((frames[..., k] < -1) | (frames[..., k] >= K)).any():
            raise ValueError("a target is no body")
    steps = np.array([column.step for column in head.columns])
    return Replay(head, frames * steps, returns.cumsum() * RETURN_STEP, actions * head.action_step)


def file_name(play: str, episode: int) -> str:
    """The name of the file of an episode of a run's last evaluation."""
    return f"{play}-{episode}{SUFFIX}"


def write(path: Path, replay: Replay) -> int:
    """Write or replace a file; returns its size in bytes."""
    content = pack(replay)
    with replacing(path) as draft:
        draft.write_bytes(content)
    return len(content)


def read(path: Path) -> Replay:
    """Read a file. Raises ReplayError naming it and what is wrong, OSError where it cannot be read."""
    with path.open("rb") as file:
        return unpack(file.read(MOST_BYTES + 1), str(path))


def _varints(values: np.ndarray) -> bytes:
    zigzag = np.where(values >= 0, 2 * values, -2 * values - 1).astype(np.uint64).ravel()
    place = np.arange(LONGEST_VALUE)
    parts = zigzag[:, None] >> (7 * place).astype(np.uint64)
    length = np.maximum((parts > 0).sum(1), 1)[:, None]
    bytes_ = (parts & np.uint64(127)) | np.where(place < length - 1, 128, 0).astype(np.uint64)
    return bytes_[place < length].astype(np.uint8).tobytes()


def _values(content: np.ndarray, count: int) -> np.ndarray:
    """The `count` integers that the bytes hold [count]; ValueError where they hold others."""
    last = np.flatnonzero(content < 128)
    first = np.concatenate([[0], last[:-1] + 1]).astype(int)
    if len(last) != count or (count and (last[-1] != len(content) - 1 or (last - first).max() >= LONGEST_VALUE)):
        raise ValueError("its numbers are not those that its header announces")
    if not count:
        return np.zeros(0, np.int64)
    shift = 7 * (np.arange(len(content)) - np.repeat(first, last - first + 1))
    zigzag = np.add.reduceat((content & 127).astype(np.int64) << shift, first)
    return (zigzag >> 1) ^ -(zigzag & 1)
