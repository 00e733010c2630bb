"""What a logger holds is what the store holds."""

import struct

import kills
import pytest
from tensorboardX.proto import event_pb2

from offmarl.experiments.cli import main
from offmarl.experiments.store import leftovers, loggers
from offmarl.experiments.store.store import Store

RUN = ["run", "--suite", "continuous", "--profile", "smoke", "--tasks", "mpe/spread:medium", "--algorithms", "bc"]


def events(folder):
    """The scalars of TensorBoard's files: length, its sum, the event, its sum."""
    for file in folder.glob("events*"):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)
            content = content[16 + length :]


def test_tensorboard_holds_every_metric_and_evaluation_of_every_run(tmp_path):
    words = ["--set", "all.hidden=[16]", "--jobs", "1", "--results", str(tmp_path)]
    assert main([*RUN, *words, "--log", "tensorboard"]) == 0
    store = Store(tmp_path)
    assert len(store.run_ids()) == 2
    for run_id in store.run_ids():
        expected = list(loggers.scalars(store.read(run_id), store.runs / run_id))
        assert {name for _, name, _ in expected} == {"training/policy", "evaluation/return"}
        found = sorted(events(tmp_path / "tensorboard" / run_id))
        assert [each[:2] for each in found] == [each[:2] for each in sorted(expected)]
        assert [each[2] for each in found] == pytest.approx([each[2] for each in sorted(expected)], rel=1e-6)


def test_a_run_whose_writing_was_killed_is_written_by_the_next(tmp_path, monkeypatch):
    kills.train(tmp_path)
    run_ids = Store(tmp_path).run_ids()

    def killed(*_):
        yield 1, "training/loss", 0.0
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loggers, "scalars", killed)
        loggers.write(tmp_path, run_ids)
    loggers.write(tmp_path, run_ids)
    assert all(list(events(tmp_path / "tensorboard" / run_id)) for run_id in run_ids)
    monkeypatch.setattr(leftovers, "STALE_SECONDS", -1.0)
    leftovers.clear_leftovers(tmp_path)
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == run_ids


def test_a_run_that_was_trained_anew_is_written_anew(tmp_path):
    kills.train(tmp_path)
    run_id = Store(tmp_path).run_ids()[0]
    loggers.write(tmp_path, [run_id])
    (file,) = (tmp_path / "tensorboard" / run_id).iterdir()
    written = file.stat().st_mtime_ns
    loggers.write(tmp_path, [run_id])
    assert file.stat().st_mtime_ns == written
    Store(tmp_path).set_aside(run_id, "stale")
    kills.train(tmp_path)
    loggers.write(tmp_path, [run_id])
    (anew,) = file.parent.iterdir()  # its name is the same within a second
    assert anew.stat().st_mtime_ns > written and list(events(file.parent))


@pytest.mark.parametrize(
    ("name", "reason"), [("tensorbord", "'tensorboard'"), ("tensorboard", "pip install no_such_package")]
)
def test_an_unknown_or_missing_logger_is_refused_before_anything_runs(tmp_path, name, reason, capsys, monkeypatch):
    monkeypatch.setattr(loggers, "PACKAGE", "no_such_package")
    assert main([*RUN, "--log", name, "--results", str(tmp_path / "r")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line and not (tmp_path / "r").exists()
