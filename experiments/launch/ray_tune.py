"""Train the jobs of a grid with Ray Tune: one trial a job, actors reused from job to job.

The store says what is done, so Tune's own experiment state is not used to resume: a second start trains the pending
cells. A job whose worker dies is retried once, and continues from its last checkpoint.
"""

import logging
import os
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offmarl.experiments.launch.workers import ray_address

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # ProgressBar shows the progress
if not ray_address():  # a Ray of our own listens on the loopback device alone
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray
import torch
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig

from offmarl.benchmarks.source import first_line
from offmarl.experiments.environment import chosen_paths, settle
from offmarl.experiments.grid.jobs import Job, pending
from offmarl.experiments.launch.exclusive import train_alone
from offmarl.experiments.launch.interrupt import interruptible
from offmarl.experiments.launch.progress import ProgressBar
from offmarl.experiments.store.lock import Busy
from offmarl.experiments.store.store import Store
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.run import fail

REPORT_SECONDS = 2.0
LONGEST_TMPDIR = 30  # characters: the paths of Ray's sockets are 75 longer, and may have 107


class Trial(tune.Trainable):
    """Trains one job; a step of the trial is a few seconds of training."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a job in a fresh actor, whose node may have another environment than the driver."""
        settle()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next job in the same actor."""
        new_config["host"].set_up()
        self.progress = train_alone(**new_config)
        self.at = 0
        return True

    def step(self) -> dict[str, Any]:
        """Train for REPORT_SECONDS. A failure of the job is in the store already, so it ends the trial as a result."""
        until = time.monotonic() + REPORT_SECONDS
        result = {"failure": "", "busy": "", "done": True}
        try:
            for step in self.progress:
                self.at = step
                if time.monotonic() > until:
                    result["done"] = False
                    break
        except Busy as busy:
            result["busy"] = str(busy)
        except Exception as error:
            result["failure"] = first_line(error)
        return {"at": self.at, **result}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: jobs keep their own checkpoints in the results directory."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a job finds its own checkpoint when it begins."""

    def cleanup(self) -> None:
        """Save a job that is being stopped."""
        self.progress.close()


class StopOnInterrupt(tune.Stopper):
    """Stops every trial after Ctrl-C or SIGTERM, so that they save."""

    def __init__(self, interrupted: list[int]):
        self.interrupted = interrupted

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Whether to stop."""
        return bool(self.interrupted)


class Watcher(Callback):
    """Shows Tune's events in the progress bar."""

    def __init__(self, bar: ProgressBar, results: Path, host: Host):
        self.bar, self.results, self.host = bar, results, host

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Progress of a running job."""
        job = trial.config["job"]
        self.bar.advance(job, result["at"])
        if result.get("busy"):
            self.bar.leave(job, result["busy"])
        elif result.get("done"):
            self.bar.finish(job, result["failure"] or None)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker died twice: record the failure."""
        job = trial.config["job"]
        error = RuntimeError("the worker process died twice (killed, or out of memory)")
        for left in pending([job], Store(self.results)):
            fail(left, Store(self.results), error, self.host)
        self.bar.finish(job, str(error))


def run_ray(grid: Sequence[Job], results: Path, host: Host, workers: int) -> list[str]:
    """Train the jobs on a local Ray, or on the cluster that RAY_ADDRESS names; return the failures, one line each."""
    # Workers put the driver's directory first on sys.path; from a checkout that would shadow packages by our folders.
    results.mkdir(parents=True, exist_ok=True)
    os.chdir(results)
    gpus = torch.cuda.device_count() if host.cuda else 0
    share = {"cpu": host.threads, "gpu": min(1.0, gpus / workers)}
    if address := ray_address():
        where: dict[str, Any] = {"address": address, "runtime_env": {"env_vars": chosen_paths()}}  # on every node
    else:  # "local": not another Ray that runs on this machine
        where = {"address": "local", "num_cpus": workers * host.threads, "include_dashboard": False}
        where["runtime_env"] = {"py_executable": shlex.quote(sys.executable)}  # Ray's shell would split it at a space
        if len(tempfile.gettempdir()) > LONGEST_TMPDIR and os.access("/tmp", os.W_OK):
            where["_temp_dir"] = "/tmp/ray"
    ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
    bar = ProgressBar(grid, workers)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the progress bar names a worker that died
    config = {"host": host, "results": results, "driver": uuid.uuid4().hex}
    try:
        with tempfile.TemporaryDirectory(prefix="offmarl-tune-") as scratch, interruptible() as interrupted:
            tune.Tuner(
                tune.with_resources(Trial, share),
                param_space={**config, "job": tune.grid_search(list(grid))},
                tune_config=TuneConfig(reuse_actors=True),
                run_config=RunConfig(
                    storage_path=scratch,
                    verbose=0,
                    failure_config=FailureConfig(max_failures=1),
                    callbacks=[Watcher(bar, results, host)],
                    stop=StopOnInterrupt(interrupted),
                ),
            ).fit()
        if interrupted:
            raise KeyboardInterrupt(*interrupted)
    finally:
        bar.close()
        ray.shutdown()
    return bar.failures
