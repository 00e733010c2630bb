"""Downloads from servers that fail, refuse, hang, or answer as no hub does; a disk too small; another downloader."""

import fcntl
import re
import shutil

import pytest
from downloads import REPO, plain, unpacked, zip_of

from offmarl.datasets.public.download import fetch, manual, read_lock


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 500}, {"status": 429}], ids=str)
def test_a_passing_fault_is_waited_for(hub, tmp_path, fault, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    hub.head_faults = [fault, dict(fault)]
    assert fetch([zip_of()], tmp_path) == []
    assert len(hub.waits) == 2 and hub.waits[0] < hub.waits[1]
    assert files.tree(tmp_path) == {f"smac/{name}": data for name, data in files.VAULT.items()}


def test_a_lasting_fault_is_a_failure(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    hub.head_faults = [{"status": 503} for _ in range(20)]
    (failure,) = fetch([zip_of()], tmp_path)
    assert 2 <= len(hub.requests) < 20
    assert failure.startswith("3m.zip: 127.0.0.1 answers 503 Service Unavailable at revision main; ")
    assert failure.endswith(manual(zip_of(), tmp_path)) and "\n" not in failure


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418])
def test_a_refusal_is_not_asked_again(hub, tmp_path, status, files):
    hub.head_faults = [{"status": status, "headers": {"X-Error-Message": "two\tlines"}}]
    (failure,) = fetch([zip_of()], tmp_path)
    assert len(hub.requests) == 1
    assert f"127.0.0.1 answers {status} " in failure and failure.endswith(manual(zip_of(), tmp_path))
    assert "\n" not in failure and files.tree(tmp_path) == {}


def test_an_unknown_file_or_revision_is_one_line(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    failures = fetch([zip_of("core/8m.zip"), zip_of(revision="v9")], tmp_path)
    assert failures[0].startswith("8m.zip: 127.0.0.1 answers 404 Not Found at revision main; ")
    assert failures[1].startswith("3m.zip: 127.0.0.1 answers 404 Not Found at revision v9; ")


@pytest.mark.parametrize("unsaid", ["X-Repo-Commit", "X-Linked-Etag"])
def test_what_does_not_answer_as_a_hub_is_said(hub, tmp_path, unsaid, files):
    hub.unsaid = (unsaid,)
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    (failure,) = fetch([zip_of()], tmp_path)
    assert "does not answer as a Hugging Face hub does" in failure and "HF_ENDPOINT" in failure
    assert files.tree(tmp_path) == {}


def test_an_unreachable_host_is_one_line_and_the_others_arrive(hub, tmp_path, nowhere, files):
    lost = plain(f"{nowhere}/prey.pt", "omar/prey.pt")
    hub.commit("core/3m.zip", files.zipped(files.VAULT))
    (failure,) = fetch([lost, zip_of()], tmp_path, jobs=1)
    assert re.match(r"prey\.pt: 127\.0\.0\.1 cannot be reached \(.*refused.*\); download it by hand from ", failure)
    assert failure.endswith(f"from {nowhere}/prey.pt and save it as {tmp_path / 'omar/prey.pt'}")
    assert "\n" not in failure
    assert read_lock(tmp_path).keys() == {"smac/3m.zip"}


def test_an_unreachable_hub_is_one_line_with_the_way_by_hand(hub, tmp_path, monkeypatch, nowhere):
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    (failure,) = fetch([zip_of()], tmp_path)
    assert re.match(r"3m\.zip: 127\.0\.0\.1 cannot be reached \(.*refused.*\); download it by hand from ", failure)
    address = f"{nowhere}/datasets/{REPO}/resolve/main/core/3m.zip"
    assert failure.endswith(f"from {address} and unpack it in {tmp_path / 'smac'}")
    assert "\n" not in failure


@pytest.mark.parametrize("endpoint", ["mirror.example", "ftp://127.0.0.1", "http://"])
def test_an_endpoint_that_is_no_address_is_one_line(hub, tmp_path, monkeypatch, endpoint, files):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    (failure,) = fetch([zip_of()], tmp_path)
    assert failure.startswith("3m.zip: ") and "\n" not in failure and "by hand" in failure
    assert files.tree(tmp_path) == {}


def test_failures_come_in_the_order_of_the_downloads(hub, tmp_path, nowhere):
    failures = fetch([plain(f"{nowhere}/a.bin", into="a"), plain(hub.address + "/gone", into="b")], tmp_path)
    assert [failure.split(":")[0] for failure in failures] == ["a.bin", "gone"]
    assert "cannot be reached" in failures[0] and "answers 404 Not Found" in failures[1]
    assert failures[1].endswith(f"and save it as {tmp_path / 'b'}")


@pytest.mark.parametrize("before", [False, True], ids=["silent at once", "silent amid the file"])
def test_a_silent_server_is_not_waited_for_without_end(hub, tmp_path, monkeypatch, before, archive, files):
    from huggingface_hub import constants

    def hang():
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)  # of the next attempt
        hub.hang()

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.commit("core/3m.zip", archive, {"cut": 1_000_000, "then": hang} if before else {"run": hang})
    assert fetch([zip_of()], tmp_path) == [] and not hub.waited_for
    assert files.tree(tmp_path) == unpacked(files)


@pytest.mark.parametrize("scheme", ["file://", "ftp://127.0.0.1", "data:,"])
@pytest.mark.parametrize("redirected", [False, True])
def test_only_http_is_read(hub, tmp_path, scheme, redirected, files):
    secret = tmp_path / "secret"
    secret.write_text("s")
    url = f"{scheme}{secret}"
    if redirected:
        url = hub.offer("/x", files.CONTENT, *[{"status": 302, "headers": {"Location": url}}] * 9)
    (failure,) = fetch([plain(url)], tmp_path / "root")
    assert "\n" not in failure and "by hand" in failure
    assert files.tree(tmp_path / "root") == {}


@pytest.mark.parametrize("factor, names", [(2.2, "the archive and what it holds")])
def test_too_small_a_disk_is_said_before_anything_is_written(hub, tmp_path, monkeypatch, factor, names, archive, files):
    enough = int(factor * len(archive)) + 1
    hub.commit("core/3m.zip", archive)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=enough - 200_000))
    (failure,) = fetch([zip_of()], tmp_path)
    assert "GB of disk" in failure and str(tmp_path) in failure
    assert hub.sent() == [] and all(part.stat().st_size == 0 for part in files.parts(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=enough))
    assert all("of disk" not in line for line in fetch([zip_of()], tmp_path))


def test_a_download_that_is_running_elsewhere_is_left_alone(hub, tmp_path, files):
    hub.commit("core/3m.zip", files.zipped(files.VAULT), {"status": 404})
    fetch([zip_of()], tmp_path)
    (held,) = (tmp_path / ".downloads").glob("*-3m.zip.lock")
    with held.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert fetch([zip_of()], tmp_path) == ["3m.zip: another process is downloading it already"]
    assert fetch([zip_of()], tmp_path) == []
