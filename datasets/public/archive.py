"""Zip archives from the network, unpacked without trusting them."""

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath

from offmarl.datasets.cache import Progress, no_progress

CHUNK = 1 << 18
MEMBERS = 1_000_000  # of a zip file
LARGEST = 200_000_000_000  # bytes that a zip file may unpack to
UNSAFE = re.compile(r"/|[A-Za-z]:|.*[\\\0]", re.DOTALL)  # beginnings and characters a member's name must not have
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)  # what zipfile raises over a bad archive


def unpack(archive: Path, folder: Path, progress: Progress = no_progress) -> dict[str, tuple[int, str]]:
    """Unpack a zip into `folder`; returns size in bytes and SHA-256 of each file by its path there.

    Entries at its top level appear complete or not at all, and replace entries of the same name; __MACOSX/ is skipped.
    `progress` is called with the bytes of each block.
    Raises ValueError naming what is damaged, is outside of the folder, or would fill the disk; nothing is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{archive.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as source:
            members = _members(source, shutil.disk_usage(folder).free)
            files = {path: _extract(source, member, draft / "new" / path, progress) for path, member in members.items()}
        (draft / "old").mkdir()
        for entry in sorted((draft / "new").iterdir()):
            if os.path.lexists(folder / entry.name):
                os.replace(folder / entry.name, draft / "old" / entry.name)
            os.replace(entry, folder / entry.name)
        return files
    except DAMAGE as error:
        raise ValueError(f"it is not a sound zip file ({error or type(error).__name__})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):  # it is not empty, as expected
            folder.rmdir()


def _members(source: zipfile.ZipFile, free: int) -> dict[str, zipfile.ZipInfo]:
    """The files in an archive by their path, if all of it is safe to unpack."""
    infos, members = source.infolist(), {}
    total = sum(info.file_size for info in infos)
    if len(infos) > MEMBERS or total > min(free, LARGEST):
        most = f"{MEMBERS} and {min(free, LARGEST) / 1e9:.1f} GB are the most that can be unpacked"
        raise ValueError(f"it has {len(infos)} members of together {total / 1e9:.1f} GB, {most}")
    for info in infos:
        path, kind = PurePosixPath(info.filename), stat.S_IFMT(info.external_attr >> 16)
        is_folder = info.filename.endswith("/")
        outside = ".." in path.parts or not (path.parts or is_folder)
        if outside or UNSAFE.match(info.filename) or UNSAFE.match(info.orig_filename):
            raise ValueError(f"its member {info.orig_filename!r} would be outside of the folder")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"its member {info.filename!r} is a link or a device")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"its member {info.filename!r} is encrypted or compressed in an uncommon way")
        if info.header_offset < 0:
            raise ValueError(f"it is not a sound zip file (its member {info.filename!r} begins before it)")
        if str(path) in members:
            raise ValueError(f"it has two members {info.filename!r}")
        if not is_folder and path.parts[:1] != ("__MACOSX",):
            members[str(path)] = info
    for path in members:
        if not members.keys().isdisjoint(map(str, PurePosixPath(path).parents)):
            raise ValueError(f"its member {path!r} is inside a file")
    if not members:
        raise ValueError("it holds no files")
    return members


def _extract(source: zipfile.ZipFile, member: zipfile.ZipInfo, file: Path, progress: Progress) -> tuple[int, str]:
    """Write one file; returns its size and SHA-256."""
    declared, size, digest = member.file_size, 0, hashlib.sha256()
    member.file_size += 1  # zipfile stops there silently; one byte more shows what inflates beyond
    file.parent.mkdir(parents=True, exist_ok=True)
    with source.open(member) as stream, file.open("xb") as sink:
        while block := stream.read(CHUNK):
            sink.write(block)
            digest.update(block)
            size += len(block)
            progress(len(block))
    if size != declared:
        raise ValueError(f"its member {member.filename!r} has {size} bytes where {declared} are declared")
    return size, digest.hexdigest()
