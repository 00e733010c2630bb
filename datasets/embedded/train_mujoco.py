"""Train the behaviour policies behind the embedded robot data: `offmarl data train-behaviour mamujoco/3hopper`.

They learn by PPO (Schulman et al. 2017), with noise on actions that falls to what they are recorded with: so the data
cover the actions around a policy as well as its own. Snapshots of independent runs are measured as they will be
recorded; those are kept whose mixture has the mean and the deviation of the real dataset's returns.
Shapes: E episodes, T steps, J networks (1, or one per agent) of n inputs and k outputs.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from offmarl.benchmarks.env import View
from offmarl.benchmarks.mamujoco import ROBOTS, MaMujocoEnv
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.embedded.actors import save
from offmarl.datasets.embedded.mujoco_policies import Moments, Pilot, Snapshot, choose, forward, senses
from offmarl.datasets.embedded.recipes import Training

SNAPSHOTS, EPISODES = 24, 10  # snapshots of a run, at most; episodes that each is measured on
HIDDEN, LANES, BATCH, MINIBATCH, EPOCHS = 64, 2, 2000, 256, 10
GAMMA, LAMBDA, CLIP, LEARNING_RATE, MAX_GRADIENT, REWARD_SCALE = 0.99, 0.95, 0.2, 3e-4, 0.5, 0.03
EXPLORATION = 0.6  # standard deviation of PPO's first actions


class Played(NamedTuple):
    """Parallel episodes; rows after the end of an episode have no meaning."""

    view: View  # of T + 1 rows
    action: np.ndarray  # [T,E,I,A]
    reward: np.ndarray  # [T,E]
    live: np.ndarray  # [T,E] bool
    timeout: np.ndarray  # [E] bool


def train_behaviours(
    task: Task, targets: dict[str, tuple[float, float]], budget: Training, out: Path
) -> dict[str, list]:
    """Train `budget.runs` runs, choose snapshots that come nearest the targets (mean, deviation), and write them.

    Returns for each quality the (run, steps, mean return) of every chosen snapshot.
    """
    runs = [train(task, budget.seed + run, budget) for run in range(budget.runs)]
    chosen = {q: choose(runs, target, q.endswith("replay")) for q, target in targets.items()}
    save(out, chosen)
    return {q: [(r, s.steps, round(s.score, 1)) for r, s in pairs] for q, pairs in chosen.items()}


def train(task: Task, seed: int, budget: Training) -> list[Snapshot]:
    """One run's snapshots, the untrained policy first."""
    judge, steps = MaMujocoEnv(task, EPISODES), budget.steps
    snapshots: list[Snapshot] = []
    with tqdm(total=steps, desc=f"{task.name} run {seed}", unit="step", unit_scale=True) as bar:
        for done, weights in ppo(task, seed, budget):
            if done < len(snapshots) * steps / SNAPSHOTS and done < steps:
                continue
            weights = [w.astype(np.float16) for w in weights]
            pilot, rng = Pilot(weights, budget.noise), np.random.default_rng(seed)
            played = play(judge, lambda view: pilot(view, rng), np.arange(EPISODES))  # noqa: B023
            returns = (played.reward * played.live).sum(0)
            snapshots.append(Snapshot(done, float(returns.mean()), float(returns.std()), weights))
            bar.set_postfix(score=f"{returns.mean():.0f}±{returns.std():.0f}")
            bar.update(min(done, steps) - bar.n)
            if done >= steps:
                break
    return snapshots


def play(env: MaMujocoEnv, act: Callable[[View], np.ndarray], seeds: np.ndarray) -> Played:
    """One episode in every lane."""
    view = env.reset(seeds)
    views, rows, over, timeout = [view], [], np.zeros(env.lanes, bool), np.zeros(env.lanes, bool)
    while not over.all():
        action = act(view)
        step = env.step(action)
        rows.append((action, step.reward, ~over))
        views.append(view := step.view)
        over, timeout = step.done, step.timeout
    stacked = View(np.stack([v.obs for v in views]), np.stack([v.state for v in views]), None)
    actions, rewards, live = (np.stack(column) for column in zip(*rows))
    return Played(stacked, actions, rewards, live, timeout)


def _shape(task: Task) -> tuple[int, int, int]:
    """Networks J, their inputs n and outputs k, without contact forces, which are always zero."""
    robot = ROBOTS[task.short]
    if robot.partition:
        return task.agents, task.obs, task.actions
    return 1, task.state - robot.contacts, task.agents * task.actions


def _inputs(played: Played, networks: int, inputs: int) -> np.ndarray:
    """The networks' inputs at all steps before the ends of episodes: [B,J,n]."""
    rows = View(*(None if part is None else part[:-1][played.live] for part in played.view))
    return senses(rows, networks, inputs).astype(np.float64)


