"""What `validate` finds on a task: each fault that an environment may have, and nothing on a sound one."""

import numpy as np
import pytest
from trap import Trap

from offmarl.benchmarks import own, tasks
from offmarl.benchmarks.own import OwnTask, contract, sizes
from offmarl.benchmarks.own.pettingzoo import envs
from offmarl.datasets.own import strange_features


class Shared(Trap):
    """Draws from a generator that all environments share."""

    rng_of_all = np.random.default_rng(0)

    def reset(self, seed):
        seen = super().reset(seed)
        self.rng = self.rng_of_all
        return seen


class Sticky(Trap):
    """Its second episode goes on from the first one's draws."""

    def reset(self, seed):
        kept = getattr(self, "rng", None)
        seen = super().reset(seed)
        self.rng = kept or self.rng
        return seen


class Crowded(Trap):
    """Every reset of one environment changes what all others see."""

    resets = 0

    def reset(self, seed):
        Crowded.resets = seed % 100
        return super().reset(seed)

    def state(self):
        return np.array([Crowded.resets])


@pytest.fixture
def findings(monkeypatch):
    """The findings on a task that makes such environments, those that are not sound."""

    def examine(made, **facts):
        facts = {"name": "trap/one", "title": "Trap", "limit": 4, **facts, "make": lambda self: made()}
        user = type("Trapped", (OwnTask,), facts)("trap.py")
        task = tasks.UserTask("trap/one", "trap", **sizes(envs(user, 1)), limit=user.limit, engine="own")
        monkeypatch.setattr(own, "registry", lambda: {"trap/one": user})
        return [text for sound, text, _ in contract.examine(task) if not sound]

    return examine


def test_a_sound_task_has_no_doubts(findings):
    assert findings(Trap) == []
    assert findings(lambda: Trap(length=9), limit=9) == []


@pytest.mark.parametrize("made", [Shared, Sticky])
def test_chance_that_no_seed_decides_is_found(findings, made):
    assert "the same seed gives the same episode: no, episode 0 parts at step" in findings(made)[0]


def test_lanes_that_disturb_each_other_are_found(findings):
    (text,) = findings(Crowded)
    assert "an episode is the same alone as beside others: no, episode 0 parts at step" in text


def test_what_stays_from_the_last_episode_is_mended_by_fresh_environments(findings):
    assert findings(Sticky, fresh=True) == [] and findings(Shared, fresh=True) != []


def test_a_clock_of_the_environments_own_is_found(findings):
    (text,) = findings(Trap, limit=9)
    assert "8 end at step 4 and none later" in text and "write limit = 4" in text


def test_features_of_another_scale_or_order_are_counted():
    class Data:
        obs = np.random.default_rng(0).random((200, 2, 4), np.float32) * [1, 2, 3, 4]

    alike = np.random.default_rng(1).random((200, 2, 4)) * [1, 2, 3, 4]
    assert strange_features(Data, Data.obs) == 0
    assert strange_features(Data, alike * 0.5 + 9) == 4 and strange_features(Data, alike[..., [1, 2, 3, 0]] - 5) == 4
    narrow = Data()
    narrow.obs = np.full((9, 2, 4), 0.5)
    assert strange_features(narrow, alike) == 0
