"""Downloads from a Hugging Face hub on this machine: resumed, checked, placed and recorded, whatever goes wrong."""

import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from downloads import COMMIT, REPO, plain, unpacked, zip_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.datasets.public import download
from offmarl.datasets.public.download import fetch, read_lock, verify

# Whole downloads.


def test_an_archive_is_downloaded_unpacked_recorded_and_deleted(hub, tmp_path, files):
    content = files.zipped(files.VAULT)
    hub.commit("core/smac_v1/3m.zip", content, commit=COMMIT)
    wanted = zip_of("core/smac_v1/3m.zip", "og_marl/smac_v1")
    assert wanted.name == "3m.zip" and wanted.unpack
    assert fetch([wanted], tmp_path) == []
    assert files.tree(tmp_path) == {f"og_marl/smac_v1/{name}": data for name, data in files.VAULT.items()}
    (key, entry), *others = read_lock(tmp_path).items()
    assert (key, others) == ("og_marl/smac_v1/3m.zip", [])
    assert (entry["sha256"], entry["size"]) == (files.sha256(content), len(content))
    assert (entry["revision"], entry["commit"]) == ("main", COMMIT)
    assert entry["url"] == f"{hub.address}/datasets/{REPO}/resolve/{COMMIT}/core/smac_v1/3m.zip"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry["date"])
    expected = {f"og_marl/smac_v1/{name}": [len(data), files.sha256(data)] for name, data in files.VAULT.items()}
    assert entry["files"] == expected
    assert files.parts(tmp_path) == []
    assert json.loads((tmp_path / "offmarl-lock.json").read_text()) == read_lock(tmp_path)
    assert verify(tmp_path) == []


def test_a_plain_file_is_put_in_its_place(hub, tmp_path, files):
    url = hub.offer("/prey/pretrained_adv_model.pt", files.CONTENT)
    assert fetch([plain(url, "omar/prey/simple_tag.pt")], tmp_path) == []
    assert files.tree(tmp_path) == {"omar/prey/simple_tag.pt": files.CONTENT}
    entry = read_lock(tmp_path)["omar/prey/simple_tag.pt/pretrained_adv_model.pt"]
    assert entry["files"] == {"omar/prey/simple_tag.pt": [len(files.CONTENT), files.sha256(files.CONTENT)]}
    assert (entry["sha256"], entry["url"]) == (files.sha256(files.CONTENT), url)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 3_000_001], ids=len)
def test_a_file_of_any_length_arrives(hub, tmp_path, content, files):
    assert fetch([plain(hub.offer("/x", content))], tmp_path) == []
    assert files.tree(tmp_path) == {"data/file.bin": content}


def test_files_of_one_name_do_not_mix(hub, tmp_path, files):
    one, other = hub.offer("/a/data.bin", b"one" * 50_000), hub.offer("/b/data.bin", b"other" * 50_000)
    assert fetch([plain(one, into="a"), plain(other, into="b")], tmp_path) == []
    assert files.tree(tmp_path) == {"a": b"one" * 50_000, "b": b"other" * 50_000}


