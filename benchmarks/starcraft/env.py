"""The real StarCraft environments: SMAC, SMACv2, and the modified SMAC in which OMIGA's data were recorded.

Every lane is a process with its own game: the packages register maps of the same names, so no two of them can share a
process, and a game that crashes or hangs is replaced without effect on other lanes.

Reproducible only in part: SMACv2's teams and start positions follow from an episode's seed. The game takes a seed only
when it is launched, so its own randomness is seeded in the first episode of a process only; in SMAC and OMIGA's SMAC
nothing else is random. Rewards are scaled by the health of a process's first enemies, which vary in SMACv2.

Source: oxwhirl's smac and smacv2 and InstaDeep's og-marl as they are on GitHub; pysc2 4.0.0.
Shapes: E lanes, I agents, O observation, S state, A actions of one agent.
"""

import fcntl
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from offmarl.benchmarks.env import Step, View
from offmarl.benchmarks.starcraft.packages import INSTALL, PACKAGES, game_command, home, missing
from offmarl.benchmarks.tasks import Task

SCRATCH, JUST_MADE = "offmarl-game-", 60.0  # folders of games; seconds in which one may not have its lock yet
STEP_SECONDS, RESET_SECONDS, CLOSE_SECONDS = 60.0, 300.0, 15.0  # a reset may have to launch the game
RESTARTS = 3  # failures in a row that a lane may have
DOCTOR = "offmarl doctor shows what is missing"
PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
UNFIT = ("SC2LaunchError", "NoMapError")  # of pysc2 and the packages
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class StarCraftError(RuntimeError):
    """The installation is at fault: what, where, and the command that repairs it, in one line."""


# In the worker.


class Game:
    """One environment of a real package."""

    def __init__(self, task: Task):
        self.package = package = PACKAGES[task.engine]
        self.env = getattr(import_module(package.module), package.name)(**package.options(task))
        self.core = getattr(self.env, "env", self.env)  # within SMACv2's wrapper
        self.core.full_restart = _broken
        self.scale = self.core.max_reward  # before the package adds the enemies' health
        # Not from get_env_info(), which in og-marl calls a method that does not exist.
        sizes = [self.core.n_agents, self.env.get_obs_size(), self.env.get_state_size()]
        sizes += [self.core.n_actions, self.core.episode_limit]
        sizes = [size[0] if isinstance(size, (list, tuple)) else size for size in sizes]
        sizes[2] *= sizes[0] if package.each else 1
        self.agents = range(sizes[0])
        for name, size in zip(("agents", "obs", "state", "actions", "limit"), sizes):
            if size != getattr(task, name):
                raise StarCraftError(
                    f"{name} is {size} in {package.module}, should be {getattr(task, name)} (not the version or engine "
                    f"of the data): pip install --force-reinstall --no-deps {package.source}"
                )

    def reset(self, seed: int) -> tuple[np.ndarray, ...]:
        """Start an episode; returns observations [I,O], state [S] and legal actions [I,A]."""
        random.seed(seed)
        self.core._seed = seed  # read when the game is launched
        stream = np.random.default_rng(seed)
        for distribution in getattr(self.env, "env_key_to_distribution_map", {}).values():
            _draw_from(stream, distribution)
        if first := self.core._episode_count == 0:
            if self.core._sc2_proc:  # no episode has ended: the package would launch another game
                self.core._sc2_proc.close()
            self.core.max_reward = self.scale
        self.env.reset()
        if first and not self.package.map:
            # The package adds the enemies it sees each time it looks, and looks again while units are missing.
            health = sum(unit.health_max + unit.shield_max for unit in self.core.enemies.values())
            self.core.max_reward = self.scale + health
        return self._seen()

    def step(self, actions: list[int]) -> tuple:
        """As `reset`, then the reward, and the flags done, timeout, won and void (never set here)."""
        timeouts = self.core.timeouts
        outcome = self.env.step(actions)
        if self.package.each:
            _, _, ((reward, *_), *_), ends, (info, *_), _ = outcome
            over, won = all(ends), info["won"]
        else:
            reward, over, info = outcome
            won = info["battle_won"]
        # In `info` the packages report a time-out only of episodes that continue after it.
        return self._seen(), reward, (over, self.core.timeouts > timeouts, over and won, False)

    def _seen(self) -> tuple[np.ndarray, ...]:
        states = [self.env.get_state_agent(i) for i in self.agents] if self.package.each else [self.env.get_state()]
        legal = [self.env.get_avail_agent_actions(i) for i in self.agents]  # all at once fails in some SMACv2
        return np.array(self.env.get_obs(), np.float32), np.concatenate(states, dtype=np.float32), np.array(legal, bool)


