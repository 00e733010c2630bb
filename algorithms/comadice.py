"""ComaDICE: cloning by the ratio of two stationary distributions, the learner's and the data's.

Paper: Bui, Nguyen & Mai 2025 (ComaDICE), Eq. 10-12. Official code: vietbt/ComaDICE (Apache-2.0), whose sizes and rates
are the defaults. Differences, each with a setting; the default is the first value:
* `value_loss`: the multiplier nu descends the gradient of the code, which pulls it towards q from both sides (`code`).
  That of Eq. 11 (`text`) only ever raises it outside first states, since q is fixed in it; it drifts.
* `ratio_of`: the ramp of the mixed advantage, as the paper says (`team`). The code (`agent`) adds the agents' ramps.
* `normaliser`: the code subtracts a learnt constant from advantages, which the paper does not have. In one state it is
  nearly degenerate with nu, and the two drift apart; off by default, on in `released`.
Ours: all losses share one gradient step; the code takes four in turn. The policy clones the inverse tanh of actions in
[-edge, edge], as OMIGA's here. First states' multipliers are mixed (the paper); in the code they are not. GELU for ReLU
Not rebuilt: on SMAC the code replaces rewards by their suffix sums, and bootstraps too; it bounds each agent's ratio by
2 in the loss of discrete policies, which matters at an `alpha` far below the default.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.gaussian import tanh_gaussian
from offmarl.algorithms.parts.mixers import StateWeights
from offmarl.algorithms.parts.nets import AgentNet, policy_net, target_copy

BOUND = 10.0  # of exponents


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of ComaDICE."""

    alpha: float = 10.0  # weight of the divergence between the distributions
    divergence: str = choice("soft_chi_square", "chi_square", "kl")
    value_loss: str = choice("code", "text")
    ratio_of: str = choice("team", "agent")
    normaliser: bool = False
    edge: float = 0.99  # largest action of the data in the policy's loss
    mixer_width: int = size(64, tiny=16)
    hidden: tuple[int, ...] = size((256, 256), tiny=(16, 16))
    batch_size: int = size(128, tiny=8)
    learning_rate: float = 1e-4
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings. ValueError naming the setting."""
        super().__post_init__()
        if not 0.0 < self.edge < 1.0:
            raise ValueError(f"edge={self.edge}: write a number between 0 and 1, both excluded")


class ComaDICE(Algorithm):
    """Policies, critics and values of each agent, with a linear mixer of the state."""

    name = "comadice"
    title = "ComaDICE"
    paper = "ComaDICE: Offline Cooperative Multi-Agent RL with Stationary Distribution Shift Regularization, ICLR 2025"
    source_code = "https://github.com/vietbt/ComaDICE"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"alpha": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)}
    variants = {"released": {"ratio_of": "agent", "normaliser": True}}

    def build(self) -> None:
        """The policy, the critic, the value, the mixer, and targets of the last three."""
        spec, config, streams = self.spec, self.config, self.init_streams
        n_in, n_out = (spec.obs, spec.actions) if spec.discrete else (spec.obs + spec.actions, 1)
        self.nets["policy"] = policy_net(streams, spec, config, spec.actions * (1 if spec.discrete else 2))
        self.nets["critic"] = AgentNet(streams, spec, config, n_in, n_out)
        self.nets["value"] = AgentNet(streams, spec, config, spec.obs, 1)
        self.nets["mixer"] = StateWeights(streams, spec.agents, spec.state, (config.mixer_width,))
        for name in ("critic", "value", "mixer"):
            self.nets[f"target_{name}"] = target_copy(self.nets[name])
        if config.normaliser:  # of the value's residuals, and of the policy's
            self.nets["normaliser"] = torch.nn.ParameterList([torch.zeros(len(self.seeds), 2)])

    def prepare(self, data: Data) -> Data:
        """Note the first transitions of episodes."""
        self.first = torch.cat([torch.ones_like(data.last[:1]), data.last[:-1]]).float()
        return data

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, regularised value and weighted cloning, and the normalisers' loss."""
        residual = self.residual(batch, 0)
        with torch.no_grad():
            fixed = self.residual(batch, 1)
        losses = {
            "critic": self.critic_loss(batch),
            "value": self.value_loss(residual) + self.first_values(batch),
            "policy": self.policy_loss(batch, fixed),
        }
        if self.config.normaliser:
            losses["normaliser"] = self.normaliser_term(residual.detach(), fixed)
        return losses

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The mode of the policy."""
        if self.spec.discrete:
            return decode(self.nets["policy"](obs), legal), memory
        return tanh_gaussian(self.nets["policy"](obs)).mode(), memory

    def critic_loss(self, batch: Batch) -> Tensor:
        """TD error of the mixed critics, with the mixed next value in the target."""
        with torch.no_grad():
            weights, bias = self.nets["target_mixer"](batch.next_state)
            next_value = (weights * self.nets["target_value"](batch.next_obs)[..., 0]).sum(-1) + bias
            target = batch.rewards.mean(-1) + self.config.discount * (1.0 - batch.done) * next_value
        weights, bias = self.nets["mixer"](batch.state)
        return ((weights * self.values(batch, "critic")).sum(-1) + bias - target).square().mean(1)

    def value_loss(self, residual: Tensor) -> Tensor:
        """The divergence's part: for `code` the integral of x times the ramp's slope, by parts; for `text` Eq. 11's."""
        loss = conjugate(residual, self.config.divergence)
        if self.config.value_loss == "code":
            loss = residual * ramp(residual, self.config.divergence) - loss
        return self.config.alpha * loss.mean((1, 2))

    def policy_loss(self, batch: Batch, residual: Tensor) -> Tensor:
        """Cloning, weighted by the team's ratio (Eq. 12)."""
        out = self.nets["policy"](batch.obs)
        if self.spec.discrete:
            log_policy = masked(out, batch.legal).log_softmax(-1)
            log_density = log_policy.gather(-1, batch.actions[..., None])[..., 0]
        else:
            log_density = tanh_gaussian(out).log_density(batch.actions, self.config.edge)
        weight = ramp(residual, self.config.divergence).sum(-1, keepdim=True)
        return -(weight * log_density).mean((1, 2))

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of the team: the agents' values by their weights, and the bias."""
        weights, bias = self.nets["mixer"](batch.state)
        return ((weights * self.values(batch, "critic")).sum(-1) + bias).mean(1)

    def residual(self, batch: Batch, k: int) -> Tensor:
        """w (q - nu) of every agent [S,B,I], or their sum [S,B,1], less the k-th normaliser, by alpha (Eq. 11).

        Gradients reach nu and the normaliser alone. k: 0, for the value; 1, by the target networks, for the policy.
        """
        which = "target_" if k else ""
        with torch.no_grad():
            weights, _ = self.nets[f"{which}mixer"](batch.state)
            q = self.values(batch, f"{which}critic")
        residual = weights * (q - self.nets["value"](batch.obs)[..., 0])
        residual = residual.sum(-1, keepdim=True) if self.config.ratio_of == "team" else residual
        if self.config.normaliser:
            residual = residual - self.nets.get_parameter("normaliser.0")[:, k, None, None]
        residual = residual / self.config.alpha
        return residual.clamp(max=BOUND) if self.config.divergence == "kl" else residual

    def first_values(self, batch: Batch) -> Tensor:
        """(1 - discount) times the mean multiplier in the first states of the batch; zero where there are none."""
        first = self.first[batch.number]
        with torch.no_grad():
            weights, _ = self.nets["mixer"](batch.state)
        value = (weights * self.nets["value"](batch.obs)[..., 0]).sum(-1)
        return (1.0 - self.config.discount) * (first * value).sum(1) / first.sum(1).clamp(min=1.0)

    def normaliser_term(self, *residuals: Tensor) -> Tensor:
        """Raises a normaliser while the mean ratio at its residuals is above one."""
        ratios = [ramp(residual, self.config.divergence).mean((1, 2)) for residual in residuals]
        return (self.nets.get_parameter("normaliser.0") * (1.0 - torch.stack(ratios, 1))).sum(1)

    def values(self, batch: Batch, net: str) -> Tensor:
        """A critic's values of the data's actions [S,B,I]."""
        if self.spec.discrete:
            return self.nets[net](batch.obs).gather(-1, batch.actions[..., None])[..., 0]
        return self.nets[net](batch.obs, batch.actions)[..., 0]


def ramp(x: Tensor, divergence: str) -> Tensor:
    """The ratio of the distributions at a residual: max(0, f'^-1(x))."""
    if divergence == "kl":
        return (x - 1.0).exp()
    if divergence == "chi_square":
        return (x + 1.0).clamp(min=0.0)
    return torch.where(x < 0.0, x.clamp(max=0.0).exp(), x + 1.0)


def conjugate(x: Tensor, divergence: str) -> Tensor:
    """The integral of the ramp: f's convex conjugate on non-negative ratios, up to a constant."""
    if divergence == "kl":
        return (x - 1.0).exp()
    if divergence == "chi_square":
        return 0.5 * (x + 1.0).clamp(min=0.0).square()
    return torch.where(x < 0.0, x.clamp(max=0.0).exp() - 1.0, 0.5 * x.square() + x)
