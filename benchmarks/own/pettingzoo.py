"""The user's environments as a `BatchEnv`: PettingZoo's ParallelEnv, and Gymnasium's with Tuple spaces.

* Agents that differ are padded: observations by zeros, actions by illegal ones, or where continuous by ignored numbers.
* Observations are of any space of a fixed size, flattened. Actions are Discrete, MultiDiscrete (as joint choices), or
  Box with bounds, scaled to [-1, 1].
* Who is out of the game sees zeros unless the environment still shows something, gets no reward, and may only choose
  action 0, which is never sent.
* Masks are the task's `legal`, else `action_mask` in an agent's observation or info; without one everything is legal.
* The state is the task's `state`, else the environment's, else all observations joined.
* An end at the limit is a time-out unless the task's `clock` is the environment's. Living agents see what follows it.
* Every lane is an environment of its own, with its own seeds. One that crashes ends the job.

Shapes: E lanes, I agents, O observation, G state, A actions.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from offmarl.benchmarks.env import BatchEnv, Step, View
from offmarl.benchmarks.own import OwnTask, TaskError, find, first_line
from offmarl.benchmarks.own.agent import LARGEST_OBS, MASK, Agent
from offmarl.benchmarks.tasks import Task


def env_of(task: Task, lanes: int) -> BatchEnv:
    """So many lanes of a task by a file."""
    return envs(find(task.name), lanes)


def envs(user: OwnTask, lanes: int) -> BatchEnv:
    """So many lanes of what a file makes. Raises TaskError for what cannot be used, and why."""
    return user.batch(lanes) if user.batched else (PicturedEnvs if user.pictured else ParallelEnvs)(user, lanes)


class ParallelEnvs:
    """Lanes that step in turn, each an environment of its own; one that is over stands still."""

    def __init__(self, user: OwnTask, lanes: int):
        self.lanes, self.place = lanes, user.place
        self._lanes = [Lane(user) for _ in range(lanes)]
        self.actions = self._lanes[0].actions

    @property
    def rules(self) -> dict[str, str]:
        """What agents see and do, in words."""
        return {agent.name: f"{agent.size} -> {agent.acts}" for agent in self._lanes[0].agents}

    def reset(self, seeds: np.ndarray) -> View:
        """Start every lane from its own seed."""
        self.last = [self._told(lane.reset, int(seed) & 0xFFFFFFFF) for lane, seed in zip(self._lanes, seeds)]
        return self._view()

    def step(self, actions: np.ndarray) -> Step:
        """One joint action [E,I] or [E,I,A] in every lane that is not over."""
        reward = np.zeros((self.lanes, len(self._lanes[0].agents)), np.float32)
        for e, lane in enumerate(self._lanes):
            if not lane.over:
                self.last[e], reward[e] = self._told(lane.step, actions[e])
        over, timeout = (np.array([getattr(lane, name) for lane in self._lanes]) for name in ("over", "timeout"))
        wins = [lane.won for lane in self._lanes]
        won = None if all(win is None for win in wins) else np.array([bool(win) for win in wins])
        return Step(self._view(), reward, over, timeout, won)

    def close(self) -> None:
        """Close the environments."""
        for lane in self._lanes:
            lane.env.close()

    def _view(self) -> View:
        return View(*(None if part[0] is None else np.stack(part) for part in zip(*self.last)))

    def _told(self, function: Callable, value: Any) -> Any:
        """Call, and say of an error which file is at fault."""
        try:
            return function(value)
        except Exception as error:
            told = str(error) if isinstance(error, TaskError) else f"{function.__name__}() failed: {first_line(error)}"
            raise TaskError(f"{self.place}: {told}") from error


class PicturedEnvs(ParallelEnvs):
    """Lanes that can be watched: their task's file has pictures."""

    def scene(self, lane: int) -> Any:
        """What stays the same in an episode."""
        return self._told(self._lanes[lane].user.scene, self._lanes[lane].made)

    def frame(self, lane: int) -> np.ndarray:
        """What it looks like now: [K,C]."""
        return np.asarray(self._told(self._lanes[lane].user.frame, self._lanes[lane].made), float)