def ppo(task: Task, seed: int, budget: Training) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Proximal policy optimisation on whole episodes: steps so far and weights after every update.

    The noise falls from EXPLORATION to the budget's, with which the last policies are trained and all are recorded.
    """
    learner, used = Learner(task, seed), 0
    while True:
        yield used, learner.weights()
        left = max(1 - used / budget.steps, 0.0)
        learner.std = budget.noise + left * (EXPLORATION - budget.noise)
        learner.optimiser.param_groups[0]["lr"] = LEARNING_RATE * max(left, 0.05)
        used += learner.update()


class Learner:
    """PPO's actor, a Gaussian around a perceptron, and its critic."""

    def __init__(self, task: Task, seed: int):
        self.env, self.shape = MaMujocoEnv(task, LANES), _shape(task)
        self.facts = task.state - ROBOTS[task.short].contacts
        self.rng, self.torch = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        networks, inputs, outputs = self.shape
        self.actor = self._network(networks, inputs, outputs, 0.01)
        self.critic = self._network(1, self.facts, 1, 1.0)
        self.std = EXPLORATION
        self.optimiser = torch.optim.Adam([*self.actor, *self.critic], LEARNING_RATE, eps=1e-5)
        played = play(self.env, lambda view: self.rng.uniform(-1, 1, self._joint(view)), self._seeds())
        self.seen, self.known = Moments(_inputs(played, networks, inputs)), Moments(_inputs(played, 1, self.facts))

    def weights(self) -> list[np.ndarray]:
        """The actor for raw inputs."""
        w, b, *rest = (t.detach().numpy() for t in self.actor)
        return [*self.seen.fold(w, b), *rest]

    def update(self) -> int:
        """Play at least BATCH steps, then train on them; returns their number."""
        weights = [w.astype(np.float32) for w in self.weights()]

        def act(view: View) -> np.ndarray:
            mean = forward(weights, senses(view, *self.shape[:2]))
            return (mean + self.std * self.rng.standard_normal(mean.shape, np.float32)).reshape(self._joint(view))

        games: list[Played] = []
        while sum(game.live.sum() for game in games) < BATCH:
            games.append(play(self.env, act, self._seeds()))
        seen = np.concatenate([_inputs(game, *self.shape[:2]) for game in games])
        known = np.concatenate([_inputs(game, 1, self.facts) for game in games])
        action = np.concatenate([game.action[game.live] for game in games]).reshape(len(seen), self.shape[0], -1)
        advantage = np.concatenate([self._advantage(game) for game in games])
        rows = [torch.from_numpy(r) for r in (self.seen.normal(seen), self.known.normal(known), action, advantage)]
        with torch.no_grad():
            rows += [self._log_p(rows[0], rows[2]), rows[3] + forward(self.critic, rows[1], torch.tanh)[:, 0, 0]]
        rows[3] = (rows[3] - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(EPOCHS):
            for index in torch.randperm(len(seen), generator=self.torch).split(MINIBATCH):
                self._fit(*(row[index] for row in rows))
        self.seen.add(seen)
        self.known.add(known)
        return len(seen)

    def _fit(self, seen: Any, known: Any, action: Any, advantage: Any, before: Any, target: Any) -> None:
        ratio = (self._log_p(seen, action) - before).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
        error = (forward(self.critic, known, torch.tanh)[:, 0, 0] - target).square().mean()
        self.optimiser.zero_grad()
        (0.5 * error - gain).backward()
        torch.nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], MAX_GRADIENT)
        self.optimiser.step()

    def _log_p(self, seen: Any, action: Any) -> Any:
        mean = forward(self.actor, seen, torch.tanh)
        return torch.distributions.Normal(mean, self.std).log_prob(action).sum((1, 2))

    def _advantage(self, played: Played) -> np.ndarray:
        """Generalised advantage estimates [B] (Schulman et al. 2016); values after a time-out count."""
        facts = torch.from_numpy(self.known.normal(played.view.state[:, :, None, : self.facts]))
        with torch.no_grad():
            value = forward(self.critic, facts.flatten(0, 1), torch.tanh).reshape(facts.shape[:2]).numpy()
        goes_on = np.concatenate([played.live[1:], np.zeros_like(played.live[:1])])
        delta = REWARD_SCALE * played.reward + GAMMA * (goes_on | played.timeout) * value[1:] - value[:-1]
        ahead, advantage = np.zeros(delta.shape[1]), np.zeros(delta.shape, np.float32)
        for t in reversed(range(len(delta))):
            advantage[t] = ahead = delta[t] + GAMMA * LAMBDA * goes_on[t] * ahead
        return advantage[played.live]

    def _joint(self, view: View) -> tuple[int, ...]:
        return (*view.obs.shape[:2], self.env.task.actions)

    def _seeds(self) -> np.ndarray:
        return self.rng.integers(2**31, size=LANES)

    def _network(self, networks: int, inputs: int, outputs: int, last: float) -> list[torch.Tensor]:
        layers = []
        for n, k, gain in ((inputs, HIDDEN, 2**0.5), (HIDDEN, HIDDEN, 2**0.5), (HIDDEN, outputs, last)):
            w = torch.empty(networks, n, k)
            for one in w:
                torch.nn.init.orthogonal_(one, gain, generator=self.torch)
            layers += [w, torch.zeros(networks, k)]
        return [t.requires_grad_() for t in layers]
