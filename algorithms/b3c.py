"""B3C: TD3+BC on a factored critic, whose bootstrapped value is clipped at the best return of the data.

Paper: Kim & Sycara 2026 (B3C), Eq. 5-6. Official code: wjkim1202/B3C_OfflineMARL (no licence), whose sizes and rates
are the defaults. The default is FACMAC+B3C with the non-monotonic mixer. Differences:
* `clip`: the paper's bound is the largest undiscounted return of an episode in the data, times `clip`. In the code an
  argument slip makes it 10^5 times that return, so nothing is ever clipped, and `bc_weight` is always 1: `released`.
* The Q term is divided by the mean |Q| of the batch, without gradient; the code divides by the absolute value of the
  mean, which may be near zero.
* The policy is deterministic; the code's is a tanh-Gaussian, which acts by its mode.
* One gradient step for both losses; the code takes the policy's first. GELU, not ReLU.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.mixers import Monotonic
from offmarl.algorithms.parts.nets import AgentNet, frozen, policy_net, target_copy


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of B3C."""

    hidden: tuple[int, ...] = size((256, 256), tiny=(16, 16))
    batch_size: int = size(128, tiny=8)
    learning_rate: float = 5e-4
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    max_grad_norm: float = 1.0
    q_weight: float = 1.0  # of the normalised Q term
    bc_weight: float = 1.0  # of the squared distance to the data
    clip: float = 1.0  # multiple of the data's best return that bounds bootstrapped values
    mixer: str = choice("free", "monotonic")  # free: weights of the agents' values may be negative


class B3C(Algorithm):
    """Deterministic policies on local observations, one critic of each agent, and a mixer of the state."""

    name = "b3c"
    title = "B3C"
    paper = "B3C: A Minimalist Approach to Offline Multi-Agent RL, AAMAS 2026"
    source_code = "https://github.com/wjkim1202/B3C_OfflineMARL"
    actions = frozenset({"continuous"})
    Config = Config
    tunes = {"q_weight": (0.1, 0.3, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0)}
    variants = {"released": {"clip": 1e5}}

    def build(self) -> None:
        """The policy, the critic, the mixer, and targets of the last two."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = policy_net(streams, spec, config, spec.actions)
        self.nets["critic"] = AgentNet(streams, spec, config, spec.obs + spec.actions, 1)
        self.nets["mixer"] = MIXERS[config.mixer](streams, spec.agents, spec.state)
        for name in ("critic", "mixer"):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])

    def prepare(self, data: Data) -> Data:
        """Note the best return of an episode, a team's, which bounds the values."""
        total = data.rewards.mean(-1).double().cumsum(0)[data.last]
        self.best_return = torch.cat([total[:1], total.diff()]).amax().float()
        return data

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, Q maximisation and cloning."""
        return {"critic": self.critic_loss(batch)} | self.policy_losses(batch)

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The output of the policy."""
        return self.nets["policy"](obs).tanh(), memory

    def critic_loss(self, batch: Batch) -> Tensor:
        """TD error of the mixed value, with the clipped one of the policy's next actions in the target (Eq. 5)."""
        with torch.no_grad():
            next_actions = self.nets["policy"](batch.next_obs).tanh()
            next_q = self.team_value("target_", batch.next_obs, next_actions, batch.next_state)
            next_q = torch.minimum(next_q, self.config.clip * self.best_return)
            target = batch.rewards.mean(-1) + self.config.discount * (1.0 - batch.done) * next_q
        q = self.team_value("", batch.obs, batch.actions, batch.state)
        return (q - target).square().mean(1)

    def policy_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Squared distance to the data, and maximisation of the team's value by all agents (Eq. 6)."""
        actions = self.nets["policy"](batch.obs).tanh()
        with frozen(self.nets["critic"]), frozen(self.nets["mixer"]):
            value = self.team_value("", batch.obs, actions, batch.state)
        return {
            "cloning": self.config.bc_weight * (actions - batch.actions).square().mean((1, 2, 3)),
            "q": -self.config.q_weight * value.mean(1) / value.abs().mean(1).detach(),
        }

    def team_value(self, which: str, obs: Tensor, actions: Tensor, state: Tensor) -> Tensor:
        """The mixed value of a joint action [S,B], by the networks or, for "target_", by their targets."""
        q = self.nets[f"{which}critic"](obs, actions)[..., 0]
        return self.nets[f"{which}mixer"](q[:, None], state)[:, 0, :, 0]

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of the team, mixed."""
        return self.team_value("", batch.obs, batch.actions, batch.state).mean(1)


class Free(Monotonic):
    """QMIX's mixer without the absolute values: weights may be negative."""

    def forward(self, values: Tensor, state: Tensor) -> Tensor:
        """Values [S, K, B, I] at states [S, B, G] -> [S, K, B, 1]."""
        first = self.first(state).unflatten(-1, (self.agents, self.width))
        mixed = torch.einsum("skbi,sbie->skbe", values, first) + self.first_bias(state)[:, None]
        return (F.elu(mixed) * self.last(state)[:, None]).sum(-1, keepdim=True) + self.last_bias(state)[:, None]


MIXERS = {"free": Free, "monotonic": Monotonic}
