"""Zip archives from the network: unpacked, or refused with nothing left behind."""

import os
import re
import shutil
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offmarl.datasets.public import archive as archives
from offmarl.datasets.public.archive import unpack


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "x.zip"


def test_unpack_returns_what_it_wrote(archive, tmp_path, files):
    archive.write_bytes(files.zipped({"empty/": b"", **files.VAULT, "__MACOSX/._3m": b"fork"}))
    told = []
    facts = unpack(archive, tmp_path / "data", told.append)
    assert facts == {name: (len(data), files.sha256(data)) for name, data in files.VAULT.items()}
    assert files.tree(tmp_path / "data") == files.VAULT
    assert sum(told) == sum(map(len, files.VAULT.values()))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"3m.vlt"}


def test_an_entry_is_replaced_as_a_whole_and_others_stay(archive, tmp_path, files):
    for name in ("3m.vlt/old", "8m.vlt/data"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(b"old")
    archive.write_bytes(files.zipped(files.VAULT))
    unpack(archive, tmp_path / "data")
    assert files.tree(tmp_path / "data") == {**files.VAULT, "8m.vlt/data": b"old"}


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_in_the_way_is_replaced_and_not_followed(archive, tmp_path, target, files):
    for folder in ("data", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data/3m.vlt").symlink_to(tmp_path / target)
    archive.write_bytes(files.zipped(files.VAULT))
    unpack(archive, tmp_path / "data")
    assert files.tree(tmp_path / "elsewhere") == {}
    assert files.tree(tmp_path / "data") == files.VAULT


def test_nothing_becomes_executable(archive, tmp_path, files):
    archive.write_bytes(files.zipped({files.member("run.sh", stat.S_IFREG | 0o4777): b"#!/bin/sh"}))
    unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data/run.sh").stat().st_mode & 0o7111


def lying(files, declared):
    """An archive of one file of 100,000 bytes that says it has fewer or more, with a CRC that fits."""
    data = bytes(100_000)
    content = bytearray(files.zipped({"liar": data}))
    directory = content.index(b"PK\1\2")
    for place, offset in ((0, 14), (directory, 16)):
        content[place + offset : place + offset + 4] = struct.pack("<I", zipfile.crc32(data[:declared]))
        content[place + offset + 8 : place + offset + 12] = struct.pack("<I", declared)
    return bytes(content)


def twice(files, name):
    with pytest.warns(UserWarning, match="Duplicate"):
        return files.zipped({files.member(name): b"1", files.member(name): b"2"})


def encrypted(files):
    content = bytearray(files.zipped({"secret": b"s"}))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


def stored(files):
    return files.zipped(files.VAULT, zipfile.ZIP_STORED)


HARMFUL = {  # what must be refused, and what the refusal names
    "parent": (lambda f: f.zipped({"ok": b"", "../x": b""}), "../x"),
    "inner parent": (lambda f: f.zipped({"ok": b"", "a/../../x": b""}), "a/../../x"),
    "parent of nothing": (lambda f: f.zipped({"ok": b"", "..": b""}), "'..'"),
    "absolute": (lambda f: f.zipped({"ok": b"", f.member("/tmp/abs"): b""}), "/tmp/abs"),
    "drive": (lambda f: f.zipped({"ok": b"", "C:x": b""}), "C:x"),
    "backslash": (lambda f: f.zipped({"ok": b"", "..\\x": b""}), "x"),
    "NUL": (lambda f: f.zipped({"ok": b"", f.member("a_b"): b""}).replace(b"a_b", b"a\0b"), "a"),
    "no name": (lambda f: f.zipped({"ok": b"", f.member(""): b""}), "''"),
    "point": (lambda f: f.zipped({"ok": b"", "./.": b""}), "./."),
    "link": (lambda f: f.zipped({"ok": b"", f.member("link", stat.S_IFLNK | 0o777): b"/etc"}), "link"),
    "device": (lambda f: f.zipped({"ok": b"", f.member("device", stat.S_IFCHR | 0o666): b""}), "device"),
    "duplicate": (lambda f: twice(f, "double"), "double"),
    "duplicate by another name": (lambda f: f.zipped({"a/b": b"1", "a//b": b"2"}), "a//b"),
    "file and folder": (lambda f: f.zipped({"a": b"1", "a/b": b"2"}), "a/b"),
    "encrypted": (encrypted, "secret"),
    "uncommon": (lambda f: f.zipped({"x": b"1"}, zipfile.ZIP_LZMA), "'x'"),
    "bomb": (lambda f: f.zipped({"big": bytes(2_000_000)}), "0.0 GB"),
    "more than declared": (lambda f: lying(f, 10), "liar"),
    "less than declared": (lambda f: lying(f, 100_001), "liar"),
    "many members": (lambda f: f.zipped({str(i): b"" for i in range(21)}), "21 members"),
    "bad CRC": (lambda f: stored(f).replace(f.CONTENT[:1000], f.CONTENT[1:1001]), "Good/data.bin"),
    "no zip": (lambda f: b"<html>please log in</html>", "not a zip"),
    "no bytes": (lambda f: b"", "not a zip"),
    "no files": (lambda f: f.zipped({"folder/": b""}), "no files"),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1_000_000)
    monkeypatch.setattr(archives, "MEMBERS", 20)


@pytest.mark.parametrize("harm", HARMFUL)
@pytest.mark.parametrize("existing", [False, True])
def test_a_harmful_archive_is_refused_and_nothing_of_it_is_left(archive, tmp_path, small, harm, existing, files):
    make, named = HARMFUL[harm]
    archive.write_bytes(make(files))
    if existing:
        (tmp_path / "root/data/ok").mkdir(parents=True)
        (tmp_path / "root/data/ok/mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "root").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=re.escape(named)):
        unpack(archive, tmp_path / "root/data")
    assert [path for path in sorted(tmp_path.rglob("*")) if path != tmp_path / "root" or existing] == before


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_refused(archive, tmp_path, kept, files):
    content = stored(files)
    archive.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="zip"):
        unpack(archive, tmp_path / "data")
    assert os.listdir(tmp_path) == ["x.zip"]


def test_an_archive_larger_than_the_free_disk_is_refused(archive, tmp_path, monkeypatch, files):
    archive.write_bytes(files.zipped({"big": bytes(2_000_000)}))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1_999_999))
    with pytest.raises(ValueError, match="can be unpacked"):
        unpack(archive, tmp_path / "data")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=2_000_000))
    unpack(archive, tmp_path / "data")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_unpacking_leaves_no_half_folder(archive, tmp_path, after, files):
    archive.write_bytes(files.zipped({f"3m.vlt/{i}": b"x" for i in range(4)}))
    blocks = iter(range(after))

    def interrupted(_):
        if next(blocks, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "data", interrupted)
    assert os.listdir(tmp_path) == ["x.zip"]


def test_the_draft_of_a_killed_process_does_not_stay(archive, tmp_path, files):
    (tmp_path / "data/.x.zip.draft/new/3m.vlt").mkdir(parents=True)
    (tmp_path / "data/.x.zip.draft/new/3m.vlt/half").write_text("half")
    archive.write_bytes(files.zipped(files.VAULT))
    unpack(archive, tmp_path / "data")
    assert files.tree(tmp_path / "data") == files.VAULT


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_whatever_bytes_are_damaged_an_archive_is_refused_or_sound(files, data, method):
    held = {"a/one": b"one" * 20, "a/two": b"", "three": bytes(range(60))}
    content = bytearray(files.zipped(held, method))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as place:
        archive, folder = Path(place) / "x.zip", Path(place) / "data"
        archive.write_bytes(content)
        try:
            facts = unpack(archive, folder)
        except ValueError:
            assert os.listdir(place) == ["x.zip"]
        else:
            assert {path: (len(have), files.sha256(have)) for path, have in files.tree(folder).items()} == facts
            assert set(files.tree(folder).values()) <= set(held.values())
