"""The store: whole runs or none, and the truth about what is done."""

import dataclasses
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from offmarl.experiments.store.store import Cell, Store, config_hash

CELL = Cell("smac/3m", "good", "embedded", "bc", "paper", "quick", 3)
ID = CELL.run_id("0a1b2c3d")


def record(status="done", **more):
    return {"run_id": ID, "status": status, "reason": None, "evaluations": [], **more}


def test_what_is_written_is_read_again(tmp_path):
    curves = pd.DataFrame({"step": [1, 2], "policy": [0.5, 0.25]})
    place = Store(tmp_path).write(CELL, record(note="ä"), curves, b"weights")
    assert place == tmp_path / "runs" / ID
    read = Store(tmp_path).read(ID)
    assert {**record(note="ä"), "cell": dataclasses.asdict(CELL), "schema": 1} == read
    pd.testing.assert_frame_equal(pd.read_parquet(place / "curves.parquet"), curves)
    assert (place / "checkpoint.pt").read_bytes() == b"weights"


def test_a_run_leaves_nothing_else_behind(tmp_path):
    for _ in range(3):
        Store(tmp_path).write(CELL, record(), pd.DataFrame({"step": [1]}), b"x")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [ID]


@pytest.mark.parametrize("status", ["done", "failed"])
def test_the_status_is_the_records(tmp_path, status):
    Store(tmp_path).write(CELL, record(status))
    assert Store(tmp_path).status(ID) == status


def test_a_run_that_was_never_written_is_pending(tmp_path):
    assert Store(tmp_path).status(ID) == "pending"
    assert Store(tmp_path / "nowhere").read(ID) is None


@pytest.mark.parametrize("summed", [True, False], ids=["with sums", "an older run without"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b'{"status": "pending"}', b'{"status": null}', b"\xff\xfe\x00", b"7"]
)
def test_a_damaged_record_is_set_aside_and_pending_again(tmp_path, content, summed):
    store = Store(tmp_path)
    for n in (1, 2):
        place = store.write(CELL, record())
        (place / "run.json").write_bytes(content)
        if not summed:
            (place / "SHA256SUMS").unlink()
        assert store.peek(ID) is None and place.exists()
        assert store.status(ID) == "pending"
        assert not place.exists()
        assert (tmp_path / "damaged" / f"{ID}.{n}" / "run.json").read_bytes() == content
    store.write(CELL, record())
    assert store.status(ID) == "done"


def test_a_single_changed_digit_is_damage(tmp_path):
    place = Store(tmp_path).write(CELL, record(evaluations=[{"returns": [15.25]}]))
    text = (place / "run.json").read_text()
    (place / "run.json").write_text(text.replace("15.25", "16.25"))
    assert Store(tmp_path).read(ID) is None


@pytest.mark.parametrize("file", ["run.json", "curves.parquet", "checkpoint.pt", "SHA256SUMS"])
@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1])], ids=["cut", "changed"])
def test_a_run_with_a_damaged_file_is_set_aside_and_pending_again(tmp_path, file, damage):
    store = Store(tmp_path)
    place = store.write(CELL, record(), pd.DataFrame({"step": [1]}), b"weights")
    content = (place / file).read_bytes()
    (place / file).write_bytes(damage(content))
    assert store.status(ID) == "pending"
    assert not place.exists() and (tmp_path / "damaged" / f"{ID}.1").is_dir()


@pytest.mark.parametrize("file", ["curves.parquet", "checkpoint.pt"])
def test_a_run_that_has_lost_a_file_is_pending_again(tmp_path, file):
    store = Store(tmp_path)
    (store.write(CELL, record(), pd.DataFrame({"step": [1]}), b"weights") / file).unlink()
    assert store.status(ID) == "pending"


def test_what_else_lies_in_a_runs_folder_does_not_count(tmp_path):
    place = Store(tmp_path).write(CELL, record(), pd.DataFrame({"step": [1]}), b"weights")
    (place / ".DS_Store").write_bytes(b"a file manager's")
    (place / "notes.txt").write_text("mine")
    (place / "plots").mkdir()
    assert Store(tmp_path).status(ID) == "done"


@pytest.mark.parametrize("name", ["checkpoint.pt", "../../outside", "/dev/zero", ""])
def test_nothing_but_a_runs_own_files_is_read_for_its_sums(tmp_path, name):
    place = Store(tmp_path).write(CELL, record(), pd.DataFrame({"step": [1]}), b"weights")
    (place / "checkpoint.pt").unlink()
    os.mkfifo(place / "checkpoint.pt")  # who opens it waits for ever
    (place / "SHA256SUMS").open("a").write(f"{'0' * 64}  {name}\n")
    assert Store(tmp_path).status(ID) == "pending"


def test_an_older_run_without_sums_is_read(tmp_path):
    (Store(tmp_path).write(CELL, record()) / "SHA256SUMS").unlink()
    assert Store(tmp_path).status(ID) == "done"


def test_a_store_that_cannot_be_written_still_says_that_a_run_is_damaged(tmp_path):
    (Store(tmp_path).write(CELL, record()) / "run.json").write_text("{")
    (tmp_path / "damaged").write_text("in the way")
    assert Store(tmp_path).read(ID) is None