def test_a_file_that_is_asked_for_twice_is_downloaded_once(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    assert fetch([zip_of() for _ in range(3)], tmp_path) == []
    assert len(hub.sent()) == 1


def test_nothing_to_download_is_no_failure(tmp_path):
    assert fetch([], tmp_path) == []


def test_files_are_downloaded_as_many_at_a_time_as_asked(hub, tmp_path, files):
    together = threading.Barrier(3)
    wait = {"run": lambda: together.wait(5)}
    urls = [hub.offer(f"/{i}", files.CONTENT, wait) for i in range(3)]
    assert fetch([plain(url, into=f"f{i}") for i, url in enumerate(urls)], tmp_path, jobs=3) == []
    assert not together.broken


def test_many_threads_write_one_lock_file(hub, tmp_path):
    wanted = [plain(hub.offer(f"/{i}", b"%d" % i), into=f"data/{i}") for i in range(60)]
    assert fetch(wanted, tmp_path, jobs=12) == []
    assert read_lock(tmp_path).keys() == {each.key for each in wanted}
    assert verify(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["offmarl-lock.json"]


def test_progress_tells_files_and_bytes(hub, tmp_path, monkeypatch, files):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    fetch([plain(hub.offer(f"/{i}.bin", files.CONTENT), into=f"{i}") for i in range(2)], tmp_path)
    shown = screen.getvalue()
    assert "0 of 2 files" in shown and "2 of 2 files" in shown
    assert "0.bin" in shown and "3.00M" in shown


def test_the_users_token_is_not_sent(hub, tmp_path, monkeypatch, files):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    assert fetch([zip_of(), plain(hub.offer("/x", b"x"))], tmp_path) == []
    assert hub.requests and all("authorization" not in request for request in hub.requests)


# Revisions.


def test_the_commit_of_the_first_download_is_asked_for_from_then_on(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT), commit=COMMIT)
    assert fetch([zip_of()], tmp_path) == []
    hub.commit("core/3m.zip", files.zipped({"3m.vlt/new": b"new"}))
    shutil.rmtree(tmp_path / "smac")
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == {f"smac/{name}": data for name, data in files.VAULT.items()}
    assert read_lock(tmp_path)["smac/3m.zip"]["commit"] == COMMIT


def test_another_revision_is_downloaded_and_said_with_what_it_changed(hub, tmp_path, capsys, files):
    before = files.zipped(files.VAULT)
    after = files.zipped({**files.VAULT, "3m.vlt/Good/data.bin": b"other", "3m.vlt/new": b"new"})
    hub.commit("core/3m.zip", before, commit=COMMIT)
    assert fetch([zip_of()], tmp_path) == []
    new = hub.commit("core/3m.zip", after, revision="v2")
    capsys.readouterr()
    assert fetch([zip_of(revision="v2")], tmp_path) == []
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("3m.zip: ")]
    for said in (f"main ({COMMIT[:12]}) became v2 ({new[:12]})", files.sha256(before), files.sha256(after)):
        assert said in line
    assert "1 files changed, 1 new, 0 gone" in line
    assert (tmp_path / "smac/3m.vlt/Good/data.bin").read_bytes() == b"other"
    assert read_lock(tmp_path)["smac/3m.zip"]["revision"] == "v2"
    hub.revisions["v3"] = new
    assert fetch([zip_of(revision="v3")], tmp_path) == []
    assert "the file is the same" in capsys.readouterr().err


def test_a_commit_that_is_gone_is_a_failure_with_the_way_by_hand(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT), commit=COMMIT)
    assert fetch([zip_of()], tmp_path) == []
    hub.versions.clear()
    (failure,) = fetch([zip_of()], tmp_path)
    assert f"127.0.0.1 answers 404 Not Found at revision {COMMIT}" in failure


def test_a_lock_file_without_commits_is_read_and_compared(hub, tmp_path, files):
    """As it was written before downloads were pinned to a commit."""
    content = files.zipped(files.VAULT)
    hub.commit("core/3m.zip", content, commit=COMMIT)
    assert fetch([zip_of()], tmp_path) == []
    lock = read_lock(tmp_path)
    for name in ("revision", "commit"):
        del lock["smac/3m.zip"][name]
    (tmp_path / "offmarl-lock.json").write_text(json.dumps(lock))
    assert verify(tmp_path) == []
    hub.commit("core/3m.zip", files.zipped({"new": b"new"}))
    (failure,) = fetch([zip_of()], tmp_path)
    assert "the one downloaded before had" in failure
    hub.commit("core/3m.zip", content, commit=COMMIT)
    assert fetch([zip_of()], tmp_path) == []
    assert read_lock(tmp_path)["smac/3m.zip"]["commit"] == COMMIT


# Resuming.


def test_a_cut_connection_is_resumed_and_no_byte_is_sent_twice(hub, tmp_path, archive, files):
    hub.commit("core/3m.zip", archive, {"cut": 1_000_000}, {"cut": 500_000})
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == unpacked(files)
    assert [asked for _, asked in hub.sent()] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert sum(sent for sent, _ in hub.sent()) == len(archive)


def test_a_connection_that_is_reset_is_resumed(hub, tmp_path, archive, files):
    hub.commit("core/3m.zip", archive, {"cut": 1_000_000, "reset": True}, {"cut": 500_000, "reset": True})
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == unpacked(files)
    assert [asked for _, asked in hub.sent()] == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_goes_on_where_an_earlier_one_failed(hub, tmp_path, archive, files):
    hub.commit("core/3m.zip", archive, {"cut": 400_000}, {"status": 503})
    (failure,) = fetch([zip_of()], tmp_path)
    assert "answers 503" in failure and files.tree(tmp_path) == {}
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == unpacked(files)
    assert [asked for _, asked in hub.sent()] == [None, "bytes=400000-"]
    assert sum(sent for sent, _ in hub.sent()) == len(archive)


