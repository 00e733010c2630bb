import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.datasets.public import archive as archives
from offmarl.datasets.public import download
from offmarl.datasets.public.archive import unpack
from offmarl.datasets.public.download import Download, fetch, manual
from offmarl.datasets.public.lockfile import read_lock, verify

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Handler(BaseHTTPRequestHandler):
    """Serves `site.files`. The next of `site.faults[path]` decides what goes wrong with a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        path = self.path.split("?")[0]
        asked = {name: self.headers[name] for name in ("Range", "If-Range") if self.headers[name]}
        entry = {"path": path, **asked, "sent": 0}
        site.requests.append(entry)
        fault = site.faults[path].pop(0) if site.faults.get(path) else {}
        if "run" in fault:
            fault["run"]()
        if "status" in fault or path not in site.files:
            return self.head(fault.get("status", 404), 0, fault.get("headers", {}))
        content, etag = site.files[path], site.etag(path)
        tags = {"ETag": etag} if site.validators else {}
        start, status = 0, 200
        current = asked.get("If-Range", etag) == etag or not site.heeds_if_range
        if site.ranges and "Range" in asked and current:
            start, status = int(re.fullmatch(r"bytes=(\d+)-", asked["Range"])[1]), 206
            if start >= len(content):
                return self.head(416, 0, {"Content-Range": f"bytes */{len(content)}"})
            start += fault.get("shift", 0)
            tags["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.head(status, None if fault.get("chunked") else len(content) - start, tags)
        if fault.get("chunked"):
            chunk = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
            self.wfile.write(chunk + b"0\r\n\r\n")
            return None
        body = content[start:][: fault.get("cut")] + fault.get("extra", b"")
        if "drip" in fault:
            return self.drip(body)
        self.wfile.write(body)
        entry["sent"] = len(body)
        self.wfile.flush()
        if "then" in fault:
            fault["then"]()
        if "cut" in fault:
            self.close_connection = True
        return None

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
        self.send_header(*(("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))))
        self.end_headers()

    def log_message(self, *_):
        pass


class Site:
    """A web site on this machine whose faults are known."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.site = self
        self.server.handle_error = lambda *_: None  # of connections that the other side has left
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.clear()

    def clear(self):
        self.files, self.faults, self.requests = {}, {}, []
        self.ranges = self.validators = self.heeds_if_range = True
        self.silent = threading.Event()

    def etag(self, path):
        return f'"{hashlib.sha256(self.files[path]).hexdigest()[:8]}"'

    def offer(self, path, content, *faults):
        """The URL of a file."""
        self.files[path], self.faults[path] = content, list(faults)
        return self.address + path

    def hang(self):
        """Say nothing until the test is over."""
        self.silent.wait(20)


@pytest.fixture(scope="module")
def one_site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def site(one_site):
    one_site.clear()
    yield one_site
    one_site.silent.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No proxy, and little patience."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF_S", 0.0)
    monkeypatch.setattr(download, "GRACE_S", 0.2)
    monkeypatch.setattr(download, "TIMEOUT_S", 5)


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """A zip file's content. Keys are names or ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tree(folder):
    """Every file under a folder by its path, except those of the downloader."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith((".down", "offmarl-lock"))}


def parts(root):
    return sorted(path for path in (root / ".downloads").iterdir() if path.suffix == ".part")


def plain(*urls, into="data/file.bin", **facts):
    return Download(urls, into, unpack=False, **facts)


VAULT = {"3m.vlt/Good/data.bin": CONTENT[:100_000], "3m.vlt/Good/meta.json": b"{}", "3m.vlt/Poor/data.bin": b""}


# Whole downloads.


