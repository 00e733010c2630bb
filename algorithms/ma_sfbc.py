"""MA-SfBC: every agent samples actions from a diffusion model of the data and selects by its critic.

Paper: Chen et al. 2023 (SfBC), as the baseline of OM2P (AAMAS 2026), Table 1, which only says that each agent has its
own actor and critic. Official code: ChenDRAG/SfBC (single agent). Differences:

* score network and critic train at the same time; the code trains the score network, stores 16 of its actions for each
  state, and then trains a new critic in each round. Here the critic continues from the last round;
* the target of planning is R_t = r_t + discount max(R_{t+1}, V_{t+1}), as in the paper; the code's max(r_t + discount
  R_{t+1}, V_t) also raises the target of a bad action to the value of the model's other actions;
* returns end with the episode, at the clock too, as in the code: a suite that values what follows a time-out
  (`timeout_bootstrap`) does so for the others alone, and this critic is compared with returns that end so;
* batches of 256, as in OM2P's methods; the code has 4,096;
* the solver is multistep, second order, and clips the predicted data to [-1, 1]; the code's DPM-Solver is singlestep,
  third order, and does not clip. Both call the network 15 times;
* one candidate acts (`select`), as in the code outside locomotion; where the code averages four, so does the suite;
* the critic has SfBC's two layers of 256, with GELU for SiLU; OM2P gives critics four layers of 512 in general.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data, TaskSpec
from offmarl.algorithms.parts.config import BaseConfig, size
from offmarl.algorithms.parts.diffusion import denoise, diffuse, solver, vp
from offmarl.algorithms.parts.nets import AgentNet, Linear, keep_weights
from offmarl.algorithms.parts.returns import returns_to_go
from offmarl.algorithms.parts.streams import SeedStreams

EMBEDDING = 32  # of the time, and of the observation
FREQUENCY = 30.0  # standard deviation of the random frequencies of the time
EARLIEST = 1e-5  # smallest diffusion time in training
LEAST_STD = 0.1  # smallest standard deviation of returns in their normalisation
PLANNED_ROWS = 1024  # actions of each agent that planning samples at once


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MA-SfBC."""

    hidden: tuple[int, ...] = size((256, 256), tiny=(16, 16))  # of the critic
    widths: tuple[int, ...] = size((512, 256, 128), tiny=(16, 8, 8))  # of the score network, going down
    batch_size: int = 256
    learning_rate: float = 1e-4
    critic_learning_rate: float = 1e-3  # 0: as the score network's
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    share_parameters: bool = False  # fully decentralised
    solver_calls: int = size(15, tiny=3)  # of the score network per action
    candidates: int = size(32, tiny=4)  # sampled actions of one decision
    select: int = 1  # of the candidates, sampled without replacement and averaged
    act_weight: float = 100.0  # of the normalised value in a candidate's logit
    rounds: int = 2  # of the critic: the first learns returns of the data, the others plan
    round_updates: int = 500_000  # per round: half of OM2P's updates
    plan_candidates: int = size(16, tiny=2)  # sampled actions for the value of a state
    plan_weight: float = 20.0  # of the normalised value in the average over them

    def __post_init__(self) -> None:
        """Check that enough actions are sampled.

        Raises:
            ValueError: naming the setting.
        """
        super().__post_init__()
        if not 1 <= self.select <= self.candidates:
            raise ValueError(f"select={self.select}: an agent has {self.candidates} candidates to choose from")


