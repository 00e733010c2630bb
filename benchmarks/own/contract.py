"""What `offmarl validate` asks of a task of the user's own, by random legal play of a few episodes."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from offmarl.benchmarks.env import BatchEnv, View
from offmarl.benchmarks.own import sizes
from offmarl.benchmarks.random_policy import uniform
from offmarl.benchmarks.tasks import Task, make_env

SEEDS = np.arange(900_000_000, 900_000_008)  # no recording or evaluation uses them
ADVICE = "let reset(seed=…) decide all that is random, or write fresh = True if it depends on the episode before"
SAME_END = 0.25  # of the episodes: so many do not end at one step by chance


class Episode(NamedTuple):
    """One episode of T steps; `view` has the joined parts of every view."""

    view: np.ndarray  # [T + 1, I * O + G (+ I * A)]
    obs: np.ndarray  # [T + 1, I, O]
    rewards: np.ndarray  # [T, I]
    timeout: bool

    @property
    def length(self) -> int:
        """Its steps."""
        return len(self.rewards)


def examine(task: Task) -> Iterator[tuple[bool, str, list[Episode]]]:
    """Findings: whether it is sound, the finding in words, and the episodes that were played for it."""
    if not task.played:
        yield True, "it has no environment: only its data are examined", []
        return
    several, one = make_env(task, 1, len(SEEDS)), make_env(task, 1)
    try:
        began = time.perf_counter()
        episodes = play(task, several, SEEDS)
        speed = sum(episode.length for episode in episodes) / (time.perf_counter() - began)
        yield *_sizes(task, sizes(several)), episodes
        again = play(task, several, SEEDS)
        yield *_same("the same seed gives the same episode", episodes, again), again
        alone = [play(task, one, SEEDS[k : k + 1])[0] for k in (1, 0)]
        yield *_same("an episode is the same alone as beside others", episodes[:2], alone[::-1]), alone
    finally:
        several.close()
        one.close()
    yield *_ends(task, episodes), []
    yield True, _rewards(episodes), []
    yield True, f"{speed:,.0f} steps a second on one core, with the checks of every view", []


def play(task: Task, env: BatchEnv, seeds: Sequence[int] | np.ndarray) -> list[Episode]:
    """An episode in every lane, whose actions follow from its own seed."""
    act, rngs = uniform(task), [np.random.default_rng(seed) for seed in seeds]
    view, views, rewards = env.reset(np.asarray(seeds)), [], []
    over, length, timeout = np.zeros(len(rngs), bool), np.zeros(len(rngs), int), np.zeros(len(rngs), bool)
    views.append(view)
    while not over.all():
        joint = np.concatenate([act(_lane(view, e), rng) for e, rng in enumerate(rngs)])
        step = env.step(joint)
        length += ~over
        timeout |= step.timeout & step.done & ~over
        over |= step.done
        view = step.view
        views.append(view)
        rewards.append(np.broadcast_to(np.reshape(step.reward, (len(rngs), -1)), view.obs.shape[:2]))
    return [
        Episode(
            np.stack([np.concatenate([part[e].ravel() for part in one if part is not None]) for one in views[: n + 1]]),
            np.stack([one.obs[e] for one in views[: n + 1]]),
            np.stack([one[e] for one in rewards[:n]]),
            bool(timeout[e]),
        )
        for e, n in enumerate(length)
    ]


def _lane(view: View, e: int) -> View:
    return View(*(None if part is None else part[e : e + 1] for part in view))


def _sizes(task: Task, shown: Mapping[str, int]) -> tuple[bool, str]:
    """The sizes in words, and whether those that a file states are what its environment shows."""
    kind = "actions" if task.discrete else "numbers an action"
    text = f"{task.agents} agents, {task.obs} observed numbers, {task.actions} {kind}, a state of {task.state}"
    if any(getattr(task, key) != size for key, size in shown.items()):
        return False, f"{text}, but its environment shows {shown}"
    seen = task.roster.get("agents", {})
    unlike = len(set(seen.values())) > 1
    return True, text + (f"; padded: {', '.join(f'{agent} {rule}' for agent, rule in seen.items())}" if unlike else "")


def _same(text: str, some: Sequence[Episode], others: Sequence[Episode]) -> tuple[bool, str]:
    """Whether two sets of episodes are equal, and if not where they part."""
    for k, (one, other) in enumerate(zip(some, others)):
        for t in range(max(one.length, other.length) + 1):
            if t > min(one.length, other.length) or not np.array_equal(one.view[t], other.view[t]):
                return False, f"{text}: no, episode {k} parts at step {t}; {ADVICE}"
        if not np.array_equal(one.rewards, other.rewards):
            return False, f"{text}: no, episode {k} has other rewards; {ADVICE}"
    return True, text


def _ends(task: Task, episodes: Sequence[Episode]) -> tuple[bool, str]:
    """How episodes end, and whether the environment's own clock is taken for the end of its game."""
    ends = Counter(episode.length for episode in episodes if not episode.timeout)
    longest = max(episode.length for episode in episodes)
    lengths = f"{min(episode.length for episode in episodes)} to {longest} steps"
    text = f"{len(episodes)} random episodes of {lengths}; {len(episodes) - ends.total()} end by the clock"
    if ends[longest] > max(1, SAME_END * len(episodes)):
        advice = f"if that is a clock, write limit = {longest}"
        return False, f"{text}; {ends[longest]} end at step {longest} and none later, but not by the clock: {advice}"
    return True, text


def _rewards(episodes: Sequence[Episode]) -> str:
    returns = [float(episode.rewards.mean(1).sum()) for episode in episodes]
    apart = any((episode.rewards != episode.rewards[:, :1]).any() for episode in episodes)
    paid = "each agent its own reward" if apart else "all agents the same reward"
    text = f"{paid}; returns of random play {np.mean(returns):.4g} ± {np.std(returns):.3g}"
    return text if any(returns) else f"{text}: it is never paid, so this has shown nothing of the rewards"