def test_the_sums_are_those_of_sha256sum(tmp_path):
    place = Store(tmp_path).write(CELL, record(), pd.DataFrame({"step": [1]}), b"weights")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place, check=True, capture_output=True)


def test_a_run_without_its_record_is_pending(tmp_path):
    (Store(tmp_path).write(CELL, record()) / "run.json").unlink()
    assert Store(tmp_path).status(ID) == "pending"


def test_a_rerun_replaces_the_run_as_a_whole(tmp_path):
    store = Store(tmp_path)
    store.write(CELL, record("failed", reason="RuntimeError: once"), pd.DataFrame({"step": [1]}), b"old")
    store.write(CELL, record(reason=None))
    assert store.status(ID) == "done"
    assert sorted(path.name for path in (tmp_path / "runs" / ID).iterdir()) == ["SHA256SUMS", "run.json"]


def test_a_write_that_fails_leaves_the_earlier_run_as_it_was(tmp_path):
    store = Store(tmp_path)
    store.write(CELL, record(note="first"), None, b"weights")
    with pytest.raises(TypeError):
        store.write(CELL, record(note=object()))  # JSON knows no such thing
    assert store.read(ID)["note"] == "first"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [ID]


@pytest.mark.parametrize(
    "change",
    [
        {"task": "smac/8m"},
        {"quality": "poor"},
        {"source": "og_marl"},
        {"algorithm": "flow_bc"},
        {"variant": "quick"},
        {"profile": "paper"},
        {"seed": 4},
    ],
)
def test_every_part_of_a_cell_is_in_its_run_id(change):
    assert dataclasses.replace(CELL, **change).run_id("0a1b2c3d") != ID


def test_a_run_id_is_a_file_name_that_a_person_can_read():
    assert ID == "smac-3m.good.embedded.bc.paper.quick.s3.0a1b2c3d"


def test_the_hash_differs_with_every_setting_and_not_with_their_order():
    settings = {"config": {"alpha": 3.0, "hidden": (16, 16)}, "protocol": {"steps": 10}}
    turned = {"protocol": {"steps": 10}, "config": {"hidden": (16, 16), "alpha": 3.0}}
    assert config_hash(settings) == config_hash(turned)
    assert len(config_hash(settings)) == 8
    others = [
        {**settings, "config": {"alpha": 3.5, "hidden": (16, 16)}},
        {**settings, "config": {"alpha": 3.0, "hidden": (16, 32)}},
        {**settings, "protocol": {"steps": 11}},
    ]
    assert len({config_hash(other) for other in [settings, *others]}) == 4


# A writer forked again and again, each killed at another moment of its work. It rewrites the same few runs, so that
# both new and replaced ones are hit.
WRITERS = """
import itertools, os, signal, sys, time
import pandas as pd
from offmarl.experiments.store.store import Cell, Store

runs = os.path.join(sys.argv[1], "runs")
torn = 0

def write(results, k, life):
    cell = Cell("smac/3m", "good", "embedded", "bc", "paper", "quick", k % 4)
    text = {"run_id": cell.run_id("0" * 8), "status": "done", "body": [life] * 2000, "life": life}
    Store(results).write(cell, text, pd.DataFrame({"step": range(500), "life": life}), bytes([life % 256]) * 200_000)

write(os.path.join(sys.argv[1], "first"), 0, 0)  # loads what writing takes
for life in itertools.count():
    child = os.fork()
    if not child:
        for k in itertools.count():
            write(sys.argv[1], k, life)
    time.sleep(0.02 + 0.003 * (life % 17) + 0.001 * max(0, life - 25))  # longer where the machine is busy
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    drafts = [name for name in os.listdir(runs) if name.startswith(".")] if os.path.isdir(runs) else []
    torn += bool(drafts)
    for name in drafts:
        os.rename(os.path.join(runs, name), os.path.join(sys.argv[1], f"torn{life}{name}"))
    if life >= 25 and torn >= 8 and any(not name.startswith(".") for name in os.listdir(runs)):
        break
print("torn", torn)
"""


def test_kills_in_the_middle_of_writing_never_leave_a_torn_run(tmp_path, complete):
    done = subprocess.run(
        [sys.executable, "-c", WRITERS, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout.split()[-1]) >= 8  # that many kills did hit a writer at work
    store = Store(tmp_path)
    visible = [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")]
    assert visible
    for place in visible:
        stored = store.read(place.name)
        life = stored["life"]
        assert stored["body"] == [life] * 2000
        curves = pd.read_parquet(place / "curves.parquet")
        assert len(curves) == 500 and (curves["life"] == life).all()
        assert (place / "checkpoint.pt").read_bytes() == bytes([life % 256]) * 200_000


def test_a_store_works_on_over_the_drafts_of_a_killed_writer(tmp_path):
    draft = tmp_path / "runs" / f".{ID}.deadbeef"
    draft.mkdir(parents=True)
    (draft / "run.json").write_text(json.dumps(record()))
    store = Store(tmp_path)
    assert store.status(ID) == "pending"
    store.write(CELL, record())
    assert store.status(ID) == "done"


def test_measurements_of_long_names_are_kept_apart(tmp_path):
    places = {Store(tmp_path).write_measurement("latency", "m" * 300 + end, {"end": end}) for end in "ab"}
    assert sorted(json.loads(place.read_text())["end"] for place in places) == ["a", "b"]
