"""OMAR: conservative critics, and policies that imitate the best action of a zeroth-order search.

Paper: Pan et al. 2022 (OMAR); hyperparameters of MAC-Flow's Appendix F.1. Official code: ling-pan/OMAR. Critics are
independent and local, and each agent has networks of its own, as in the code. The conservative term samples uniform
actions, as the code does on MPE; `cql_policy` adds samples of the policy, as the code does on MaMuJoCo (where it
subtracts a density instead of a log-density). The search is the cross-entropy method with elites kept between
iterations; on MPE the code weights all samples by a softmax (`search: softmax`). `released` has the code's sizes and
rates for MPE, without its weights per dataset (coefficient 0.1-1, conservative weight 0.5-5) and its batch
normalisation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.nets import frozen, policy_net, target_copy, twin_critic


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of OMAR."""

    share_parameters: bool = False  # as in the code
    cql_weight: float = 3.0  # of the conservative term
    cql_actions: int = size(10, tiny=2)  # uniform samples in the conservative term
    cql_policy: bool = False  # add samples of the policy at obs and next_obs
    cql_deviation: float = 0.2  # standard deviation of the policy's samples
    coefficient: float = 0.7  # of imitation; Q maximisation has 1 - coefficient
    search: str = choice("elites", "softmax")  # that update the search's distribution
    search_steps: int = size(3, tiny=2)  # iterations
    search_actions: int = size(10, tiny=4)  # samples per iteration
    search_elites: int = size(10, tiny=2)  # samples kept
    search_deviation: float = 2.0  # standard deviation of the first iteration
    penalty: float = 1e-3  # on squared actions


class OMAR(Algorithm):
    """Independent deterministic policies and conservative twin critics."""

    name = "omar"
    title = "OMAR"
    paper = "Plan Better Amid Conservatism, ICML 2022"
    source_code = "https://github.com/ling-pan/OMAR"
    actions = frozenset({"continuous"})
    Config = Config
    tunes = {"coefficient": (0.3, 0.5, 0.7, 0.9), "cql_weight": (1.0, 3.0)}
    variants = {
        "released": {
            "hidden": (64, 64),
            "learning_rate": 0.01,
            "adam_epsilon": 1e-8,
            "polyak": 0.01,
            "discount": 0.95,
            "batch_size": 1024,
            "search": "softmax",
            "max_grad_norm": 0.5,
        },
        "om2p": {"batch_size": 256, "discount": 0.99},  # as OM2P's methods
    }

    def build(self) -> None:
        """The policy, twin critics and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = policy_net(streams, spec, config, spec.actions)
        self.nets["critic"] = twin_critic(streams, spec, config)
        for name in ("policy", "critic"):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error and conservative term; imitation, Q maximisation and penalty."""
        return self.critic_losses(batch) | self.policy_losses(batch)

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The output of the policy."""
        return self.nets["policy"](obs).tanh(), memory

    def critic_losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error of each agent on its own reward, and the conservative term."""
        with torch.no_grad():
            next_actions = self.nets["target_policy"](batch.next_obs).tanh()
            next_q = self.nets["target_critic"](batch.next_obs, next_actions)[..., 0].amin(1)
            target = batch.rewards + self.config.discount * (1.0 - batch.done)[..., None] * next_q
            proposed, log_density = self.propose(batch)
        # One pass for the data's actions and the samples.
        q = self.values(batch.obs, torch.cat([batch.actions[:, None], proposed], 1))  # [S, 2, 1 + N, B, I]
        soft_max = (q[:, :, 1:] - log_density[:, None]).logsumexp(2)
        return {
            "critic": (q[:, :, 0] - target[:, None]).square().mean((2, 3)).sum(1),
            "conservative": self.config.cql_weight * (soft_max - q[:, :, 0]).mean((2, 3)).sum(1),
        }

    def policy_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Imitation of the search, Q maximisation by the first critic, and a penalty on large actions."""
        actions, c = self.nets["policy"](batch.obs).tanh(), self.config.coefficient
        best = self.search(batch.obs, actions.detach())
        with frozen(self.nets["critic"]):
            value = self.nets["critic"](batch.obs, actions)[:, 0, ..., 0]
        return {
            "imitation": c * (actions - best).square().mean((1, 2, 3)),
            "q": -(1.0 - c) * value.mean((1, 2)),
            "penalty": self.config.penalty * actions.square().mean((1, 2, 3)),
        }

    def propose(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Samples for the conservative term [S,N,B,I,A], and their log-densities [S,N,B,I]."""
        B, I, A = batch.actions.shape[1:]
        N, deviation = self.config.cql_actions, self.config.cql_deviation
        actions = [2.0 * self.streams.uniform(N, B, I, A) - 1.0]
        density = [torch.full(actions[0].shape[:-1], -A * math.log(2.0), device=self.device)]
        for obs in (batch.obs, batch.next_obs) if self.config.cql_policy else ():
            noise = self.streams.normal(N, B, I, A)
            actions.append((self.nets["policy"](obs).tanh()[:, None] + deviation * noise).clamp(-1.0, 1.0))
            density.append((-0.5 * noise.square() - math.log(deviation * math.sqrt(2.0 * math.pi))).sum(-1))
        return torch.cat(actions, 1), torch.cat(density, 1)

    @torch.no_grad()
    def search(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The best actions by the first critic: of kept elites, the last samples and the policy's own, [S,B,I,A]."""
        config = self.config
        mean, deviation = torch.zeros_like(actions), torch.full_like(actions, config.search_deviation)
        pool, q = actions[:, None][:, :0], actions[:, None, ..., 0][:, :0]
        for _ in range(config.search_steps):
            noise = self.streams.normal(config.search_actions, *actions.shape[1:])
            samples = (mean[:, None] + deviation[:, None] * noise).clamp(-1.0, 1.0)
            sample_q = self.values(obs, samples)[:, 0]  # [S, N, B, I]
            if config.search == "elites":
                pool, q = torch.cat([pool, samples], 1), torch.cat([q, sample_q], 1)
                pool, q = best_of(pool, q, config.search_elites)
                mean, deviation = pool.mean(1), pool.std(1, correction=0)
            else:  # samples weigh in the mean, not in the deviation around it
                pool, q = samples, sample_q
                mean = (q.softmax(1)[..., None] * samples).sum(1)
                deviation = (samples - mean[:, None]).square().mean(1).sqrt()
        own = self.nets["critic"](obs, actions)[:, :1, ..., 0]
        return best_of(torch.cat([pool, actions[:, None]], 1), torch.cat([q, own], 1), 1)[0][:, 0]

    def values(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The twins' values of N actions for each observation: [S,N,B,I,A] -> [S,2,N,B,I]."""
        N, B = actions.shape[1:3]
        return self.nets["critic"](obs.repeat(1, N, 1, 1), actions.flatten(1, 2))[..., 0].unflatten(2, (N, B))


def best_of(actions: Tensor, q: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` actions of the highest value, and their values: actions [S,N,B,I,A], q [S,N,B,I]."""
    q, index = q.topk(count, 1)
    return actions.gather(1, index[..., None].expand(*index.shape, actions.shape[-1])), q