def _broken() -> None:
    """Instead of the package's `full_restart`, which launches a game that nobody would play."""
    raise ConnectionError("the game crashed")


def _draw_from(stream: np.random.Generator, distribution: Any) -> None:
    """Let one of SMACv2's distributions, and its parts, draw from a seeded stream."""
    for name, part in list(vars(distribution).items()):
        if name == "rng":
            distribution.rng = stream
        elif hasattr(part, "generate"):
            _draw_from(stream, part)


def _serve(pipe: Any, task: Task, scratch: str, make: type[Game]) -> None:
    """Execute orders (method, argument) until None, the end of the other side, or a failure, the last answer.

    `scratch` is the temporary folder of this process and its game alone.
    """
    os.setsid()  # one group with the game, to be ended together; Ctrl-C is for the trainer only
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: os.killpg(0, signal.SIGKILL))
    os.dup2(2, 1)  # the game prints a lot
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    game = None
    try:
        game = make(task)
        pipe.send(("done", None))
        while (order := pipe.recv()) is not None:
            pipe.send(("done", getattr(game, order[0])(order[1])))
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:  # whatever the packages raise
        lack = missing(task.engine, task.short)  # by now
        unfit = bool(lack) or isinstance(error, FileNotFoundError) or type(error).__name__ in UNFIT
        text = str(error) if isinstance(error, StarCraftError) else f"{type(error).__name__}: {error}"
        if unfit or game is None and not isinstance(error, StarCraftError):
            text += f": {lack or game_command()}" if unfit else f": {INSTALL}{PACKAGES[task.engine].source}"
        with suppress(OSError):
            pipe.send(("unfit" if unfit or game is None else "failed", " ".join(text.split())))
    finally:
        signal.alarm(int(CLOSE_SECONDS))
        if game is not None:
            game.env.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _end_with_parent(scratch: str) -> None:
    """Once the trainer has ended, end the game, remove its files, and end this process, whatever it waits for."""
    if parent := parent_process():
        connection.wait([parent.sentinel])
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        shutil.rmtree(scratch, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)


# In the parent.


@contextmanager
def _variables(scratch: str) -> Iterator[None]:
    """The environment variables of a worker, set while it starts, because what it imports reads some of them.

    protobuf newer than 3.20 reads pysc2's messages in Python only, and the game on this machine is behind no proxy.
    """
    before = dict(os.environ)
    for name in PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    os.environ.update({PROTOBUF: "python", "SC2PATH": str(home().absolute()), "TMPDIR": scratch})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Worker:
    """The process of one lane, with a temporary folder of its own."""

    def __init__(self, task: Task, make: type[Game] = Game):
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.scratch = tempfile.mkdtemp(prefix=SCRATCH)
        self.lock = os.open(self.scratch, os.O_RDONLY)  # held until this process ends, however it ends
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.process = context.Process(target=_serve, args=(theirs, task, self.scratch, make), daemon=True)
        with _variables(self.scratch):
            self.process.start()
        theirs.close()

    def send(self, order: Any) -> None:
        """Send an order; a failure shows in the answer."""
        with suppress(OSError):
            self.pipe.send(order)

    def answer(self, deadline: float) -> tuple[str, Any]:
        """("done", answer), or ("failed", why), or ("unfit", why) where a retry is useless."""
        with suppress(EOFError, OSError):
            if self.pipe.poll(max(0.0, deadline - time.monotonic())):
                return self.pipe.recv()
            return "failed", "no answer in time"
        self.process.join(1)
        return "failed", f"its process ended with code {self.process.exitcode}"

    def end(self, deadline: float = 0.0) -> None:
        """Wait for the process until the deadline, then kill it and its game."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if group := self.process.pid:
            with suppress(OSError):  # nothing left
                os.killpg(group, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.close(self.lock)


def _clear_abandoned() -> None:
    """Remove the folders of trainers that were killed at once with their games, so that nobody was left to do it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError):  # held by its trainer, or another's
            if time.time() - folder.stat().st_mtime > JUST_MADE:
                lock = os.open(folder, os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)


def _end(workers: dict[int, Worker]) -> None:
    for worker in workers.values():
        worker.send(None)
    deadline = time.monotonic() + CLOSE_SECONDS
    while workers:
        workers.popitem()[1].end(deadline)


