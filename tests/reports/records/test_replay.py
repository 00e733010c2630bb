"""The file of a replay: what goes in comes out, and nothing else is taken for one."""

import gzip
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offmarl.reports.records import replay
from offmarl.reports.records.replay import Header, Replay, ReplayError, pack, unpack

FACTS = {
    **{"task": "smac/3m", "quality": "good", "source": "embedded", "title": "BC", "episode": 7, "end": "won"},
    **{"kind": "units", "tick": 0.357, "area": [0.0, 0.0, 32.0, 32.0]},
}


def made(T=40, K=6, I=3, A=1, action_step=1.0, seed=0, **facts):
    rng = np.random.default_rng(seed)
    columns = [{"name": "x", "step": 0.02}, {"name": "health", "step": 0.1}, {"name": "target", "step": 1.0}]
    frames = np.stack([rng.normal(16, 5, (T + 1, K)), rng.uniform(0, 45, (T + 1, K)), rng.integers(-1, K, (T + 1, K))])
    returns = np.concatenate([[0.0], rng.normal(0, 1, T).cumsum()]).round(5)
    bodies = [{"name": "marine", "side": k % 2, "agent": k // 2, "size": 0.375} for k in range(K)]
    sizes = {"steps": T, "agents": I, "actions": A, "action_step": action_step, "return": returns[-1]}
    head = Header(**{**FACTS, "columns": columns, "bodies": bodies, **sizes, **facts})
    return Replay(head, np.moveaxis(frames, 0, -1), returns, rng.integers(0, 9, (T, I, A)) * action_step)


@settings(max_examples=40, deadline=None)
@given(T=st.integers(0, 60), K=st.integers(1, 8), A=st.integers(1, 3), seed=st.integers(0, 99))
def test_what_is_packed_comes_back_to_half_a_step(T, K, A, seed):
    one = made(T, K, 3, A, 0.05, seed)
    other = unpack(pack(one))
    assert other.header == one.header
    for column, wanted, found in zip(one.header.columns, one.frames.T, other.frames.T):
        assert np.abs(wanted - found).max() <= column.step / 2 + 1e-9
    assert np.allclose(one.returns, other.returns, atol=1e-9) and np.allclose(one.actions, other.actions, atol=1e-9)
    assert pack(other) == pack(one)


def test_a_file_begins_with_a_line_of_json_and_is_the_same_each_time(tmp_path):
    one = made()
    size = replay.write(tmp_path / "one.replay", one)
    content = (tmp_path / "one.replay").read_bytes()
    head = json.loads(gzip.decompress(content).split(b"\n")[0])
    assert (head["format"], head["task"], head["return"]) == ("offmarl replay 1", "smac/3m", one.header.return_)
    assert len(content) == size and content == pack(made()) and [*tmp_path.iterdir()] == [tmp_path / "one.replay"]


def test_a_damaged_or_truncated_file_is_refused_in_one_line():
    content, rng = pack(made()), random.Random(0)
    damaged = [content[:n] for n in range(0, len(content), 7)] + [content + b"x", b"", b"\x80\x04N.", content * 2]
    for _ in range(300):
        place = rng.randrange(10, len(content))  # before it is a time and the name of a system, which nobody reads
        damaged.append(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
    for case in damaged:
        with pytest.raises(ReplayError, match=r"\Aa file: is not a whole replay: .+\Z") as error:
            unpack(case, "a file")
        assert len(str(error.value)) < 300


def wrapped(change=lambda head: head, body=None, line=None):
    """A whole gzip file with a header, or numbers, that are not those of a replay."""
    first, _, numbers = gzip.decompress(pack(made())).partition(b"\n")
    head = json.loads(first)
    line = json.dumps(change(head) or head).encode() if line is None else line
    return gzip.compress(line + b"\n" + (numbers if body is None else body))


HOSTILE = {
    "another format": wrapped(lambda h: h.update(format="offmarl replay 2")),
    "another key": wrapped(lambda h: h.update(onload="alert(1)")),
    "no bodies": wrapped(lambda h: h.update(bodies=[])),
    "a body of a unit that is a list": wrapped(lambda h: h["bodies"].append([])),
    "more steps than numbers": wrapped(lambda h: h.update(steps=41)),
    "as many steps as there is memory": wrapped(lambda h: h.update(steps=2**62)),
    "many steps of many bodies": wrapped(lambda h: h.update(steps=20_000, bodies=h["bodies"] * 50)),
    "a step of nothing": wrapped(lambda h: h["columns"][0].update(step=0)),
    "a return that is no number": wrapped(lambda h: h.update({"return": float("nan")})),
    "another return": wrapped(lambda h: h.update({"return": h["return"] + 1e-4})),
    "a name of a million letters": wrapped(lambda h: h.update(title="x" * 10**6)),
    "a header that is a list": wrapped(lambda h: [h]),
    "a header as deep as the stack": wrapped(line=b"[" * 10**5),
    "a number of a million digits": wrapped(line=b'{"steps":' + b"9" * 10**6 + b"}"),
    "a header that is no text": wrapped(line=b"\xff\xfe"),
    "no numbers": wrapped(body=b""),
    "a number without an end": wrapped(body=b"\x80" * 900),
    "a long number": wrapped(body=b"\xff" * 9 + b"\x01" + b"\x00" * 880),
    "a bomb": gzip.compress(bytes(2**26)),
    "too large a file": bytes(2**20 + 1),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(content):
    with pytest.raises(ReplayError) as error:
        unpack(content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(line, body):
    for content in (line, gzip.compress(line + b"\n" + body), wrapped(body=body), wrapped(line=line)):
        with pytest.raises(ReplayError):
            unpack(content)


def test_a_target_that_is_no_body_and_numbers_that_do_not_fit_are_not_written():
    wrong = made()
    wrong.frames[3, 2, 2] = 6
    with pytest.raises(ReplayError, match="a target is no body"):
        pack(wrong)
    for value in (np.nan, np.inf, 1e12):
        wrong = made()
        wrong.frames[3, 2, 0] = value
        with pytest.raises(ReplayError, match="not finite, or too large"):
            pack(wrong)
