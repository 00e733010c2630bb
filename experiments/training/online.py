"""Online fine-tuning: batches of what the method itself has just played (MAC-Flow, RQ3, Figure 5).

As in the released code, every update follows one step of each parallel episode, losses and optimiser stay as they
are, and batches hold online transitions alone, or a share of offline data beside them. Methods explore as
`Algorithm.exploring` says; noise may be added to policies without noise of their own. Evaluation has simulators of its
own, and so has every seed, so that its numbers do not depend on which seeds train beside it.
Shapes: S seeds, E parallel episodes of each, B batch, I agents, O observation, A actions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.benchmarks.env import BatchEnv, Step, View
from offmarl.benchmarks.rollout import lane_seeds
from offmarl.datasets.sampler import Sampler

FIRST_EPISODE = 5_000_000  # of a seed's episode numbers: far from those of evaluation


class OnlineSampler:
    """Draws batches as a `Sampler` does, and plays before each.

    `envs` are a simulator for every seed, all of one size; `rounds` is the number of batches that will be drawn;
    `offline` gives batches of the data, with their share of every batch; `noise` is the standard deviation of normal
    noise on continuous actions. With `timeout_bootstrap`, what follows a time-out is valued.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        envs: Sequence[BatchEnv],
        rounds: int,
        offline: tuple[Sampler, float],
        noise: float,
        timeout_bootstrap: bool = False,
    ):
        self.algorithm, self.envs, self.noise = algorithm, envs, noise
        self.timeout_bootstrap = timeout_bootstrap
        self.offline, self.share = offline
        self.streams = SeedStreams(algorithm.seeds, "exploring", algorithm.device)
        self.games = [Games(env, seed) for env, seed in zip(envs, algorithm.seeds, strict=True)]
        self.capacity = (rounds + algorithm.config.batch_size) * envs[0].lanes
        self.kept: dict[str, Tensor] = {}  # by field of a batch: [S, capacity, ...]
        self.count = torch.zeros(len(envs), dtype=torch.int64)
        self.before = torch.full((len(envs), envs[0].lanes), -1)  # index of each episode's last transition

    def sample(self, size: int) -> Batch:
        """Play a step, for the first batch as many as it has transitions; draw `size` for each seed [S, B, ...]."""
        for _ in range(1 if self.kept else size):
            self.play()
        given = round(self.share * size)
        own = self._draw(size - given)
        if not given:
            return own
        pairs: Any = zip(own, self.offline.sample(given))
        both: list[Any] = [None if mine is None else torch.cat([mine, theirs], 1) for mine, theirs in pairs]
        return Batch(*both)

    def play(self) -> None:
        """One step in every episode under way; a seed whose episodes are all over begins new ones."""
        views = [game.view for game in self.games]
        obs, legal = (_stack([view[k] for view in views], self.algorithm.device) for k in (0, 2))
        with self.algorithm.exploring(self.streams):
            actions, _ = self.algorithm.act(obs, legal)  # type: ignore[arg-type]
        if self.noise and not self.algorithm.spec.discrete:
            actions = (actions + self.noise * self.streams.normal(*actions.shape[1:])).clamp(-1, 1)
        actions = actions.nan_to_num()  # NaN of one seed must not break the others' simulators
        for k, game in enumerate(self.games):
            self._keep(k, game, actions[k])

    def close(self) -> None:
        """Release the simulators."""
        for env in self.envs:
            env.close()

    def _keep(self, k: int, game: "Games", actions: Tensor) -> None:
        """Take the actions [E, I(, A)] in seed k's episodes; keep the transitions of those that were under way."""
        view, live = game.view, np.flatnonzero(~game.over)
        step = game.play(actions.cpu().numpy())
        if step.void is not None:
            live = live[~step.void[live]]
        rewards = step.reward if step.reward.ndim == 2 else np.repeat(step.reward[:, None], view.obs.shape[1], 1)
        columns = {"obs": view.obs, "state": view.state, "legal": view.legal, "rewards": rewards.astype(np.float32)}
        columns |= {"next_obs": step.view.obs, "next_state": step.view.state, "next_legal": step.view.legal}
        ends = step.done & ~step.timeout if self.timeout_bootstrap else step.done
        columns |= {"done": ends.astype(np.float32), "actions": actions, "next_actions": actions}
        lanes = torch.from_numpy(live)
        place = int(self.count[k]) + torch.arange(len(live))
        for name, values in columns.items():
            if values is not None:
                column = torch.as_tensor(values)
                self._column(name, column)[k, place] = column[lanes].to(actions.device)
        before = self.before[k, lanes]  # whose next action is known now
        self.kept["next_actions"][k, before[before >= 0]] = actions[lanes[before >= 0]]
        self.before[k, lanes] = torch.where(torch.from_numpy(step.done[live]), -1, place)
        self.count[k] += len(live)
        if game.over.all():
            game.begin()
            self.before[k] = -1

    def _column(self, name: str, like: Tensor) -> Tensor:
        """The buffer of a field, allocated when its first values arrive."""
        if name not in self.kept:
            shape = (len(self.envs), self.capacity, *like.shape[1:])
            self.kept[name] = torch.empty(shape, dtype=like.dtype, device=self.algorithm.device)
        return self.kept[name]

    def _draw(self, size: int) -> Batch:
        """A batch of what every seed has kept, drawn uniformly with replacement."""
        draws = self.streams.uniform(size)
        index = (draws * self.count.to(draws.device)[:, None]).long()
        seeds = torch.arange(len(self.envs), device=index.device)[:, None]
        fields = {name: self.kept[name][seeds, index] if name in self.kept else None for name in Batch._fields}
        return Batch(**fields | {"number": index})  # type: ignore[arg-type]


class Games:
    """One seed's parallel episodes. All begin together, once the last ones are over."""

    def __init__(self, env: BatchEnv, seed: int):
        self.env, self.seed, self.episodes = env, seed, FIRST_EPISODE
        self.begin()

    def begin(self) -> None:
        """Begin new episodes in all lanes."""
        self.view: View = self.env.reset(lane_seeds([self.seed], self.env.lanes, self.episodes))
        self.over = np.zeros(self.env.lanes, bool)
        self.episodes += self.env.lanes

    def play(self, actions: np.ndarray) -> Step:
        """Take one joint action in every lane; the results of episodes that are over are meaningless."""
        step = self.env.step(actions)
        self.view, self.over = step.view, self.over | step.done
        return step


def _stack(parts: Sequence[np.ndarray | None], device: torch.device) -> Tensor | None:
    return None if parts[0] is None else torch.from_numpy(np.stack(parts)).to(device)  # type: ignore[arg-type]
