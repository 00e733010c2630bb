import os
import subprocess

import pytest

from offmarl.reports.records.files import replacing, write_text


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with replacing(tmp_path / "a.txt") as draft:
        draft.write_text("ä")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert draft.name.startswith(".a.") and draft.suffix == ".txt"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "ä")]


@pytest.mark.parametrize(
    "write", [lambda draft: draft.write_text("half"), lambda draft: (draft / "x").mkdir(parents=True)]
)
def test_after_an_error_the_old_file_stays_alone(tmp_path, write):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as draft:
        write(draft)
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_folder_takes_a_free_place(tmp_path):
    with replacing(tmp_path / "run.s0.ab12") as draft:
        (draft / "inner").mkdir(parents=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["run.s0.ab12", "inner"]


def test_a_link_stays_and_the_file_that_it_names_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.txt").write_text("old")
    (tmp_path / "a.txt").symlink_to(tmp_path / "elsewhere/a.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink() and (tmp_path / "elsewhere/a.txt").read_text() == "new"


def test_a_pipe_gets_what_was_written_and_stays_one(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        write_text(pipe, "ä")
        assert reader.communicate()[0] == "ä".encode()
    assert pipe.is_fifo() and [path.name for path in tmp_path.iterdir()] == ["pipe"]
