"""One cache and one compiled battle for the whole session.

OFFMARL_TEST_CACHE names a directory that keeps compiled simulators and recordings from one session to the next.
"""

import os

import numpy as np
import pytest
import torch
from miniature_data import forge, public_data  # noqa: F401  fixtures of several rooms

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before any test module imports JAX
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 is Ray's: beside other work such tests would starve

LANES = 64  # as many as recordings and the smoke profile's evaluations use, so that all share one compilation


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """OFFMARL_CACHE of this session and of every process it starts; never the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.getbasetemp()
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # by all processes of a session
        patch.setenv("OFFMARL_CACHE", os.environ.get("OFFMARL_TEST_CACHE") or str(shared / "cache"))
        yield


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small only lose by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def marines():
    """The task smac/3m."""
    from offmarl.benchmarks.tasks import tasks

    return tasks()["smac/3m"]


@pytest.fixture(scope="session")
def battles(marines):
    """64 battles of three marines a side, stepped together."""
    from offmarl.benchmarks.tasks import make_env

    return make_env(marines, LANES)


class Countdown:
    """A game that is known in full: the episode of seed s lasts 1 + s % 4 actions and pays s + t at action t.

    Agent i may take action 0, and action 1 + i while the episode's step is even. Seeds divisible by three end by the
    clock, odd ones are won. What comes after the end is poison: a large reward, a victory, a clock, a flag that is
    down again.
    """

    agents, actions = 3, 4

    def __init__(self, lanes, apart=False, victory=True):
        self.lanes, self.apart, self.victory = lanes, apart, victory

    def view(self):
        from offmarl.benchmarks.env import View

        own = np.arange(self.agents)
        facts = np.stack([self.seeds, np.full(self.lanes, self.t)], -1).astype(np.float32)
        obs = np.concatenate([np.repeat(facts[:, None], self.agents, 1), np.tile(own[:, None], (self.lanes, 1, 1))], -1)
        legal = np.zeros((self.lanes, self.agents, self.actions), bool)
        legal[:, :, 0] = True
        legal[:, own, 1 + own] = self.t % 2 == 0
        return View(obs.astype(np.float32), facts, legal)

    def reset(self, seeds):
        self.seeds, self.t = np.asarray(seeds), 0
        return self.view()

    def step(self, actions):
        from offmarl.benchmarks.env import Step

        last, late = self.t == self.seeds % 4, self.t > self.seeds % 4
        reward = np.where(late, 1e6, self.seeds + self.t).astype(np.float32)
        if self.apart:  # agent i is paid i - 1 on top, the mean is the same
            reward = reward[:, None] + np.arange(self.agents, dtype=np.float32) - 1
        self.t += 1
        clock = (last & (self.seeds % 3 == 0)) | late
        won = (last & (self.seeds % 2 == 1)) | late if self.victory else None
        return Step(self.view(), reward, last, clock, won)

    def close(self):
        pass


@pytest.fixture(scope="session")
def countdown():
    """Make a `Countdown`: its arguments are lanes, apart, victory."""
    return Countdown
