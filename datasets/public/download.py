"""Public datasets: downloaded into a folder, unpacked there, and remembered by SHA-256 in a lock file.

    <root>/offmarl-lock.json   what came, and its sums (lockfile.py)
    <root>/.downloads/         parts of unfinished downloads, what they are parts of, and files that were refused

An interrupted download goes on where it ended. Nothing that is downloaded is executed or unpickled.
"""

import fcntl
import hashlib
import json
import os
import queue
import re
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn
from urllib import request
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from offmarl.datasets.dataset import file_sum
from offmarl.datasets.public.archive import CHUNK, unpack
from offmarl.datasets.public.lockfile import LOCK, read_lock, record

ATTEMPTS = 5  # of each mirror
BACKOFF_S = 1.0  # before the second attempt, twice as long before each further one
LONGEST_S = 60  # that a server's Retry-After is respected
TIMEOUT_S = 60  # without a byte
GRACE_S = 2  # that an interrupted thread has to tidy up
HANDLERS = (  # http and https alone, also after a redirection
    *(request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, request.UnknownHandler),
    *(request.HTTPDefaultErrorHandler, request.HTTPRedirectHandler, request.HTTPErrorProcessor),
)


@dataclass(frozen=True)
class Download:
    """A file to fetch: a zip for the folder `into`, or with `unpack=False` the file `into` itself, both under root.

    `urls` are mirrors in order of preference. A `sha256` that is known in advance refuses every other file.
    """

    urls: tuple[str, ...]
    into: str
    unpack: bool
    sha256: str = ""

    def __post_init__(self):
        if not self.urls:
            raise ValueError(f"{self.into}: a download needs a URL")

    @property
    def name(self) -> str:
        """The file name of the first URL."""
        return PurePosixPath(unquote(urlsplit(self.urls[0]).path)).name

    @property
    def key(self) -> str:
        """Its entry in the lock file."""
        return f"{self.into}/{self.name}"


class Stopped(Exception):
    """The user interrupted the downloads."""


class Fault(Exception):
    """What is wrong with a mirror: ask again, after `wait` seconds where it says so, or never if `final`."""

    def __init__(self, reason: str, wait: float | None = None, final: bool = False):
        super().__init__(reason)
        self.wait, self.final = wait, final


def fetch(downloads: Sequence[Download], root: Path, jobs: int = 2) -> list[str]:
    """Download all, `jobs` at a time, unpack them under `root` and record them in its lock file.

    Every file is asked for, also one that is recorded already. Returns one line for each that failed, with what to do;
    the others are there. A KeyboardInterrupt ends all threads; the next call goes on with what they have so far.
    """
    todo: queue.SimpleQueue[tuple[int, Download]] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    stop = threading.Event()
    downloads = list(dict.fromkeys(downloads))  # several datasets may come from one archive
    for item in enumerate(downloads):
        todo.put(item)

    def work(line: int) -> None:
        with suppress(queue.Empty):
            while not stop.is_set():
                number, download = todo.get_nowait()
                ended.put((number, _failure(download, Path(root), stop, line)))

    # Daemons: one that waits for a silent server must not keep an interrupted program alive.
    lines = range(1, 1 + min(max(jobs, 1), len(downloads)))
    threads = [threading.Thread(target=work, args=(line,), daemon=True) for line in lines]
    shape = "{n_fmt} of {total_fmt} files |{bar}| {elapsed}"
    try:
        with tqdm(total=len(downloads), bar_format=shape, position=0, disable=None) as bar:
            for thread in threads:
                thread.start()
            failures = []
            for _ in downloads:
                failures.append(ended.get())
                bar.update()
    finally:
        stop.set()
        for thread in filter(threading.Thread.is_alive, threads):
            thread.join(GRACE_S)
    return [line for _, line in sorted(failures) if line]


