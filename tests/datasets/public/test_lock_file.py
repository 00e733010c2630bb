"""The lock file of downloads: SHA-256 sums compared, files that changed refused, damage found."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from downloads import COMMIT, plain, zip_of

from offmarl.datasets.public.download import fetch, read_lock, verify


def test_a_file_that_is_not_the_recorded_one_is_refused(hub, tmp_path, files):
    before, after = files.zipped(files.VAULT), files.zipped({"3m.vlt/Good/data.bin": b"other", "new": b"new"})
    hub.commit("core/3m.zip", before, commit=COMMIT)
    assert fetch([zip_of()], tmp_path) == []
    lock, held = read_lock(tmp_path), files.tree(tmp_path)
    hub.commit("core/3m.zip", after, commit=COMMIT)  # a mirror that has something else at this commit
    (failure,) = fetch([zip_of()], tmp_path)
    assert failure.startswith("3m.zip: ") and "\n" not in failure
    known = (files.sha256(before), files.sha256(after), "smac/3m.zip", str(tmp_path / "offmarl-lock.json"))
    for said in (*known, "delete the entry"):
        assert said in failure
    assert (read_lock(tmp_path), files.tree(tmp_path)) == (lock, held)
    assert files.parts(tmp_path) == []
    (kept,) = (tmp_path / ".downloads").glob("*.refused")
    assert kept.read_bytes() == after and str(kept) in failure
    (tmp_path / "offmarl-lock.json").write_text("{}")
    assert fetch([zip_of()], tmp_path) == []
    assert files.tree(tmp_path) == {"smac/3m.vlt/Good/data.bin": b"other", "smac/new": b"new"}


def test_a_plain_file_that_is_not_the_recorded_one_is_refused(hub, tmp_path, files):
    wanted = plain(hub.offer("/prey.pt", b"one"), "omar/prey.pt")
    assert fetch([wanted], tmp_path) == []
    hub.offer("/prey.pt", b"other")
    (failure,) = fetch([wanted], tmp_path)
    assert files.sha256(b"one") in failure and files.sha256(b"other") in failure
    assert files.tree(tmp_path) == {"omar/prey.pt": b"one"}


def test_the_recorded_file_is_accepted_again(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    assert fetch([zip_of()], tmp_path) == []
    shutil.rmtree(tmp_path / "smac")
    assert fetch([zip_of()], tmp_path) == []
    assert verify(tmp_path) == []


def test_a_file_that_is_not_what_its_etag_says_is_refused(hub, tmp_path, files):
    content = files.zipped(files.VAULT)
    hub.commit("core/3m.zip", content)
    hub.etag = "0" * 64
    (failure,) = fetch([zip_of()], tmp_path)
    assert files.sha256(content) in failure and "0" * 64 in failure
    assert files.tree(tmp_path) == {} and read_lock(tmp_path) == {}
    hub.etag = hashlib.sha1(content).hexdigest()  # small files have git's hash, which is no SHA-256
    assert fetch([zip_of()], tmp_path) == []


def test_a_refused_archive_is_kept_and_downloaded_anew_next_time(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped({"ok": b"", "../x": b""}))
    (failure,) = fetch([zip_of()], tmp_path / "root")
    assert "../x" in failure and ".refused" in failure
    assert files.tree(tmp_path / "root") == {} and not (tmp_path / "x").exists() and not (tmp_path / "root/x").exists()
    assert read_lock(tmp_path / "root") == {}
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    assert fetch([zip_of()], tmp_path / "root") == []
    assert verify(tmp_path / "root") == []


@pytest.mark.parametrize("damage", ["", "{", "[]", "[1]", '{"a": 1}', '{"a": {"sha256": "0"}}', "\xff"])
def test_a_damaged_lock_file_is_said_and_not_overwritten(hub, tmp_path, damage, files):
    file = tmp_path / "offmarl-lock.json"
    file.write_bytes(damage.encode("latin-1"))
    (failure,) = fetch([plain(hub.offer("/x", files.CONTENT))], tmp_path)
    assert str(file) in failure and "not a lock file" in failure
    assert file.read_bytes() == damage.encode("latin-1")
    assert hub.requests == []
    with pytest.raises(ValueError, match="not a lock file"):
        verify(tmp_path)


def damage_flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage, said",
    [
        (damage_flipped, "SHA-256"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "99999 bytes"),
        (Path.unlink, "missing"),
    ],
    ids=["flipped", "truncated", "missing"],
)
def test_verify_finds_damage(hub, tmp_path, damage, said, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    prey = plain(hub.offer("/prey.pt", files.CONTENT), into="omar/prey.pt")
    assert fetch([zip_of(), prey], tmp_path) == []
    damage(tmp_path / "smac/3m.vlt/Good/data.bin")
    (line,) = verify(tmp_path)
    assert line.startswith("smac/3m.vlt/Good/data.bin: ") and said in line
    assert verify(tmp_path, ["smac/3m", "omar"]) == [line]
    assert verify(tmp_path, ["omar"]) == verify(tmp_path, ["smac/3m.vlt/Poor"]) == []


def test_nothing_recorded_is_nothing_wrong(tmp_path):
    assert read_lock(tmp_path) == {} and verify(tmp_path) == []


def test_the_library_is_imported_only_where_a_download_starts():
    code = "import sys, offmarl.datasets.catalogue; print('huggingface_hub' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
