"""Progress of a running grid."""

import contextlib

import pytest

from offmarl.experiments.grid.jobs import Request, jobs
from offmarl.experiments.launch import progress
from offmarl.experiments.launch.progress import ProgressBar


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def grid(steps, tasks=("smac/3m:good",), algorithms=("bc", "mabcq")):
    return jobs(Request("smac", "smoke", tasks=tasks, steps=steps, algorithms=algorithms))


def test_a_job_that_is_left_alone_takes_one_worker_however_many_there_are(clock):
    first, last = grid(steps=300)
    with contextlib.closing(ProgressBar([first, last], workers=2)) as bar:
        for job in (first, last):
            bar.advance(job, 0)
        clock.now = 600.0
        bar.advance(first, 300)
        bar.advance(last, 100)
        assert bar.time_left() == "20 min"  # 200 updates of 6 seconds
        bar.finish(first, None)
        assert bar.time_left() == "20 min"


def test_many_jobs_are_shared_by_the_workers(clock):
    first, last = grid(steps=300)
    with contextlib.closing(ProgressBar([first, last], workers=2)) as bar:
        bar.advance(first, 0)
        clock.now = 600.0
        bar.advance(first, 100)
        assert bar.time_left() == "20 min plus 1 method not timed yet"
        bar.advance(last, 0)
        clock.now = 1200.0
        bar.advance(last, 50)
        assert bar.time_left() == "50 min"  # 200 updates of 6 seconds beside 250 of 12
        bar.finish(last, None)
        assert bar.time_left() == "20 min"


def test_the_last_evaluation_counts_for_the_jobs_that_follow(clock):
    first, last = grid(300, ["smac/3m:good", "smac/8m:poor"], ["bc"])
    with contextlib.closing(ProgressBar([first, last], workers=1)) as bar:
        bar.advance(first, 0)
        clock.now = 300.0
        bar.advance(first, 300)
        clock.now = 600.0
        bar.finish(first, None)
        assert bar.time_left() == "10 min"