def _failure(download: Download, root: Path, stop: threading.Event, line: int) -> str:
    """Fetch one file; returns why it failed, or nothing."""
    name = download.name
    try:
        with tqdm(desc=name, position=line, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            _Transfer(download, root, stop, bar).run()
        return ""
    except Exception as error:  # the other files go on, whatever happened to this one
        return f"{name}: {' '.join(str(error).split()) or type(error).__name__}"


def manual(download: Download, root: Path) -> str:
    """What to do where the download cannot be automatic, in one line."""
    what = "unpack it in" if download.unpack else "save it as"
    return f"download it by hand from {download.urls[0]} and {what} {Path(root) / download.into}"


class _Transfer:
    """One download on its way from its mirrors to its place."""

    def __init__(self, download: Download, root: Path, stop: threading.Event, bar: tqdm):
        self.download, self.root, self.stop, self.bar = download, root, stop, bar
        place = hashlib.sha256(download.into.encode()).hexdigest()[:8]
        self.part = root / ".downloads" / f"{place}-{download.name}.part"
        self.memo = self.part.with_suffix(".json")  # url, etag, modified and total (bytes) of what is in the part

    def run(self) -> None:
        """Download, check, put in place, record; a ValueError or an OSError says in full why that is impossible."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        with self.part.with_suffix(".lock").open("w") as alone:
            try:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError("another process is downloading it already") from None
            recorded = read_lock(self.root).get(self.download.key, {}).get("sha256", "")
            url = self._from_mirrors()
            self.bar.set_description(f"{self.download.name}, checking")
            size, sha256 = self.part.stat().st_size, file_sum(self.part)
            self._compare(sha256, recorded)
            entry = {"sha256": sha256, "size": size, "url": url, "date": datetime.now(UTC).isoformat("T", "seconds")}
            record(self.root, self.download.key, {**entry, "files": self._place(size, sha256)})
            self._forget()

    # From the network into the part.

    def _from_mirrors(self) -> str:
        """Complete the part from the first mirror that gives it; returns its URL."""
        reasons = {}
        for url in self.download.urls:
            for attempt in range(ATTEMPTS):
                try:
                    self._ask(url)
                    return url
                except Fault as fault:
                    reasons[url] = fault
                if reasons[url].final:
                    break
                if attempt < ATTEMPTS - 1 and self.stop.wait(reasons[url].wait or BACKOFF_S * 2**attempt):
                    raise Stopped
        raise ConnectionError(f"{'; '.join(map(str, reasons.values()))}; {manual(self.download, self.root)}")

    def _ask(self, url: str) -> None:
        """Ask a mirror for all that is missing; returns when the part is complete."""
        known, host = self._known(url), urlsplit(url).hostname
        have = self.part.stat().st_size if known else 0
        with _open(url, _range(known, have) if have else {}) as response:
            start, total = _span(response)
            if response.status == 416 and have == total == known.get("total"):
                return
            facts = {"url": url, "total": total, "etag": response.headers["ETag"]}
            facts["modified"] = response.headers["Last-Modified"]
            if response.status == 416 or start and (start != have or facts != known):
                self._forget()
                raise Fault(f"{host} has another file now")
            self._check_disk(total, start)
            with self.part.open("ab" if start else "wb") as sink:
                self.memo.write_text(json.dumps(facts))
                have = self._receive(response, sink, start, total)
        if total is not None and have < total:
            raise Fault(f"{host} ended the connection after {have} of {total} bytes")

    def _known(self, url: str) -> dict[str, Any]:
        """What the part is a part of, if it can be continued from this mirror."""
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            known = json.loads(self.memo.read_text())
            if known["url"] == url and known["total"] and self.part.exists():
                return known
        return {}

    def _check_disk(self, total: int | None, have: int) -> None:
        """An archive and what it unpacks to take about 2.2 times its size."""
        need = (total or 0) * (2.2 if self.download.unpack else 1) - have
        free = shutil.disk_usage(self.root).free
        if need > free:
            raise ValueError(f"it needs {need / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free in {self.root}")

    def _receive(self, response: Any, sink: BinaryIO, have: int, total: int | None) -> int:
        """Write what comes; returns the bytes of the whole part."""
        self.bar.reset(total)
        self.bar.initial = self.bar.n = have
        while total is None or have < total:
            try:
                block = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise Fault(f"{urlsplit(response.url).hostname} broke off after {have} bytes ({error})") from error
            if not block:
                break
            sink.write(block)
            have += len(block)
            self._tick(len(block))
        return have

    def _tick(self, size: int) -> None:
        """So many bytes further."""
        if self.stop.is_set():
            raise Stopped
        self.bar.update(size)

    # From the part to its place.

    def _compare(self, sha256: str, recorded: str) -> None:
        """Refuse a file that is not the known one."""
        if self.download.sha256.lower() not in ("", sha256):
            self._refuse(f"its SHA-256 is {sha256}, the published file has {self.download.sha256}")
        if recorded not in ("", sha256):
            entry = f'"{self.download.key}" in {self.root / LOCK}'
            advice = f"if the publisher really changed it, delete the entry {entry} and download it again"
            self._refuse(f"its SHA-256 is {sha256}, the one downloaded before had {recorded}; {advice}")

    def _place(self, size: int, sha256: str) -> dict[str, tuple[int, str]]:
        """Put the file, or what it holds, in place; returns size and SHA-256 of each by its path under root."""
        into = PurePosixPath(self.download.into)
        if not self.download.unpack:
            (self.root / into).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.part, self.root / into)
            return {str(into): (size, sha256)}
        self.bar.set_description(f"{self.download.name}, unpacking")
        self.bar.reset()
        self.bar.total = None
        try:
            files = unpack(self.part, self.root / into, self._tick)
        except ValueError as error:
            self._refuse(str(error))
        return {str(into / path): facts for path, facts in files.items()}

    def _refuse(self, reason: str) -> NoReturn:
        kept = self.part.with_suffix(".refused")
        os.replace(self.part, kept)
        self._forget()
        raise ValueError(f"{reason}; nothing was put in place, the file is kept as {kept}")

    def _forget(self) -> None:
        """Start anew next time."""
        self.part.unlink(missing_ok=True)
        self.memo.unlink(missing_ok=True)


def _open(url: str, headers: dict[str, str]) -> Any:
    """The response of a mirror that has something to give, or a 416; a Fault is everything else."""
    address, opener = urlsplit(url), request.OpenerDirector()
    if address.scheme not in ("http", "https"):
        raise Fault(f"{url} is neither http nor https", final=True)
    for handler in HANDLERS:
        opener.add_handler(handler())
    try:
        return opener.open(request.Request(url, headers={"User-Agent": "offmarl", **headers}), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416:
            return error
        error.close()
        after = error.headers.get("Retry-After", "")
        wait = min(int(after), LONGEST_S) if after.isdecimal() else None
        final = error.code < 500 and error.code != 429
        raise Fault(f"{address.hostname} answers {error.code} {error.reason}", wait, final) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Fault(f"{address.hostname} cannot be reached ({reason})") from error


def _range(known: dict[str, Any], have: int) -> dict[str, str]:
    """Headers that ask for the rest of a file, or for all of it if it has changed."""
    weak = (known["etag"] or "W/").startswith("W/")
    strong = known["modified"] if weak else known["etag"]
    return {"Range": f"bytes={have}-", **({"If-Range": strong} if strong else {})}


def _span(response: Any) -> tuple[int, int | None]:
    """Which byte a response starts with, -1 where it does not say, and how many the file has."""
    if response.status == 200:
        return 0, response.length
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    return (int(found[1] or -1), int(found[2])) if found else (-1, None)
