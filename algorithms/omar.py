"""OMAR: conservative critics, and policies drawn to the best action that a small search finds.

Paper: Pan et al. 2022 (OMAR); hyperparameters of MAC-Flow's Appendix F.1. Official code: ling-pan/OMAR. Critics are
independent and local; the conservative term samples uniform actions, as the code does on particle worlds
(`cql_policy` adds the policy's, as it does on robots, where it subtracts a density for a log-density). The search is
the cross-entropy method with elites kept from one iteration to the next; the code's other form, for particle worlds,
weights all samples by a softmax (`search: softmax`). `released` has the code's sizes and rates for particle worlds;
its weights per dataset (coefficient 0.1-1, conservative weight 0.5-5) and its batch normalisation are not reproduced.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.nets import frozen, policy_net, polyak, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of OMAR."""

    cql_weight: float = 3.0  # of the conservative term
    cql_actions: int = 10  # random actions in it
    cql_policy: bool = False  # as many of the policy, here and next, with the deviation below
    cql_deviation: float = 0.2
    coefficient: float = 0.7  # of imitating the search against climbing the critic
    search: str = choice("elites", "softmax")  # what moves the search's distribution
    search_steps: int = 3
    search_actions: int = 10
    search_elites: int = 10
    search_deviation: float = 2.0  # of the first step
    penalty: float = 1e-3  # on the size of actions


class OMAR(Algorithm):
    """Deterministic policies and conservative twin critics, each agent on its own."""

    name = "omar"
    title = "OMAR"
    paper = "Plan Better Amid Conservatism, ICML 2022"
    source_code = "https://github.com/ling-pan/OMAR"
    actions = frozenset({"continuous"})
    Config = Config
    variants = {
        "released": {
            "hidden": (64, 64),
            "learning_rate": 0.01,
            "polyak": 0.01,
            "discount": 0.95,
            "batch_size": 1024,
            "share_parameters": False,
            "search": "softmax",
            "max_grad_norm": 0.5,
        },
        "quick": {"cql_actions": 3, "search_steps": 2, "search_actions": 4, "search_elites": 4},
    }

    def build(self) -> None:
        """Policy, twin critics and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = policy_net(streams, spec, config, spec.actions)
        self.nets["critic"] = twin_critic(streams, spec, config)
        for name in ("policy", "critic"):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Conservative critics, and the policy's two wishes."""
        return self.critic_losses(batch) | self.policy_losses(batch)

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """What the policy says."""
        return self.nets["policy"](obs).tanh(), memory

    def nfe(self) -> int:
        """One pass of the policy."""
        return 1

    def after_update(self) -> None:
        """Polyak averaging."""
        for name in ("policy", "critic"):
            polyak(self.nets[f"target_{name}"], self.nets[name], self.config.polyak)

    def critic_losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error of every agent on its own reward, and the conservative term."""
        with torch.no_grad():
            next_actions = self.nets["target_policy"](batch.next_obs).tanh()
            next_q = self.nets["target_critic"](batch.next_obs, next_actions)[..., 0].amin(1)
            target = batch.rewards + self.config.discount * (1.0 - batch.done)[..., None] * next_q
            proposed, log_density = self.propose(batch)
        # One pass for the data's actions and the proposed ones.
        q = self.each(batch.obs, torch.cat([batch.actions[:, None], proposed], 1))  # [S, 2, 1 + N, B, I]
        soft = (q[:, :, 1:] - log_density[:, None]).logsumexp(2)
        return {
            "critic": (q[:, :, 0] - target[:, None]).square().mean((2, 3)).sum(1),
            "conservative": self.config.cql_weight * (soft - q[:, :, 0]).mean((2, 3)).sum(1),
        }

    def propose(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Actions outside the data [S,N,B,I,A], and the logarithms of their densities [S,N,B,I]."""
        B, I, A = batch.actions.shape[1:]
        N, deviation = self.config.cql_actions, self.config.cql_deviation
        actions = [2.0 * self.streams.uniform(N, B, I, A) - 1.0]
        density = [torch.full(actions[0].shape[:-1], -A * math.log(2.0), device=self.device)]
        for obs in (batch.obs, batch.next_obs) if self.config.cql_policy else ():
            noise = self.streams.normal(N, B, I, A)
            actions.append((self.nets["policy"](obs).tanh()[:, None] + deviation * noise).clamp(-1.0, 1.0))
            density.append((-0.5 * noise.square() - math.log(deviation * math.sqrt(2.0 * math.pi))).sum(-1))
        return torch.cat(actions, 1), torch.cat(density, 1)

    def policy_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Imitation of the search, minus the first critic's value, and a penalty on size."""
        actions, c = self.nets["policy"](batch.obs).tanh(), self.config.coefficient
        best = self.search(batch.obs, actions.detach())
        with frozen(self.nets["critic"]):
            value = self.nets["critic"](batch.obs, actions)[:, 0, ..., 0]
        return {
            "imitation": c * (actions - best).square().mean((1, 2, 3)),
            "q": -(1.0 - c) * value.mean((1, 2)),
            "penalty": self.config.penalty * actions.square().mean((1, 2, 3)),
        }

    @torch.no_grad()
    def search(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The best by the first critic of the cross-entropy method's last samples and the policy's own: [S,B,I,A]."""
        config = self.config
        mean, deviation = torch.zeros_like(actions), torch.full_like(actions, config.search_deviation)
        kept, kept_q = actions[:, None][:, :0], actions[:, None, ..., 0][:, :0]
        samples, q = kept, kept_q
        for _ in range(config.search_steps):
            noise = self.streams.normal(config.search_actions, *actions.shape[1:])
            samples = (mean[:, None] + deviation[:, None] * noise).clamp(-1.0, 1.0)
            q = self.each(obs, samples)[:, 0]  # [S, N, B, I]
            if config.search == "elites":
                kept, kept_q = best_of(torch.cat([kept, samples], 1), torch.cat([kept_q, q], 1), config.search_elites)
                mean, deviation = kept.mean(1), kept.std(1, correction=0)
            else:
                weight = q.softmax(1)[..., None]
                mean = (weight * samples).sum(1)
                deviation = (weight * (samples - mean[:, None]).square()).sum(1).sqrt()
        own = self.nets["critic"](obs, actions)[:, :1, ..., 0]
        return best_of(torch.cat([samples, actions[:, None]], 1), torch.cat([q, own], 1), 1)[0][:, 0]

    def each(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The critics' values of N actions at every observation: [S,N,B,I,A] -> [S,2,N,B,I]."""
        N, B = actions.shape[1:3]
        return self.nets["critic"](obs.repeat(1, N, 1, 1), actions.flatten(1, 2))[..., 0].unflatten(2, (N, B))


def best_of(actions: Tensor, q: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` actions of highest value: actions [S,N,B,I,A] by q [S,N,B,I]."""
    q, index = q.topk(count, 1)
    return actions.gather(1, index[..., None].expand(*index.shape, actions.shape[-1])), q
