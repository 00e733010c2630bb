"""A Hugging Face hub on this machine whose faults are known, and zip files of any kind."""

import hashlib
import io
import re
import socket
import stat
import struct
import threading
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from downloads import REPO

from offmarl.datasets.public import download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
VAULT = {"3m.vlt/Good/data.bin": CONTENT[:100_000], "3m.vlt/Good/meta.json": b"{}", "3m.vlt/Poor/data.bin": b""}


class Handler(BaseHTTPRequestHandler):
    """Speaks the part of the hub's protocol that a download uses. The next of `hub.faults[path]` goes wrong.

    /datasets/<repo>/resolve/<revision>/<path> tells commit, ETag and size, and redirects to /cdn/<commit>/<path>.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, path = self.server.hub, self.path
        asked = {name: self.headers[name] for name in ("Range", "authorization") if self.headers[name]}
        entry = {"method": self.command, "path": path, **asked, "sent": 0}
        hub.requests.append(entry)
        found = re.fullmatch(rf"/datasets/{REPO}/resolve/([^/]+)/(.+)", path)
        if found and self.command == "HEAD" and hub.head_faults:
            fault = hub.head_faults.pop(0)
            if "run" in fault:
                fault["run"]()
            return self.head(fault["status"], 0, fault.get("headers", {})) if "status" in fault else None
        if found:
            return self.resolve(*found.groups())
        content = hub.files.get(path)
        fault = hub.faults[path].pop(0) if self.command == "GET" and hub.faults.get(path) else {}
        if "run" in fault:
            fault["run"]()
        if "status" in fault or content is None:
            return self.head(fault.get("status", 404), 0, fault.get("headers", {}))
        start, status, tags = 0, 200, {}
        if hub.ranges and "Range" in asked:
            start, status = int(re.fullmatch(r"bytes=(\d+)-", asked["Range"])[1]), 206
            if start >= len(content):
                return self.head(416, 0, {"Content-Range": f"bytes */{len(content)}"})
            tags["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.head(status, len(content) - start, tags)
        if self.command == "HEAD":
            return None
        body = content[start:][: fault.get("cut")]
        if "drip" in fault:
            return self.drip(body)
        self.wfile.write(body)
        entry["sent"] = len(body)
        self.wfile.flush()
        if "then" in fault:
            fault["then"]()
        if "reset" in fault:
            time.sleep(0.3)  # until what was sent has been read
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if "cut" in fault:
            self.close_connection = True
        return None

    def resolve(self, revision, path):
        hub = self.server.hub
        commit = hub.revisions.get(revision, revision)
        if (commit, path) not in hub.versions:
            code = "EntryNotFound" if commit in {c for c, _ in hub.versions} else "RevisionNotFound"
            return self.head(404, 0, {"X-Error-Code": code})
        content = hub.versions[commit, path]
        facts = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{hub.etag or hashlib.sha256(content).hexdigest()}"'}
        facts["X-Linked-Size"] = str(len(content))
        facts = {name: value for name, value in facts.items() if name not in hub.unsaid}
        place = f"/cdn/{commit}/{path}"
        hub.files[place] = content
        return self.head(302, 0, facts | {"Location": hub.elsewhere.address + place})

    def drip(self, body):
        """Send slowly, until nobody listens."""
        self.close_connection = True
        with suppress(OSError):
            for start in range(0, len(body), 10_000):
                self.wfile.write(body[start : start + 10_000])
                time.sleep(0.02)

    def head(self, status, length, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_):
        pass


class Server:
    """One host: the hub itself, or the one that it redirects to."""

    def __init__(self, hub):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = hub
        self.server.handle_error = lambda *_: None  # of connections that the other side has left
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


class Hub:
    """A hub with one dataset repository, and plain files."""

    def __init__(self):
        self.main, self.elsewhere = Server(self), Server(self)
        self.address = self.main.address
        self.clear()

    def clear(self):
        self.files, self.faults, self.head_faults, self.requests = {}, {}, [], []
        self.versions, self.revisions, self.unsaid = {}, {}, ()
        self.etag, self.ranges = "", True
        self.silent, self.waited_for = threading.Event(), 0

    def commit(self, path, content, *faults, revision="main", commit=""):
        """Put a file into the repository at a new commit that the revision now names; its download."""
        commit = commit or hashlib.sha1(content).hexdigest()
        self.versions[commit, path], self.revisions[revision] = content, commit
        self.faults[f"/cdn/{commit}/{path}"] = list(faults)
        return commit

    def offer(self, path, content, *faults):
        """The URL of a plain file."""
        self.files[path], self.faults[path] = content, list(faults)
        return self.address + path

    def sent(self):
        """The bodies that were sent: (bytes, Range header)."""
        return [(one["sent"], one.get("Range")) for one in self.requests if one["method"] == "GET" and one["sent"]]

    def hang(self):
        """Say nothing until the test is over; `waited_for` counts who had the patience."""
        self.waited_for += not self.silent.wait(60)


@pytest.fixture(scope="package")
def one_hub():
    hub = Hub()
    yield hub
    for one in (hub.main, hub.elsewhere):
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def hub(one_hub, monkeypatch):
    """The hub, which downloads ask; the library's waits take no time, and its chunks are small."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    one_hub.clear()
    monkeypatch.setenv("HF_ENDPOINT", one_hub.address + "/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "GRACE_S", 0.2)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
    waits = SimpleNamespace(sleep=lambda seconds: one_hub.waits.append(seconds))
    one_hub.waits = []
    monkeypatch.setattr(_http, "time", waits)
    monkeypatch.setattr(file_download, "time", waits)
    yield one_hub
    one_hub.silent.set()


@pytest.fixture
def nowhere():
    """An address that nobody answers."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{place.getsockname()[1]}"


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """A zip file's content. Keys are names or ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def member(name, mode=stat.S_IFREG | 0o644, method=zipfile.ZIP_DEFLATED):
    """A member of any name and mode."""
    info = zipfile.ZipInfo("x" * len(name))
    info.filename, info.external_attr, info.compress_type = name, mode << 16, method
    return info


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tree(folder):
    """Every file under a folder by its path, except those of the downloader."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith((".down", "offmarl-lock"))}


def parts(root):
    """The unfinished downloads."""
    return sorted(path for path in (root / ".downloads").iterdir() if path.suffix == ".part")


@pytest.fixture(scope="session")
def files():
    """The functions and contents above."""
    made = (zipped, member, sha256, tree, parts)
    return SimpleNamespace(CONTENT=CONTENT, VAULT=VAULT, REPO=REPO, **{one.__name__: one for one in made})


@pytest.fixture
def archive(files):
    """An archive that does not compress, so that its length is known."""
    return files.zipped(files.VAULT | {"3m.vlt/Good/more.bin": files.CONTENT}, 0)