class StarCraftEnv:
    """`lanes` games stepped at the same time, each in a process of its own; a `BatchEnv`.

    A lane whose episode is over keeps its last view and gets no reward. A lane whose game crashed, hung or exited is
    void until the next reset gives it a new process. Illegal actions become the first legal one: stop, or no-op for the
    dead. Raises StarCraftError when packages, game or maps are missing, or their sizes are not the task's, and
    RuntimeError when a lane fails more than RESTARTS times in a row; the environment is then closed.
    """

    episodes_at_once = 1  # of each seed, in waves: a game takes about 1 GB
    game = Game  # what each process plays

    def __init__(self, task: Task, lanes: int):
        if reason := missing(task.engine, task.short):
            raise StarCraftError(f"{task.name}: {reason}; {DOCTOR}")
        self.task, self.lanes, self._workers, self._failures = task, lanes, {}, np.zeros(lanes, int)
        obs, legal = np.zeros((task.agents, task.obs), np.float32), np.zeros((task.agents, task.actions), bool)
        self._seen = [(obs, np.zeros(task.state, np.float32), legal)] * lanes
        self._ends = np.ones((4, lanes), bool)  # done, timeout, won, void
        _clear_abandoned()
        self._close = weakref.finalize(self, _end, self._workers)  # when the interpreter ends at the latest
        self._start()

    def reset(self, seeds: np.ndarray) -> View:
        """Start an episode in every lane, from its own seed as far as possible: [E]."""
        self._ends[:] = False
        waiting = {lane: ("reset", int(seed) % 2**31) for lane, seed in zip(range(self.lanes), seeds, strict=True)}
        while waiting:
            self._start()
            for lane, seen in self._ask(waiting, RESET_SECONDS).items():
                self._seen[lane] = seen
                del waiting[lane]
        return self._view()

    def step(self, actions: np.ndarray) -> Step:
        """Joint actions [E,I]."""
        legal, reward = self._view().legal, np.zeros(self.lanes, np.float32)
        allowed = np.take_along_axis(legal, np.asarray(actions)[..., None], -1)[..., 0]
        actions = np.where(allowed, actions, legal.argmax(-1)).tolist()
        orders = {lane: ("step", actions[lane]) for lane in range(self.lanes) if not self._ends[0, lane]}
        answers = self._ask(orders, STEP_SECONDS)
        for lane, (seen, paid, ends) in answers.items():
            self._seen[lane], reward[lane], self._ends[:, lane] = seen, paid, ends
            self._failures[lane] *= not ends[0]
        for lane in orders.keys() - answers:
            self._ends[:, lane] = True, False, False, True
        return Step(self._view(), reward, *self._ends.copy())

    def release(self) -> None:
        """End all games and their processes until the next reset."""
        _end(self._workers)

    def close(self) -> None:
        """End all games and their processes for good."""
        self._close()

    def _start(self) -> None:
        fresh = [lane for lane in range(self.lanes) if lane not in self._workers]
        self._workers.update((lane, Worker(self.task, self.game)) for lane in fresh)
        self._collect(fresh, RESET_SECONDS)

    def _ask(self, orders: dict[int, tuple[str, Any]], seconds: float) -> dict[int, Any]:
        """The answers of the lanes that have a worker which does not fail."""
        for lane in (present := [lane for lane in orders if lane in self._workers]):
            self._workers[lane].send(orders[lane])
        return self._collect(present, seconds)

    def _collect(self, lanes: Iterable[int], seconds: float) -> dict[int, Any]:
        answers, deadline = {}, time.monotonic() + seconds
        for lane in lanes:
            kind, answer = self._workers[lane].answer(deadline)
            if kind == "done":
                answers[lane] = answer
                continue
            self._workers.pop(lane).end()
            self._failures[lane] += 1
            if kind == "unfit" or self._failures[lane] > RESTARTS:
                self.close()
            if kind == "unfit":
                raise StarCraftError(f"{self.task.name}: {answer}; {DOCTOR}")
            if self._failures[lane] > RESTARTS:
                times = f"{self._failures[lane]} times in a row"
                raise RuntimeError(
                    f"{self.task.name}: the game of lane {lane} failed {times}, at last: {answer}; {DOCTOR}"
                )
        return answers

    def _view(self) -> View:
        return View(*map(np.stack, zip(*self._seen)))