class Lane:
    """One episode."""

    def __init__(self, user: OwnTask):
        self.user = user
        self._make()
        if not (names := list(self.env.possible_agents)):
            raise TaskError("its possible_agents are none")
        self.agents = [Agent(a, self.env.observation_space(a), self.env.action_space(a)) for a in names]
        if len({agent.discrete for agent in self.agents}) > 1:
            raise TaskError("some agents act in discrete, others in continuous spaces; methods need one kind")
        self.discrete = self.agents[0].discrete
        self.size, self.actions = (max(getattr(a, key) for a in self.agents) for key in ("size", "width"))
        self.begun = False

    def _make(self) -> None:
        self.made = self.user.make()
        self.env = parallel(self.made)

    def reset(self, seed: int) -> View:
        """A new episode."""
        if self.user.fresh and self.begun:
            self.env.close()
            self._make()
        self.begun = True
        obs, infos = self.env.reset(seed=seed)
        self.over, self.timeout, self.won, self.t = False, False, None, 0
        self.has_state = self._has_state()
        return self._view(obs, infos, list(self.env.agents))

    def step(self, joint: np.ndarray) -> tuple[View, np.ndarray]:
        """What follows a joint action [I] or [I,A], and every agent's reward [I]."""
        acting, self.t = list(self.env.agents), self.t + 1
        sent = {agent.name: agent.action(choice) for agent, choice in zip(self.agents, joint) if agent.name in acting}
        obs, rewards, ended, cut, infos = self.env.step(sent)
        ended, cut = ({name for name in acting if flags.get(name)} for flags in (ended, cut))
        self._note_end(acting, ended, cut)
        if self.over:
            self.won = self.user.won(self.made, infos)
        living = self._living(acting, ended)
        if unpaid := [name for name in acting if name not in rewards]:
            raise TaskError(f"step {self.t}: {unpaid[0]} acted, but has no reward")
        return self._view(obs, infos, living), self._rewards(rewards)

    def _living(self, acting: list[str], ended: set[str]) -> list[str]:
        """Who may choose next, also after a time-out: an end of all of them is the clock's, not theirs."""
        if not self.over:
            return list(self.env.agents)
        return acting if self.timeout and ended >= set(acting) else [name for name in acting if name not in ended]

    def _note_end(self, acting: list[str], ended: set[str], cut: set[str]) -> None:
        """Whether the episode is over, and by the clock. Raises TaskError for agents that come or go without a word."""
        lost = set(acting) - set(self.env.agents) - ended - cut
        come = set(self.env.agents) - set(acting)
        if lost or come:
            what = "vanished without termination or truncation" if lost else "came (back) within an episode"
            raise TaskError(f"step {self.t}: {', '.join(sorted(lost or come))} {what}")
        self.over = set(acting) <= ended | cut or not self.env.agents
        self.timeout = self.over and bool(cut - ended)
        if self.t >= self.user.limit:
            self.timeout |= not self.over or self.user.clock == "limit"
            self.over = True

    def _rewards(self, found: Mapping[str, float]) -> np.ndarray:
        """[I], by the task's rule."""
        own = np.array([found.get(agent.name, 0.0) for agent in self.agents], np.float32)
        if not np.isfinite(own).all():
            raise TaskError(
                f"step {self.t}: {self.agents[int(np.argmin(np.isfinite(own)))].name}'s reward is no number"
            )
        if self.user.reward == "apart":
            return own
        return np.full_like(own, own.sum() if self.user.reward == "sum" else own.mean())

    def _view(self, obs: Mapping[str, Any], infos: Mapping[str, Any], living: list[str]) -> View:
        for name in living:
            if name not in obs:
                raise TaskError(f"step {self.t}: {name} plays, but has no observation")
        seen = np.zeros((len(self.agents), self.size), np.float32)
        for row, agent in zip(seen, self.agents):
            if agent.name in obs:
                row[: agent.size] = agent.observe(obs[agent.name], self.t)
        return View(seen, self._state(seen), self._legal(obs, infos, living) if self.discrete else None)

    def _has_state(self) -> bool:
        """Whether the environment has a state that is no image."""
        try:
            return np.size(self.env.state()) <= LARGEST_OBS
        except (AttributeError, NotImplementedError):
            return False

    def _state(self, seen: np.ndarray) -> np.ndarray:
        """[G]. Some environments have none any more when all agents are gone: then the last one stands."""
        try:
            found = self.user.state(self.made)
            if found is None:
                found = self.env.state() if self.has_state else seen
            state = np.array(found, np.float32).ravel()
        except Exception:
            if self.env.agents or not self.t:
                raise
            return self.state
        if self.t and state.size != self.state.size:
            raise TaskError(f"the state has {self.state.size} numbers at first, {state.size} at step {self.t}")
        if not np.isfinite(state).all():
            raise TaskError(f"step {self.t}: the state has something that is no number")
        self.state = state
        return state

    def _legal(self, obs: Mapping[str, Any], infos: Mapping[str, Any], living: list[str]) -> np.ndarray:
        """[I, A]. What follows a time-out is seen by living agents, though they act no more."""
        given = self.user.legal(self.made)
        if given is not None and len(given) != len(self.agents):
            raise TaskError(f"step {self.t}: legal() gives {len(given)} masks for {len(self.agents)} agents")
        masks = {} if given is None else dict(zip((agent.name for agent in self.agents), given))
        legal = np.zeros((len(self.agents), self.actions), bool)
        for row, agent in zip(legal, self.agents):
            if agent.name not in living:
                row[0] = True
                continue
            mask = masks.get(agent.name, _mask(obs.get(agent.name), infos.get(agent.name)))
            row[: agent.width] = True if mask is None else agent.mask(mask, self.t)
            if not row.any():
                if not self.over:
                    raise TaskError(f"step {self.t}: {agent.name}'s mask allows no action, but it plays")
                row[0] = True
        return legal