@pytest.fixture(autouse=True)
def interruptible():
    """Programs that a script starts in the background ignore Ctrl-C, and so would these tests and what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_an_interrupt_is_prompt_and_leaves_what_there_is(hub, tmp_path, archive, files, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 600)
    both = threading.Barrier(2, action=interrupt)

    def interrupt_and_hang():
        while sum(part.stat().st_size for part in files.parts(tmp_path)) < 2_000_000:
            time.sleep(0.01)
        both.wait()
        hub.hang()

    for i in range(2):
        hub.commit(f"{i}.zip", archive, {"cut": 1_000_000, "then": interrupt_and_hang}, commit=f"{i}" * 40)
    wanted = [zip_of(f"{i}.zip", f"f{i}", revision=f"{i}" * 40) for i in range(2)]
    with pytest.raises(KeyboardInterrupt):
        fetch(wanted, tmp_path)
    assert not hub.waited_for
    assert [part.stat().st_size for part in files.parts(tmp_path)] == [1_000_000] * 2
    hub.silent.set()
    for path in (tmp_path / ".downloads").glob("*.zip.lock"):
        with path.open() as lock:  # until the first call's thread has noticed that the connection ended
            fcntl.flock(lock, fcntl.LOCK_EX)
    hub.requests.clear()
    assert fetch(wanted, tmp_path) == []
    assert {name[:2] for name in files.tree(tmp_path)} == {"f0", "f1"} and verify(tmp_path) == []
    assert {asked for _, asked in hub.sent()} == {"bytes=1000000-"}


def test_an_interrupt_ends_a_transfer_that_runs(hub, tmp_path, archive, files):
    def interrupt_amid():
        while not any(part.stat().st_size for part in files.parts(tmp_path)):
            time.sleep(0.01)
        interrupt()

    hub.commit("core/3m.zip", archive, {"drip": True, "run": lambda: threading.Thread(target=interrupt_amid).start()})
    with pytest.raises(KeyboardInterrupt):
        fetch([zip_of()], tmp_path)
    (part,) = files.parts(tmp_path)
    size = part.stat().st_size
    time.sleep(0.2)
    assert 0 < part.stat().st_size == size < len(archive)


def test_an_interrupted_program_does_not_wait_for_a_silent_server(hub, tmp_path, files):
    asked = threading.Event()
    url = hub.offer("/x", files.CONTENT, {"run": lambda: asked.set() or hub.hang()})
    code = "import sys; from offmarl.datasets.public.download import *; "
    code += "fetch([Download('x', url='%s')], sys.argv[1])"
    patient = os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "600"}
    call = [sys.executable, "-c", code % url, str(tmp_path)]
    program = subprocess.Popen(call, env=patient, stderr=subprocess.PIPE, text=True)
    assert asked.wait(300)
    program.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in program.communicate(timeout=300)[1] and not hub.waited_for


def test_the_part_of_a_file_that_changed_in_between_is_not_continued(hub, tmp_path, archive, files):
    hub.commit("core/3m.zip", archive[::-1], {"cut": 1_000_000}, {"status": 503})
    assert len(fetch([zip_of()], tmp_path)) == 1
    hub.commit("core/3m.zip", archive)
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == unpacked(files)
    assert [asked for _, asked in hub.sent()] == [None, None]
    assert files.parts(tmp_path) == []


def test_a_server_without_ranges_starts_anew(hub, tmp_path, archive, files):
    hub.ranges = False
    hub.commit("core/3m.zip", archive, {"cut": 1_000_000})
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == unpacked(files)
    assert [sent for sent, _ in hub.sent()] == [1_000_000, len(archive)]


def test_a_part_that_was_deleted_is_downloaded_anew(hub, tmp_path, archive, files):
    hub.commit("core/3m.zip", archive, {"cut": 100_000}, {"status": 503})
    assert len(fetch([zip_of()], tmp_path)) == 1
    files.parts(tmp_path)[0].unlink()
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == unpacked(files)


@pytest.mark.parametrize("unsaid", [(), ("X-Linked-Size",)])
def test_a_part_that_is_complete_is_not_sent_again_if_its_size_is_known(hub, tmp_path, monkeypatch, unsaid, files):
    hub.unsaid = unsaid
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        assert fetch([zip_of()], tmp_path) == ["3m.zip: disk full"]
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == {f"smac/{name}": data for name, data in files.VAULT.items()}
    assert len(hub.sent()) == 1 + len(unsaid)


def test_a_part_that_is_too_long_is_not_continued(hub, tmp_path, archive, files):
    hub.commit("core/3m.zip", archive, {"cut": 100_000}, {"status": 503})
    assert len(fetch([zip_of()], tmp_path)) == 1
    files.parts(tmp_path)[0].write_bytes(archive + b"junk")
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == unpacked(files)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 1500), max_size=4), ranges=st.booleans())
def test_whatever_is_cut_where_the_file_arrives_identical(hub, files, content, cuts, ranges):
    hub.clear()
    hub.ranges = ranges
    hub.commit("core/3m.zip", files.zipped({"x": content}, 0), *[{"cut": cut} for cut in cuts])
    with tempfile.TemporaryDirectory() as root:
        assert fetch([zip_of()], Path(root)) == []
        assert files.tree(Path(root)) == {"smac/x": content}
