"""Files that an editor of another system has saved: with a byte order mark, in UTF-16, or with its line ends."""

import codecs
import json

import pytest

from offmarl import algorithms
from offmarl.algorithms import MethodError, registry
from offmarl.benchmarks.yaml_files import FileError, packaged, parse
from offmarl.datasets.public.download import LOCK, read_lock
from offmarl.experiments.cli import main
from offmarl.reports.records.files import read_text

SAVED = {
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}
METHOD = """
from offmarl.algorithms.bc import BC

class Mine(BC):
    '''Größer.'''
    name = "mine"
"""


@pytest.fixture(params=SAVED)
def saved(request):
    """What an editor makes of a text."""
    return SAVED[request.param]


def test_files_of_settings_are_read(saved):
    assert parse(dict[str, str], "f.yaml", saved("title: Größe\nother: b\n")) == {"title": "Größe", "other": "b"}


@pytest.mark.parametrize("content", [b"title: Gr\xf6\xdfe\n", b"title: a\x00", b"\xff\xfet"], ids=str)
def test_what_no_encoding_explains_is_refused_in_a_line(content):
    with pytest.raises(FileError, match="^f.yaml.*: is not YAML") as refused:
        parse(dict[str, str], "f.yaml", content)
    assert len(str(refused.value).splitlines()) == 1


def test_the_packages_tasks_are_read_as_bytes(saved, monkeypatch, tmp_path):
    (tmp_path / "tasks.yaml").write_bytes(saved("a: 1\n"))
    monkeypatch.setattr("offmarl.benchmarks.yaml_files.resources.files", lambda package: tmp_path)
    packaged.cache_clear()
    assert packaged(dict[str, int], "offmarl.benchmarks", "tasks.yaml") == {"a": 1}
    packaged.cache_clear()


def test_tables_and_locks_are_read(saved, tmp_path):
    (tmp_path / "table.csv").write_bytes(saved("task,mean\nsmac/3m,±1\n"))
    assert read_text(tmp_path / "table.csv").splitlines() == ["task,mean", "smac/3m,±1"]
    entry = {"omar/prey/x.pt": {"sha256": "0", "files": {}}}
    (tmp_path / LOCK).write_bytes(saved(json.dumps(entry, indent=1)))
    assert read_lock(tmp_path) == entry


def test_a_method_file_is_used_or_refused_in_a_line(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(algorithms.PATHS, "")
    file = tmp_path / "mine.py"
    file.write_bytes(saved(METHOD))
    words = ["run", "--suite", "smac", "--profile", "smoke", "--tasks", "smac/3m:good", "--algorithms", "mine"]
    code = main([*words, "--method-file", str(file), "--jobs", "1", "--results", str(tmp_path / "r"), "--dry-run"])
    out, err = capsys.readouterr()
    registry.cache_clear()
    if code == 0:
        assert "mine" in out
    else:  # Python itself reads no UTF-16
        assert code == 2 and err.startswith(f"offmarl: {file}: cannot be imported (") and len(err.splitlines()) == 1


def test_a_broken_file_among_the_packages_methods_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_bytes("name = 'broken'".encode("utf-16"))
    monkeypatch.setattr(algorithms, "__path__", [*algorithms.__path__, str(tmp_path)])
    registry.cache_clear()
    with pytest.raises(MethodError, match=r"^algorithms/broken.py: cannot be imported \(SyntaxError"):
        registry()
    monkeypatch.undo()
    registry.cache_clear()