def parallel(env: Any) -> Any:
    """The environment as a ParallelEnv. Raises TaskError for one that is none, and says what it is."""
    if hasattr(env, "agent_iter"):
        raise TaskError("make() gives an AEC environment, where agents take turns; give its parallel_env()")
    if hasattr(env, "possible_agents") and hasattr(env, "step"):
        return env
    if isinstance(getattr(env, "observation_space", None), spaces.Tuple):
        return Tupled(env)
    raise TaskError(f"make() gives {type(env).__name__}: neither a ParallelEnv nor a Gymnasium one with Tuple spaces")


class Tupled:
    """A Gymnasium environment whose spaces are Tuples, one entry an agent, as a ParallelEnv."""

    def __init__(self, env: Any):
        self.env, self.close, self.agents = env, env.close, []
        self.possible_agents = [f"agent_{i}" for i in range(len(env.observation_space.spaces))]

    def observation_space(self, agent: str) -> Any:
        """Of one agent."""
        return self.env.observation_space[self.possible_agents.index(agent)]

    def action_space(self, agent: str) -> Any:
        """Of one agent."""
        return self.env.action_space[self.possible_agents.index(agent)]

    def state(self) -> Any:
        """The environment's own, where it has one."""
        return self.env.unwrapped.state()

    def reset(self, seed: int) -> tuple[Any, ...]:
        """Everybody plays."""
        obs, info = self.env.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._each(obs), self._each([info] * len(self.agents))

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, ...]:
        """All play until the end of the episode: ends of one agent alone do not stop it."""
        obs, reward, ended, cut, info = self.env.step(tuple(actions[agent] for agent in self.agents))
        ended, cut = (np.broadcast_to(flags, len(self.agents)) for flags in (ended, cut))
        over = bool((ended | cut).all())
        values = obs, np.broadcast_to(reward, len(self.agents)), ended & over, cut & over, [info] * len(self.agents)
        found = tuple(map(self._each, values))
        self.agents = [] if over else self.agents
        return found

    def _each(self, values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(self.possible_agents, values))


def _mask(obs: Any, info: Any) -> Any:
    """An agent's mask, in its observation or its info; None where there is none."""
    found = (part[MASK] for part in (obs, info) if isinstance(part, Mapping) and MASK in part)
    return next(found, None)