class MASfBC(Algorithm):
    """Independent diffusion models of the behaviour policy, and critics."""

    name = "ma_sfbc"
    title = "MA-SfBC"
    paper = "OM2P (AAMAS 2026), Table 1 (baseline)"
    source_code = "https://github.com/ChenDRAG/SfBC"
    actions = frozenset({"continuous"})
    Config = Config
    tunes = {"act_weight": (10.0, 30.0, 100.0, 300.0), "plan_weight": (10.0, 20.0)}

    def build(self) -> None:
        """The score network and the critic."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["score"] = ScoreNet(streams, spec, config.widths, config.share_parameters)
        self.nets["critic"] = AgentNet(streams, spec, config, spec.obs + spec.actions, 1)
        scale = torch.zeros(len(self.seeds), spec.agents), torch.ones(len(self.seeds), spec.agents)
        self.nets["scale"] = nn.ParameterList(scale).requires_grad_(False)
        self.chain = solver(config.solver_calls, self.device)

    def learning_rates(self) -> dict[str, float]:
        """The critic's."""
        return {"critic": self.config.critic_learning_rate or self.config.learning_rate}

    def prepare(self, data: Data) -> Data:
        """The targets of the first round: returns of the data. Every episode ends where its data do."""
        self.data = data
        returns = returns_to_go(data.rewards, data.last, self.config.discount).expand(len(self.seeds), -1, -1)
        # At a fixed address, for CUDA graphs.
        self.targets = torch.empty_like(returns, memory_format=torch.contiguous_format)
        self.set_targets(returns)
        return data._replace(done=torch.maximum(data.done, data.last.to(data.done.dtype)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Denoising, and regression to the targets of the round."""
        return {"score": self.score_loss(batch), "critic": self.critic_loss(batch)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """Candidates sampled by softmax(act_weight Q), without replacement by Gumbel noise, and averaged."""
        shape = (obs.shape[1], self.config.candidates, obs.shape[2])
        actions, q = self.propose(obs, self.acting_noise(*shape, self.spec.actions))
        logits = self.config.act_weight * q + gumbel(self.acting_noise(*shape, call=1))
        chosen = logits.topk(self.config.select, 2).indices[..., None]  # [S, E, select, I, 1]
        return actions.take_along_dim(chosen, 2).mean(2).clamp(-1.0, 1.0), memory

    def acting_rule(self) -> str:
        """Noise of every candidate, and a draw among them."""
        return "normal noise, and a draw among the candidates"

    def nfe(self) -> int:
        """The calls of the solver, and one of the critic for all candidates."""
        return self.config.solver_calls + 1

    def begin_update(self) -> None:
        """Plan new targets at the start of each round but the first."""
        rounds, updates = divmod(self.updates, self.config.round_updates)
        if updates == 0 and 0 < rounds < self.config.rounds:
            self.plan()
        super().begin_update()

    def critic_loss(self, batch: Batch) -> Tensor:
        """Squared error of the normalised return of each agent."""
        target = self.targets.take_along_dim(batch.number[..., None], 1)
        return (self.nets["critic"](batch.obs, batch.actions)[..., 0] - target).square().mean((1, 2))

    def score_loss(self, batch: Batch) -> Tensor:
        """Squared error of the predicted noise, summed over coordinates, with an own time for each agent."""
        noise = self.streams.normal(*batch.actions.shape[1:])
        time = EARLIEST + (1.0 - EARLIEST) * self.streams.uniform(*batch.actions.shape[1:-1])
        noisy = diffuse(batch.actions, noise, vp(time)[..., None])
        return (self.nets["score"](batch.obs, noisy, time) - noise).square().sum(-1).mean((1, 2))

    @torch.no_grad()
    def plan(self) -> None:
        """Set targets by in-sample planning: returns, or values where those are higher (Eq. 12 of SfBC)."""
        states = max(1, PLANNED_ROWS // self.config.plan_candidates)
        values = [self.value(self.data.obs[rows]) for rows in self.data.rows.split(states)]
        values = self.unscaled(torch.cat(values, 1)).transpose(0, 1)  # [N, S, I]
        rewards = self.data.rewards[:, None].expand_as(values)
        self.set_targets(returns_to_go(rewards, self.data.last, self.config.discount, values).transpose(0, 1))

    def value(self, obs: Tensor) -> Tensor:
        """Normalised values of obs [N,I,O]: averages over sampled actions by softmax(plan_weight Q), [S,N,I]."""
        noise = self.streams.normal(len(obs), self.config.plan_candidates, self.spec.agents, self.spec.actions)
        _, q = self.propose(obs.expand(len(self.seeds), *obs.shape), noise)
        return ((self.config.plan_weight * q).softmax(2) * q).sum(2)

    def propose(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of the model [S,E,C,I,A] from noise of that shape at obs [S,E,I,O], and their values [S,E,C,I]."""
        E, C = noise.shape[1:3]
        start = noise.flatten(1, 2)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            return self.nets["score"](obs, x, time.expand(obs.shape[:-1]))

        actions = denoise(self.chain, predict, lambda k: start)  # the solver adds no noise
        q = self.nets["critic"](obs.repeat_interleave(C, 1), actions)[..., 0]
        return actions.unflatten(1, (E, C)), q.unflatten(1, (E, C))

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of returns as they are, not normalised."""
        values = self.nets["critic"](batch.obs, batch.actions)[..., 0]
        return self.unscaled(values).mean((1, 2))

    @property
    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation [S,1,I] of the returns that the targets are made of; a trained policy keeps them."""
        mean, std = (self.nets.get_parameter(f"scale.{k}") for k in range(2))
        return mean[:, None], std[:, None]

    def unscaled(self, values: Tensor) -> Tensor:
        """The returns [S,N,I] that normalised values mean."""
        mean, std = self.scale
        return mean + std * values

    @torch.no_grad()
    def set_targets(self, returns: Tensor) -> None:
        """Set the targets to returns [S,N,I], normalised for each agent."""
        mean, std = self.scale
        mean.copy_(returns.mean(1, keepdim=True))
        std.copy_(returns.std(1, correction=0, keepdim=True).clamp(min=LEAST_STD))
        self.targets.copy_((returns - mean) / std)

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact resume needs, with the targets."""
        return super().state_dict() | {"targets": self.targets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`."""
        super().load_state_dict(state)
        self.targets.copy_(state["targets"])


class ScoreNet(nn.Module):
    """The noise in an agent's noisy action: residual blocks down and up through the widths, with skip connections.

    Observation and time condition every block, computed once for all candidates. Agents share weights or not, as in
    `AgentNet`.
    """

    def __init__(self, streams: SeedStreams, spec: TaskSpec, widths: tuple[int, ...], share_parameters: bool):
        super().__init__()
        self.shared, copies = share_parameters, 1 if share_parameters else spec.agents

        def linear(n_in: int, n_out: int) -> Linear:
            return Linear(streams, copies, n_in, n_out)

        narrow = widths[-1]  # width of the middle block and of the condition
        self.ids: Tensor
        self.frequencies: Tensor
        self.register_buffer("ids", torch.eye(spec.agents), persistent=False)
        self.register_buffer("frequencies", FREQUENCY * streams.normal(copies, 1, EMBEDDING // 2).flatten(0, 1))
        self.time = linear(EMBEDDING, EMBEDDING)
        self.obs = linear(spec.obs + (spec.agents if share_parameters else 0), EMBEDDING)
        self.condition = nn.ModuleList([linear(2 * EMBEDDING, narrow), linear(narrow, narrow)])
        self.down = nn.ModuleList(Block(linear, a, b, narrow) for a, b in pairwise((spec.actions, *widths)))
        self.middle = Block(linear, narrow, narrow, narrow)
        self.up = nn.ModuleList(Block(linear, 2 * a, b, narrow) for a, b in pairwise(widths[::-1]))
        self.head = linear(2 * widths[0], spec.actions)

    def keep_agent(self, agent: int) -> None:
        """Keep only this agent's part: inputs are [S, B, 1, *] from now on."""
        if self.shared:
            self.ids = self.ids[agent : agent + 1]
        else:
            agents = len(self.ids)
            keep_weights(self, agents, agent)
            self.frequencies = self.frequencies.unflatten(0, (-1, agents))[:, agent]

    def forward(self, obs: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """The noise in actions [S,B*C,I,A], C for each observation [S,B,I,O], at times [S,B,I] in [0, 1]."""
        S, B, I, _ = obs.shape
        obs = torch.cat([obs, self.ids.expand(S, B, -1, -1)], -1) if self.shared else obs
        obs, x, time = (self.grouped(part) for part in (obs, noisy, time[..., None]))
        angle = 2.0 * math.pi * time * self.frequencies  # [G, N, EMBEDDING / 2]
        known = torch.cat([F.silu(self.obs(obs)), self.time(torch.cat([angle.sin(), angle.cos()], -1))], -1)
        condition = F.silu(self.condition[1](F.silu(self.condition[0](known))))
        skips = []
        for block in self.down:
            x = block(x, condition)
            skips.append(x)
        x = self.middle(x, condition)
        for block in self.up:
            x = block(torch.cat([skips.pop(), x], -1), condition)
        return self.head(torch.cat([skips.pop(), x], -1)).view(S, I, -1, noisy.shape[-1]).transpose(1, 2)

    def grouped(self, part: Tensor) -> Tensor:
        """Inputs of the agents by groups of weights: [S,B,I,*] -> [G,N,*]."""
        return part.transpose(1, 2).reshape(len(self.frequencies), -1, part.shape[-1])


class Block(nn.Module):
    """Two layers with the condition added between them, and a residual connection."""

    def __init__(self, linear: Callable[[int, int], Linear], n_in: int, n_out: int, n_condition: int):
        super().__init__()
        self.first, self.condition, self.second = linear(n_in, n_out), linear(n_condition, n_out), linear(n_out, n_out)
        self.residual = linear(n_in, n_out) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [G,N*C,in], condition [G,N,*] -> [G,N*C,out]."""
        between = F.silu(self.first(x)).unflatten(1, (condition.shape[1], -1)) + self.condition(condition)[:, :, None]
        return F.silu(self.second(between.flatten(1, 2))) + self.residual(x)


def gumbel(normal: Tensor) -> Tensor:
    """Standard Gumbel draws from standard normal ones: the argmax of logits plus these samples their softmax."""
    return -(-torch.special.log_ndtr(normal)).log()
