"""Which code a record names."""

import os
import shutil
import subprocess

import pytest

from offmarl.experiments.training.machine import commit_of


def git(folder, *words):
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *me, *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Somebody's repository with one commit."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    git(tmp_path, "init", "-q", "theirs")
    (tmp_path / "theirs/file").write_text("1")
    git(tmp_path / "theirs", "add", ".")
    git(tmp_path / "theirs", "commit", "-qm", "one")
    return tmp_path / "theirs"


def test_the_commit_is_that_of_the_checkout_itself(theirs, tmp_path, monkeypatch):
    commit = git(theirs, "rev-parse", "--short=12", "HEAD")
    assert commit_of(theirs) == commit
    (tmp_path / "link").symlink_to(theirs)
    assert commit_of(tmp_path / "link") == commit
    git(theirs, "worktree", "add", "-q", str(tmp_path / "tree"))
    assert commit_of(tmp_path / "tree") == commit
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # as in a hook of another repository
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    assert commit_of(theirs) == commit
    (theirs / "file").write_text("2")
    assert commit_of(theirs) == f"{commit}-dirty"


def test_a_repository_around_it_is_not_meant(theirs, tmp_path, monkeypatch):
    inside = theirs / "unpacked/offmarl"
    inside.mkdir(parents=True)
    assert commit_of(inside) == "unknown"
    (inside / "code.py").write_text("")
    git(theirs, "add", ".")
    git(theirs, "commit", "-qm", "two")  # also where it is a part of theirs
    assert commit_of(inside) == "unknown"
    assert commit_of(tmp_path) == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None and commit_of(theirs) == "unknown"
