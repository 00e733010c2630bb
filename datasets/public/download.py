"""Public datasets: downloaded by huggingface_hub, unpacked into a folder, and recorded in a lock file.

    <root>/offmarl-lock.json   `Download.key` -> revision, commit, url, size, sha256, date, files (path -> size, sha256)
    <root>/.downloads/         unfinished downloads, and files that were refused

The commit that a revision meant at the first download is asked for from then on. An interrupted download is resumed:
`hf_hub_download` deletes its part when it is interrupted, so its two steps, `get_hf_file_metadata` and `http_get`, are
called here. Nothing that is downloaded is executed or unpickled.
"""

import fcntl
import hashlib
import json
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import urlsplit

from tqdm import tqdm

from offmarl.datasets.cache import replacing
from offmarl.datasets.damaged import short_message
from offmarl.datasets.dataset import file_sum
from offmarl.datasets.public.archive import unpack

LOCK = "offmarl-lock.json"
HUB = "https://huggingface.co"  # $HF_ENDPOINT names a mirror, as for its own tools
SHAPE = "{n_fmt} of {total_fmt} files |{bar}| {elapsed}"  # of the bar of all downloads
GRACE_S = 2  # that an interrupted thread has to tidy up


class Stopped(Exception):
    """The user interrupted the downloads."""


@dataclass(frozen=True)
class Download:
    """A zip file of a dataset repository, for the folder `into`; or, if `url` is set, the plain file `into`."""

    into: str  # under the data folder
    repo: str = ""
    path: str = ""  # of the zip in the repository
    revision: str = "main"  # branch, tag or commit
    url: str = ""

    @property
    def unpack(self) -> bool:
        """Whether it is a zip file."""
        return not self.url

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePosixPath(self.path or urlsplit(self.url).path).name

    @property
    def key(self) -> str:
        """Its entry in the lock file."""
        return f"{self.into}/{self.name}"

    def address(self, revision: str = "") -> str:
        """Its URL, at the hub or at the mirror that $HF_ENDPOINT names."""
        hub = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        return self.url or f"{hub}/datasets/{self.repo}/resolve/{revision or self.revision}/{self.path}"


class Bar(tqdm):
    """A progress bar that ends its download once the user has interrupted."""

    def __init__(self, stop: threading.Event, **settings: Any):
        self.stop = stop
        super().__init__(**settings)

    def update(self, n: float | None = 1) -> bool | None:
        """So many bytes further."""
        if self.stop.is_set():
            raise Stopped
        return super().update(n)


def fetch(downloads: Sequence[Download], root: Path, jobs: int = 2) -> list[str]:
    """Download all, `jobs` at a time, unpack them under `root` and record them in its lock file.

    Files that are recorded already are downloaded again. Returns one line for each that failed, with what to do; the
    others are there. A KeyboardInterrupt ends all threads; the next call resumes.
    """
    downloads = list(dict.fromkeys(downloads))  # several datasets may come from one archive
    todo: queue.SimpleQueue[Download] = queue.SimpleQueue()
    for download in downloads:
        todo.put(download)
    if downloads:
        import_hub()  # here, because imports in threads would wait for each other
    stop, failures = threading.Event(), dict[Download, str]()
    total = tqdm(total=len(downloads), bar_format=SHAPE, position=0, disable=None)

    def work(line: int) -> None:
        bar = partial(Bar, stop, position=line, leave=False, disable=None, unit="B", unit_scale=True)
        with suppress(queue.Empty):
            while not stop.is_set():
                download = todo.get_nowait()
                failures[download] = _failure(download, Path(root), bar)
                total.update()

    # Daemons: one that waits for a silent server must not keep an interrupted program alive.
    lines = range(1, 1 + min(max(jobs, 1), len(downloads)))
    threads = [threading.Thread(target=work, args=(line,), daemon=True) for line in lines]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for thread in filter(threading.Thread.is_alive, threads):
            thread.join(GRACE_S)
        total.close()
    return [failures[download] for download in downloads if failures[download]]