def test_an_archive_is_downloaded_unpacked_recorded_and_deleted(site, tmp_path):
    content = zipped(VAULT)
    wanted = Download((site.offer("/og/3m.zip", content) + "?download=true",), "og_marl/smac_v1", unpack=True)
    assert wanted.name == "3m.zip"
    assert fetch([wanted], tmp_path) == []
    assert tree(tmp_path) == {f"og_marl/smac_v1/{name}": data for name, data in VAULT.items()}
    (key, entry), *others = read_lock(tmp_path).items()
    assert (key, others) == ("og_marl/smac_v1/3m.zip", [])
    assert (entry["sha256"], entry["size"], entry["url"]) == (sha256(content), len(content), wanted.urls[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry["date"])
    assert entry["files"] == {f"og_marl/smac_v1/{name}": [len(data), sha256(data)] for name, data in VAULT.items()}
    assert parts(tmp_path) == []
    assert json.loads((tmp_path / "offmarl-lock.json").read_text()) == read_lock(tmp_path)
    assert verify(tmp_path) == []


def test_a_plain_file_is_put_in_its_place(site, tmp_path):
    url = site.offer("/prey/pretrained_adv_model.pt", CONTENT)
    assert fetch([plain(url, into="omar/prey/simple_tag.pt", sha256=sha256(CONTENT))], tmp_path) == []
    assert tree(tmp_path) == {"omar/prey/simple_tag.pt": CONTENT}
    entry = read_lock(tmp_path)["omar/prey/simple_tag.pt/pretrained_adv_model.pt"]
    assert entry["files"] == {"omar/prey/simple_tag.pt": [len(CONTENT), sha256(CONTENT)]}


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=len)
@pytest.mark.parametrize("fault", [{}, {"chunked": True}], ids=str)
def test_a_file_of_any_length_arrives(site, tmp_path, content, fault):
    assert fetch([plain(site.offer("/x", content, fault))], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": content}


def test_files_of_one_name_do_not_mix(site, tmp_path):
    one, other = site.offer("/a/data.bin", b"one" * 50_000), site.offer("/b/data.bin", b"other" * 50_000)
    assert fetch([plain(one, into="a"), plain(other, into="b")], tmp_path) == []
    assert tree(tmp_path) == {"a": b"one" * 50_000, "b": b"other" * 50_000}


def test_a_file_that_is_asked_for_twice_is_downloaded_once(site, tmp_path):
    url = site.offer("/3m.zip", zipped(VAULT))
    assert fetch([Download((url,), "data", unpack=True) for _ in range(3)], tmp_path) == []
    assert len(site.requests) == 1


def test_nothing_to_download_is_no_failure(tmp_path):
    assert fetch([], tmp_path) == []


def test_a_download_without_a_url_is_an_error():
    with pytest.raises(ValueError, match="data"):
        Download((), "data", unpack=False)


def test_files_are_downloaded_as_many_at_a_time_as_asked(site, tmp_path):
    together = threading.Barrier(3)
    wait = {"run": lambda: together.wait(5)}
    urls = [site.offer(f"/{i}", CONTENT, wait) for i in range(3)]
    assert fetch([plain(url, into=f"f{i}") for i, url in enumerate(urls)], tmp_path, jobs=3) == []
    assert not together.broken


def test_many_threads_write_one_lock_file(site, tmp_path):
    wanted = [plain(site.offer(f"/{i}", b"%d" % i), into=f"data/{i}") for i in range(60)]
    assert fetch(wanted, tmp_path, jobs=12) == []
    assert read_lock(tmp_path).keys() == {each.key for each in wanted}
    assert verify(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["offmarl-lock.json"]


def test_progress_tells_files_and_bytes(site, tmp_path, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    fetch([plain(site.offer(f"/{i}.bin", CONTENT), into=f"{i}") for i in range(2)], tmp_path)
    shown = screen.getvalue()
    assert "0 of 2 files" in shown and "2 of 2 files" in shown
    assert "0.bin" in shown and "3.00M" in shown


# Resuming.


def test_a_cut_connection_is_resumed_and_no_byte_is_sent_twice(site, tmp_path):
    url = site.offer("/x", CONTENT, {"cut": 1_000_000}, {"cut": 500_000})
    assert fetch([plain(url)], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": CONTENT}
    assert [request.get("Range") for request in site.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert {request["If-Range"] for request in site.requests[1:]} == {site.etag("/x")}
    assert sum(request["sent"] for request in site.requests) == len(CONTENT)


def test_a_later_call_goes_on_where_an_earlier_one_failed(site, tmp_path):
    url = site.offer("/x", CONTENT, *[{"cut": 400_000}] * download.ATTEMPTS)
    (failure,) = fetch([plain(url)], tmp_path)
    assert "after 2000000 of 3000000 bytes" in failure
    assert "data/file.bin" not in tree(tmp_path)
    assert fetch([plain(url)], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": CONTENT}
    assert sum(request["sent"] for request in site.requests) == len(CONTENT)


@pytest.fixture(autouse=True)
def interruptible():
    """Programs that a script starts in the background ignore Ctrl-C, and so would these tests and what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_an_interrupt_is_prompt_and_leaves_what_there_is(site, tmp_path):
    both = threading.Barrier(2, action=interrupt)

    def interrupt_and_hang():
        time.sleep(0.2)
        both.wait()
        site.hang()

    urls = [site.offer(f"/{i}", CONTENT, {"cut": 1_000_000, "then": interrupt_and_hang}) for i in range(2)]
    wanted = [plain(url, into=f"f{i}") for i, url in enumerate(urls)]
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(wanted, tmp_path)
    assert time.monotonic() - begun < 3
    site.silent.set()
    assert [part.stat().st_size for part in parts(tmp_path)] == [1_000_000] * 2
    time.sleep(0.2)  # the threads of the first call notice that the connection ended
    site.requests.clear()
    assert fetch(wanted, tmp_path) == []
    assert tree(tmp_path) == {"f0": CONTENT, "f1": CONTENT}
    assert {request["Range"] for request in site.requests} == {"bytes=1000000-"}


def test_an_interrupt_also_ends_the_wait_before_another_attempt(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 20.0)
    threads = threading.active_count()
    url = site.offer("/x", CONTENT, {"status": 503, "run": lambda: threading.Timer(0.2, interrupt).start()})
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch([plain(url)], tmp_path)
    assert time.monotonic() - begun < 3
    assert threading.active_count() <= threads


def test_an_interrupt_ends_a_transfer_that_runs(site, tmp_path):
    url = site.offer("/x", CONTENT, {"drip": True, "run": lambda: threading.Timer(0.3, interrupt).start()})
    with pytest.raises(KeyboardInterrupt):
        fetch([plain(url)], tmp_path)
    (part,) = parts(tmp_path)
    size = part.stat().st_size
    time.sleep(0.2)
    assert 0 < part.stat().st_size == size < len(CONTENT)


def test_an_interrupted_program_does_not_wait_for_a_silent_server(site, tmp_path):
    asked = threading.Event()
    url = site.offer("/x", CONTENT, {"run": lambda: asked.set() or site.hang()})
    code = "import sys; from offmarl.datasets.public.download import *; "
    code += "fetch([Download(('%s',), 'x', False)], sys.argv[1])"
    program = subprocess.Popen([sys.executable, "-c", code % url, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert asked.wait(20)
    program.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in program.communicate(timeout=10)[1]


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) - 1000, 1_000_000, 500_000])
def test_a_file_that_changed_in_between_is_downloaded_anew(site, tmp_path, heeds_if_range, length):
    changed = CONTENT[::-1][:length]
    site.heeds_if_range = heeds_if_range
    url = site.offer("/x", CONTENT, {"cut": 1_000_000}, {"run": lambda: site.files.update({"/x": changed})})
    assert fetch([plain(url)], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": changed}


def test_a_file_without_etag_is_resumed_if_its_length_is_the_same(site, tmp_path):
    site.validators = False
    url = site.offer("/x", CONTENT, {"cut": 1_000_000})
    assert fetch([plain(url)], tmp_path) == []
    assert [request.get("Range") for request in site.requests] == [None, "bytes=1000000-"]
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


def test_a_weak_etag_is_not_sent_as_a_strong_one(site, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "etag", lambda path: 'W/"1"')
    assert fetch([plain(site.offer("/x", CONTENT, {"cut": 1_000_000}))], tmp_path) == []
    assert all("If-Range" not in request for request in site.requests)
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


def test_a_server_without_ranges_starts_anew(site, tmp_path):
    site.ranges = False
    url = site.offer("/x", CONTENT, {"cut": 1_000_000})
    assert fetch([plain(url)], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": CONTENT}
    assert [request["sent"] for request in site.requests] == [1_000_000, len(CONTENT)]


def test_a_range_that_starts_elsewhere_is_not_appended(site, tmp_path):
    url = site.offer("/x", CONTENT, {"cut": 1_000_000}, {"shift": 10})
    assert fetch([plain(url)], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


def test_what_comes_after_the_end_is_ignored(site, tmp_path):
    content = CONTENT[: download.CHUNK + 10]
    assert fetch([plain(site.offer("/x", content, {"extra": b"junk" * 10_000}))], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": content}


def test_a_part_that_was_deleted_is_downloaded_anew(site, tmp_path):
    url = site.offer("/x", CONTENT, *[{"cut": 100_000}] * download.ATTEMPTS)
    assert len(fetch([plain(url)], tmp_path)) == 1
    parts(tmp_path)[0].unlink()
    assert fetch([plain(url)], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


def test_a_part_that_is_complete_is_not_sent_again(site, tmp_path, monkeypatch):
    url = site.offer("/x.zip", zipped(VAULT))
    wanted = Download((url,), "data", unpack=True)
    with monkeypatch.context() as patch:
        patch.setattr(download, "unpack", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        assert fetch([wanted], tmp_path) == ["x.zip: disk full"]
    assert fetch([wanted], tmp_path) == []
    assert tree(tmp_path) == {f"data/{name}": data for name, data in VAULT.items()}
    assert site.requests[1]["Range"] == f"bytes={len(site.files['/x.zip'])}-"
    assert len(site.requests) == 2 and site.requests[1]["sent"] == 0


@pytest.mark.parametrize("memo", [None, "", '{"url": "', "[]", "{}", '{"url": "http://127.0.0.1/other", "total": 9}'])
def test_a_part_of_unknown_origin_is_not_continued(site, tmp_path, memo):
    url = site.offer("/x", CONTENT, *[{"cut": 100_000}] * download.ATTEMPTS)
    assert len(fetch([plain(url)], tmp_path)) == 1
    (note,) = (tmp_path / ".downloads").glob("*.json")
    note.unlink() if memo is None else note.write_text(memo)
    site.requests.clear()
    assert fetch([plain(url)], tmp_path) == []
    assert [request.get("Range") for request in site.requests] == [None]
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=2000),
    cuts=st.lists(st.integers(0, 1500), max_size=download.ATTEMPTS - 1),
    ranges=st.booleans(),
    validators=st.booleans(),
)
def test_whatever_is_cut_where_the_file_arrives_identical(site, content, cuts, ranges, validators):
    site.ranges, site.validators = ranges, validators
    with tempfile.TemporaryDirectory() as root:
        url = site.offer("/x", content, *[{"cut": cut} for cut in cuts])
        assert fetch([plain(url)], Path(root)) == []
        assert tree(Path(root)) == {"data/file.bin": content}


# Faulty servers.


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 500}, {"status": 429}, {"cut": 0}], ids=str)
def test_a_passing_fault_is_waited_for(site, tmp_path, fault):
    assert fetch([plain(site.offer("/x", CONTENT, fault, dict(fault)))], tmp_path) == []
    assert len(site.requests) == 3
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


@pytest.mark.parametrize("fault", [{"status": 503}, {"cut": 0}], ids=str)
def test_a_lasting_fault_is_a_failure_after_five_attempts(site, tmp_path, fault):
    url = site.offer("/x", CONTENT, *[dict(fault) for _ in range(9)])
    (failure,) = fetch([plain(url)], tmp_path)
    assert len(site.requests) == download.ATTEMPTS == 5
    assert failure.startswith("x: 127.0.0.1 ") and failure.endswith(manual(plain(url), tmp_path))


def test_the_wait_doubles(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.05)
    times = []
    fault = {"status": 500, "run": lambda: times.append(time.monotonic())}
    fetch([plain(site.offer("/x", CONTENT, *[fault] * 5))], tmp_path)
    assert time.monotonic() - times[-1] < 0.5  # no wait after the last one
    assert (np.diff(times) >= [0.05, 0.1, 0.2, 0.4]).all()
    assert times[-1] - times[0] < 2


def test_retry_after_is_respected_up_to_a_limit(site, tmp_path, monkeypatch):
    def seconds(after):
        begun = time.monotonic()
        url = site.offer("/x", CONTENT, {"status": 429, "headers": {"Retry-After": after}})
        assert fetch([plain(url)], tmp_path) == []
        return time.monotonic() - begun

    assert 1 <= seconds("1") < 3
    assert seconds("Fri, 31 Dec 2100 23:59:59 GMT") < 1
    monkeypatch.setattr(download, "LONGEST_S", 0.3)
    assert 0.3 <= seconds("3600") < 2


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusing_mirror_is_asked_once_and_the_next_one_serves(site, tmp_path, status):
    first, second = site.offer("/1/x", b"no", {"status": status}), site.offer("/2/x", CONTENT)
    assert fetch([plain(first, second)], tmp_path) == []
    assert [request["path"] for request in site.requests] == ["/1/x", "/2/x"]
    assert read_lock(tmp_path)["data/file.bin/x"]["url"] == second


def test_a_mirror_does_not_continue_the_part_of_another(site, tmp_path):
    first = site.offer("/1/x", CONTENT, {"cut": 1_000_000}, {"status": 404})
    second = site.offer("/2/x", CONTENT[::-1])
    assert fetch([plain(first, second)], tmp_path) == []
    assert tree(tmp_path) == {"data/file.bin": CONTENT[::-1]}


@pytest.fixture
def nowhere():
    """A URL that nobody answers."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{place.getsockname()[1]}/3m.zip"


def test_an_unreachable_host_is_one_line_and_the_others_arrive(site, tmp_path, nowhere):
    lost = Download((nowhere,), "og_marl/smac_v1", unpack=True)
    (failure,) = fetch([lost, plain(site.offer("/x", CONTENT))], tmp_path, jobs=1)
    assert re.match(r"3m\.zip: 127\.0\.0\.1 cannot be reached \(.*refused.*\); download it by hand from ", failure)
    assert failure.endswith(f"from {nowhere} and unpack it in {tmp_path / 'og_marl/smac_v1'}")
    assert "\n" not in failure
    assert tree(tmp_path) == {"data/file.bin": CONTENT}
    assert read_lock(tmp_path).keys() == {"data/file.bin/x"}


def test_failures_tell_every_mirror_and_come_in_the_order_of_the_downloads(site, tmp_path, nowhere):
    gone = site.address + "/gone"
    failures = fetch([plain(nowhere, gone, into="a"), plain(gone, into="b")], tmp_path)
    assert [failure.split(":")[0] for failure in failures] == ["3m.zip", "gone"]
    assert "cannot be reached" in failures[0] and "answers 404 Not Found" in failures[0]
    assert failures[1].endswith(f"and save it as {tmp_path / 'b'}")


@pytest.mark.parametrize("before", [False, True], ids=["silent at once", "silent amid the file"])
def test_a_silent_server_is_not_waited_for_without_end(site, tmp_path, monkeypatch, before):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    url = site.offer("/x", CONTENT, {"cut": 1_000_000, "then": site.hang} if before else {"run": site.hang})
    begun = time.monotonic()
    assert fetch([plain(url)], tmp_path) == []
    assert time.monotonic() - begun < 3
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


@pytest.mark.parametrize("scheme", ["file://", "ftp://127.0.0.1", "data:,"])
@pytest.mark.parametrize("redirected", [False, True])
def test_only_http_is_read(site, tmp_path, scheme, redirected):
    secret = tmp_path / "secret"
    secret.write_text("s")
    url = f"{scheme}{secret}"
    if redirected:
        fault = {"status": 302, "headers": {"Location": url}}
        url = site.offer("/x", CONTENT, *[fault] * download.ATTEMPTS)
    (failure,) = fetch([plain(url)], tmp_path / "root")
    assert re.search("is not allowed|unknown url type: ftp" if redirected else "is neither http nor https", failure)
    assert tree(tmp_path / "root") == {}


def test_a_redirection_is_followed_and_resumed(site, tmp_path):
    site.offer("/cdn", CONTENT, {"cut": 1_000_000})
    moved = {"status": 302, "headers": {"Location": "/cdn"}}
    assert fetch([plain(site.offer("/x", b"", moved, moved))], tmp_path) == []
    assert [request.get("Range") for request in site.requests if request["path"] == "/cdn"] == [None, "bytes=1000000-"]
    assert tree(tmp_path) == {"data/file.bin": CONTENT}


@pytest.mark.parametrize("unpacked, enough", [(True, 6_700_000), (False, 3_000_000)])
def test_too_small_a_disk_is_said_before_anything_is_written(site, tmp_path, monkeypatch, unpacked, enough):
    wanted = Download((site.offer("/x", CONTENT),), "data", unpack=unpacked)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=enough - 200_000))
    (failure,) = fetch([wanted], tmp_path)
    assert "GB of disk" in failure and str(tmp_path) in failure
    assert len(site.requests) == 1 and parts(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=enough))
    assert all("of disk" not in line for line in fetch([wanted], tmp_path))


def test_a_download_that_is_running_elsewhere_is_left_alone(site, tmp_path):
    wanted = plain(site.offer("/x", CONTENT, *[{"cut": 10}] * download.ATTEMPTS))
    fetch([wanted], tmp_path)
    (held,) = (tmp_path / ".downloads").glob("*-x.lock")
    with held.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert fetch([wanted], tmp_path) == ["x: another process is downloading it already"]
    assert fetch([wanted], tmp_path) == []


# SHA-256 and the lock file.


def test_a_file_that_is_not_the_recorded_one_is_refused(site, tmp_path):
    before, after = zipped(VAULT), zipped({"3m.vlt/Good/data.bin": b"other", "new": b"new"})
    wanted = Download((site.offer("/3m.zip", before),), "smac", unpack=True)
    assert fetch([wanted], tmp_path) == []
    lock, files = read_lock(tmp_path), tree(tmp_path)
    site.offer("/3m.zip", after)
    (failure,) = fetch([wanted], tmp_path)
    assert failure.startswith("3m.zip: ") and "\n" not in failure
    for said in (sha256(before), sha256(after), "smac/3m.zip", str(tmp_path / "offmarl-lock.json"), "delete the entry"):
        assert said in failure
    assert (read_lock(tmp_path), tree(tmp_path)) == (lock, files)
    assert parts(tmp_path) == list((tmp_path / ".downloads").glob("*.json")) == []
    (kept,) = (tmp_path / ".downloads").glob("*.refused")
    assert kept.read_bytes() == after and str(kept) in failure
    (tmp_path / "offmarl-lock.json").write_text("{}")
    assert fetch([wanted], tmp_path) == []
    assert tree(tmp_path) == {"smac/3m.vlt/Good/data.bin": b"other", "smac/new": b"new"}


def test_the_recorded_file_is_accepted_again(site, tmp_path):
    wanted = Download((site.offer("/3m.zip", zipped(VAULT)),), "smac", unpack=True)
    assert fetch([wanted], tmp_path) == []
    shutil.rmtree(tmp_path / "smac")
    assert fetch([wanted], tmp_path) == []
    assert verify(tmp_path) == []


@pytest.mark.parametrize("unpacked", [True, False])
def test_a_file_of_another_sha256_than_the_known_one_is_refused(site, tmp_path, unpacked):
    content = zipped(VAULT)
    wanted = Download((site.offer("/x", content),), "data", unpacked, sha256="0" * 64)
    (failure,) = fetch([wanted], tmp_path)
    assert sha256(content) in failure and "0" * 64 in failure
    assert tree(tmp_path) == {} and read_lock(tmp_path) == {}


def test_a_known_sha256_may_be_in_capitals(site, tmp_path):
    assert fetch([plain(site.offer("/x", CONTENT), sha256=sha256(CONTENT).upper())], tmp_path) == []


@pytest.mark.parametrize("damage", ["", "{", "[]", "[1]", '{"a": 1}', '{"a": {"sha256": "0"}}', "\xff"])
def test_a_damaged_lock_file_is_said_and_not_overwritten(site, tmp_path, damage):
    file = tmp_path / "offmarl-lock.json"
    file.write_bytes(damage.encode("latin-1"))
    (failure,) = fetch([plain(site.offer("/x", CONTENT))], tmp_path)
    assert str(file) in failure and "not a lock file" in failure
    assert file.read_bytes() == damage.encode("latin-1")
    assert site.requests == []
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
def test_verify_finds_damage(site, tmp_path, damage, said):
    prey = plain(site.offer("/prey.pt", CONTENT), into="omar/prey.pt")
    assert fetch([Download((site.offer("/3m.zip", zipped(VAULT)),), "smac", unpack=True), prey], tmp_path) == []
    damage(tmp_path / "smac/3m.vlt/Good/data.bin")
    (line,) = verify(tmp_path)
    assert line.startswith("smac/3m.vlt/Good/data.bin: ") and said in line
    assert verify(tmp_path, ["smac/3m", "omar"]) == [line]
    assert verify(tmp_path, ["omar"]) == verify(tmp_path, ["smac/3m.vlt/Poor"]) == []


def test_nothing_recorded_is_nothing_wrong(tmp_path):
    assert read_lock(tmp_path) == {} and verify(tmp_path) == []


# Unpacking.


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "x.zip"


def test_unpack_returns_what_it_wrote(archive, tmp_path):
    archive.write_bytes(zipped({"empty/": b"", **VAULT, "__MACOSX/._3m": b"fork"}))
    told = []
    facts = unpack(archive, tmp_path / "data", told.append)
    assert facts == {name: (len(data), sha256(data)) for name, data in VAULT.items()}
    assert tree(tmp_path / "data") == VAULT
    assert sum(told) == sum(map(len, VAULT.values()))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"3m.vlt"}


def test_an_entry_is_replaced_as_a_whole_and_others_stay(archive, tmp_path):
    for name in ("3m.vlt/old", "8m.vlt/data"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(b"old")
    archive.write_bytes(zipped(VAULT))
    unpack(archive, tmp_path / "data")
    assert tree(tmp_path / "data") == {**VAULT, "8m.vlt/data": b"old"}


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_in_the_way_is_replaced_and_not_followed(archive, tmp_path, target):
    for folder in ("data", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data/3m.vlt").symlink_to(tmp_path / target)
    archive.write_bytes(zipped(VAULT))
    unpack(archive, tmp_path / "data")
    assert tree(tmp_path / "elsewhere") == {}
    assert tree(tmp_path / "data") == VAULT


def member(name, mode=stat.S_IFREG | 0o644, method=zipfile.ZIP_DEFLATED):
    info = zipfile.ZipInfo("x" * len(name))
    info.filename, info.external_attr, info.compress_type = name, mode << 16, method
    return info


def test_nothing_becomes_executable(archive, tmp_path):
    archive.write_bytes(zipped({member("run.sh", stat.S_IFREG | 0o4777): b"#!/bin/sh"}))
    unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data/run.sh").stat().st_mode & 0o7111


def lying(declared):
    """An archive of one file of 100,000 bytes that says it has fewer or more, with a CRC that fits."""
    data = bytes(100_000)
    content = bytearray(zipped({"liar": data}))
    directory = content.index(b"PK\1\2")
    for place, offset in ((0, 14), (directory, 16)):
        content[place + offset : place + offset + 4] = struct.pack("<I", zipfile.crc32(data[:declared]))
        content[place + offset + 8 : place + offset + 12] = struct.pack("<I", declared)
    return bytes(content)


def twice(name):
    with pytest.warns(UserWarning, match="Duplicate"):
        return zipped({member(name): b"1", member(name): b"2"})


def encrypted():
    content = bytearray(zipped({"secret": b"s"}))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


STORED = zipped(VAULT, zipfile.ZIP_STORED)
HARMFUL = {  # what must be refused, and what the refusal names
    "parent": (lambda: zipped({"ok": b"", "../x": b""}), "../x"),
    "inner parent": (lambda: zipped({"ok": b"", "a/../../x": b""}), "a/../../x"),
    "parent of nothing": (lambda: zipped({"ok": b"", "..": b""}), "'..'"),
    "absolute": (lambda: zipped({"ok": b"", member("/tmp/abs"): b""}), "/tmp/abs"),
    "drive": (lambda: zipped({"ok": b"", "C:x": b""}), "C:x"),
    "backslash": (lambda: zipped({"ok": b"", "..\\x": b""}), "x"),
    "NUL": (lambda: zipped({"ok": b"", member("a_b"): b""}).replace(b"a_b", b"a\0b"), "a"),
    "no name": (lambda: zipped({"ok": b"", member(""): b""}), "''"),
    "point": (lambda: zipped({"ok": b"", "./.": b""}), "./."),
    "link": (lambda: zipped({"ok": b"", member("link", stat.S_IFLNK | 0o777): b"/etc"}), "link"),
    "device": (lambda: zipped({"ok": b"", member("device", stat.S_IFCHR | 0o666): b""}), "device"),
    "duplicate": (lambda: twice("double"), "double"),
    "duplicate by another name": (lambda: zipped({"a/b": b"1", "a//b": b"2"}), "a//b"),
    "file and folder": (lambda: zipped({"a": b"1", "a/b": b"2"}), "a/b"),
    "encrypted": (encrypted, "secret"),
    "uncommon": (lambda: zipped({"x": b"1"}, zipfile.ZIP_LZMA), "'x'"),
    "bomb": (lambda: zipped({"big": bytes(2_000_000)}), "0.0 GB"),
    "more than declared": (lambda: lying(10), "liar"),
    "less than declared": (lambda: lying(100_001), "liar"),
    "many members": (lambda: zipped({str(i): b"" for i in range(21)}), "21 members"),
    "bad CRC": (lambda: STORED.replace(CONTENT[:1000], CONTENT[1:1001]), "Good/data.bin"),
    "no zip": (lambda: b"<html>please log in</html>", "not a zip"),
    "no bytes": (lambda: b"", "not a zip"),
    "no files": (lambda: zipped({"folder/": b""}), "no files"),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1_000_000)
    monkeypatch.setattr(archives, "MEMBERS", 20)


@pytest.mark.parametrize("harm", HARMFUL)
@pytest.mark.parametrize("existing", [False, True])
def test_a_harmful_archive_is_refused_and_nothing_of_it_is_left(archive, tmp_path, small, harm, existing):
    make, named = HARMFUL[harm]
    archive.write_bytes(make())
    if existing:
        (tmp_path / "root/data/ok").mkdir(parents=True)
        (tmp_path / "root/data/ok/mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "root").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=re.escape(named)):
        unpack(archive, tmp_path / "root/data")
    assert [path for path in sorted(tmp_path.rglob("*")) if path != tmp_path / "root" or existing] == before


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_refused(archive, tmp_path, kept):
    archive.write_bytes(STORED[: int(kept * len(STORED))])
    with pytest.raises(ValueError, match="zip"):
        unpack(archive, tmp_path / "data")
    assert os.listdir(tmp_path) == ["x.zip"]


def test_an_archive_larger_than_the_free_disk_is_refused(archive, tmp_path, monkeypatch):
    archive.write_bytes(zipped({"big": bytes(2_000_000)}))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1_999_999))
    with pytest.raises(ValueError, match="can be unpacked"):
        unpack(archive, tmp_path / "data")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=2_000_000))
    unpack(archive, tmp_path / "data")


def test_a_refused_archive_is_kept_and_downloaded_anew_next_time(site, tmp_path):
    wanted = Download((site.offer("/3m.zip", zipped({"ok": b"", "../x": b""})),), "smac", unpack=True)
    (failure,) = fetch([wanted], tmp_path / "root")
    assert "../x" in failure and ".refused" in failure
    assert tree(tmp_path / "root") == {} and not (tmp_path / "x").exists() and not (tmp_path / "root/x").exists()
    assert read_lock(tmp_path / "root") == {}
    site.offer("/3m.zip", zipped(VAULT))
    assert fetch([wanted], tmp_path / "root") == []
    assert verify(tmp_path / "root") == []


@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_unpacking_leaves_no_half_folder(archive, tmp_path, after):
    archive.write_bytes(zipped({f"3m.vlt/{i}": b"x" for i in range(4)}))
    blocks = iter(range(after))

    def interrupted(_):
        if next(blocks, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "data", interrupted)
    assert os.listdir(tmp_path) == ["x.zip"]


def test_the_draft_of_a_killed_process_does_not_stay(archive, tmp_path):
    (tmp_path / "data/.x.zip.draft/new/3m.vlt").mkdir(parents=True)
    (tmp_path / "data/.x.zip.draft/new/3m.vlt/half").write_text("half")
    archive.write_bytes(zipped(VAULT))
    unpack(archive, tmp_path / "data")
    assert tree(tmp_path / "data") == VAULT


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_whatever_bytes_are_damaged_an_archive_is_refused_or_sound(data, method):
    files = {"a/one": b"one" * 20, "a/two": b"", "three": bytes(range(60))}
    content = bytearray(zipped(files, method))
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
            assert {path: (len(have), sha256(have)) for path, have in tree(folder).items()} == facts
            assert set(tree(folder).values()) <= set(files.values())