def import_hub() -> Any:
    """huggingface_hub, without telemetry and warnings; imported only where a download starts, because it is slow."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    huggingface_hub.logging.set_verbosity_error()
    return huggingface_hub


def _failure(download: Download, root: Path, bar: Callable[..., Bar]) -> str:
    """Download one file; returns why that failed, or nothing."""
    try:
        _Transfer(download, root, bar).run()
        return ""
    except Exception as error:  # the other files go on, whatever happened to this one
        return f"{download.name}: {' '.join(str(error).split()) or type(error).__name__}"


def manual(download: Download, root: Path) -> str:
    """What to do if the download fails, in one line."""
    what = "unpack it in" if download.unpack else "save it as"
    return f"download it by hand from {download.address()} and {what} {Path(root) / download.into}"


class _Transfer:
    """One download on its way from the network to its place."""

    def __init__(self, download: Download, root: Path, bar: Callable[..., Bar]):
        self.download, self.root, self.bar = download, root, bar
        self.stem = f"{hashlib.sha256(download.into.encode()).hexdigest()[:8]}-{download.name}"
        self.parts = root / ".downloads"

    def run(self) -> None:
        """Download, check, put in place, record; a ValueError or an OSError says why that is impossible."""
        self.parts.mkdir(parents=True, exist_ok=True)
        with (self.parts / f"{self.stem}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError("another process is downloading it already") from None
            known = read_lock(self.root).get(self.download.key, {})
            moved = bool(known) and known.get("revision", "main") != self.download.revision
            facts, part = self._receive("" if moved else known.get("commit", ""))
            with self.bar(desc=f"{self.download.name}, checking and unpacking") as bar:
                facts |= {"size": part.stat().st_size, "sha256": file_sum(part)}
                self._compare(part, facts["sha256"], facts.pop("etag", ""), "" if moved else known.get("sha256", ""))
                facts["files"] = self._place(part, facts, bar)
            facts["date"] = datetime.now(UTC).isoformat("T", "seconds")
            record(self.root, self.download.key, facts)
            part.unlink(missing_ok=True)
        if moved:
            tqdm.write(f"{self.download.name}: {_difference(known, facts)}", file=sys.stderr)

    def _receive(self, commit: str) -> tuple[dict[str, Any], Path]:
        """What is known of the file at a commit (default: at the download's revision), and its complete part."""
        hub, revision = import_hub(), commit or self.download.revision
        where, reason, have = urlsplit(self.download.address()).hostname, "", -1
        while have < (have := sum(part.stat().st_size for part in self.parts.glob(f"{self.stem}*.part"))):
            try:  # again as long as the part grows; `http_get` does not retry after a connection reset
                facts, size = (
                    self._locate(hub, revision) if self.download.unpack else ({"url": self.download.url}, None)
                )
                part = self._part(facts.get("etag", ""))
                self._resume(facts["url"], part, size)
                return facts, part
            except hub.errors.HfHubHTTPError as error:
                reason = f"{where} answers {error.response.status_code} {error.response.reason_phrase}"
                reason += f" at revision {revision}" if self.download.unpack else ""
                break
            except (Stopped, ValueError, OSError):
                raise
            except Exception as error:  # the network, in whatever words of the HTTP library
                reason = f"{where} cannot be reached ({short_message(error)})"
        raise ConnectionError(f"{reason}; {manual(self.download, self.root)}")

    def _locate(self, hub: Any, revision: str) -> tuple[dict[str, Any], int | None]:
        """The hub's facts on the file at a revision, and its size in bytes."""
        address = self.download.address(revision)
        found = hub.get_hf_file_metadata(address, token=False, retry_on_errors=True)
        if not (found.commit_hash and found.etag):
            raise ValueError(f"{address} does not answer as a Hugging Face hub does; check HF_ENDPOINT")
        facts = {"revision": self.download.revision, "commit": found.commit_hash, "etag": found.etag}
        return facts | {"url": self.download.address(found.commit_hash)}, found.size

    def _part(self, etag: str) -> Path:
        """Where this version of the file is collected; removes parts of other versions."""
        part = self.parts / f"{self.stem}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.part"
        for other in self.parts.glob(f"{self.stem}*"):
            if other.suffix in (".part", ".json") and other != part:
                other.unlink()
        return part

    def _resume(self, url: str, part: Path, size: int | None) -> None:
        """Download the rest of the part; all of it if the size is unknown."""
        from huggingface_hub.file_download import http_get

        with part.open("ab") as sink:
            have = sink.tell() if size and sink.tell() <= size else 0
            sink.truncate(have)
            self._check_disk(size or 0, have)
            http_get(
                url,
                sink,
                resume_size=have,
                headers={"User-Agent": "offmarl"},
                expected_size=size,
                displayed_filename=self.download.name,
                tqdm_class=self.bar,  # type: ignore[arg-type]
            )

    def _check_disk(self, size: int, have: int) -> None:
        """An archive and what it unpacks to take about 2.2 times its size."""
        need, free = size * (2.2 if self.download.unpack else 1) - have, shutil.disk_usage(self.root).free
        if need > free:
            raise ValueError(f"it needs {need / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free in {self.root}")

    def _compare(self, part: Path, sha256: str, etag: str, recorded: str) -> None:
        """Refuse a file that is not what the hub announced, or what was downloaded before."""
        if len(etag) == 64 and etag != sha256:  # the ETag of a large file is its SHA-256
            self._refuse(part, f"its SHA-256 is {sha256}, the published file has {etag}")
        if recorded not in ("", sha256):
            entry = f'"{self.download.key}" in {self.root / LOCK}'
            advice = f"if the publisher really changed it, delete the entry {entry} and download it again"
            self._refuse(part, f"its SHA-256 is {sha256}, the one downloaded before had {recorded}; {advice}")

    def _place(self, part: Path, facts: dict[str, Any], bar: Bar) -> dict[str, tuple[int, str]]:
        """Put the file, or what it holds, in place; returns size and SHA-256 of each by its path under root."""
        into = PurePosixPath(self.download.into)
        if not self.download.unpack:
            (self.root / into).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, self.root / into)
            return {str(into): (facts["size"], facts["sha256"])}
        try:
            files = unpack(part, self.root / into, bar.update)
        except ValueError as error:
            self._refuse(part, str(error))
        return {str(into / path): found for path, found in files.items()}

    def _refuse(self, part: Path, reason: str) -> NoReturn:
        kept = self.parts / f"{self.stem}.refused"
        os.replace(part, kept)
        raise ValueError(f"{reason}; nothing was put in place, the file is kept as {kept}")


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What another revision changed, in one line."""
    revisions = [f"{one.get('revision', 'main')} ({one.get('commit', '')[:12] or '?'})" for one in (before, now)]
    text = f"revision {' became '.join(revisions)}"
    if before["sha256"] == now["sha256"]:
        return f"{text}; the file is the same"
    old, new = ({path: tuple(found) for path, found in one["files"].items()} for one in (before, now))
    changed = [path for path in old.keys() & new.keys() if old[path] != new[path]]
    counts = f"{len(changed)} files changed, {len(new.keys() - old)} new, {len(old.keys() - new)} gone"
    return f"{text}; SHA-256 {before['sha256']} became {now['sha256']}; {counts}"


def read_lock(root: Path) -> dict[str, dict[str, Any]]:
    """The entries of the lock file by `Download.key`, none where there is no file; a ValueError if it is damaged."""
    file = Path(root) / LOCK
    try:
        lock = json.loads(file.read_bytes())
        if all(isinstance(entry["sha256"], str) and isinstance(entry["files"], dict) for entry in lock.values()):
            return lock
        reason = "an entry without files"
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        reason = error
    raise ValueError(f"{file}: not a lock file ({reason}); restore it, or delete it to download without comparing")


def record(root: Path, key: str, entry: dict[str, Any]) -> None:
    """Add an entry to the lock file, which other threads and processes write as well."""
    with (root / ".downloads" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with replacing(root / LOCK) as draft:
            draft.write_text(json.dumps(read_lock(root) | {key: entry}, indent=1))


def verify(root: Path, only: Sequence[str] = (), sums: bool = True) -> list[str]:
    """One line for each recorded file that is missing or has changed; none if all are sound.

    `only` are beginnings of paths under root, by default all of them. Without `sums` only sizes are compared. A
    ValueError says that the lock file is damaged.
    """
    files = {path: facts for entry in read_lock(root).values() for path, facts in entry["files"].items()}
    chosen = {path: facts for path, facts in files.items() if path.startswith(tuple(only) or "")}
    wrong = []
    for path, (size, sha256) in tqdm(chosen.items(), desc="checking", unit="file", leave=False, disable=None):
        file = Path(root) / path
        if not file.is_file():
            wrong.append(f"{path}: missing")
        elif file.stat().st_size != size:
            wrong.append(f"{path}: has {file.stat().st_size} bytes, had {size}")
        elif sums and (now := file_sum(file)) != sha256:
            wrong.append(f"{path}: has SHA-256 {now}, had {sha256}")
    return wrong
