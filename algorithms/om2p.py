"""OM2P: one-step mean-flow policies, one per agent, trained by cloning and Q maximisation.

Paper: OM2P, Offline Multi-Agent Mean-Flow Policy (AAMAS 2026). Official code: lizr16/OM2P, agents/fql_meanfield.py.
The paper's equations are unreadable in its text and are reconstructed from MeanFlow (Geng et al. 2025): t = 1 is noise,
t = 0 data, z_t = (1 - t) a + t e, v = e - a, and the average velocity u over [r, t] satisfies u = v - (t - r) du/dt.
The `released` variant follows the code:

* time runs from noise to data, and the identity is evaluated at the wrong end of the interval, which flips its sign;
* the action is the network's output, not noise minus displacement;
* the finite-difference step is 1e-12, below the resolution of float32, so du/dt is zero and time is an unused input;
* times are uniform, the Q term is not normalised, and the policy has no layer normalisation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.nets import AgentNet, frozen, target_copy, twin_critic

GRID = 1024  # points of the inverse distribution of times

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # (z, r, t) -> average velocity


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of OM2P."""

    batch_size: int = 256
    adam_epsilon: float = 1e-8
    discount: float = 0.99
    share_parameters: bool = False  # fully decentralised
    layer_norm: bool = True  # in the policy; critics always have it
    action_scale: float = 1.0  # of actions as points of the flow; its noise has unit variance
    q_weight: float = 1.0  # eta of Eq. 6
    bc_weight: float = 1.0  # of the mean-flow loss; 0: Q maximisation only
    normalise_q: bool = True  # divide the Q term by the mean |Q| of the batch
    derivative: str = choice("fd", "jvp", "jacobian")  # of u along the path: Eq. 5, exact, or the paper's baseline
    fd_step: float = 1e-3  # of the finite difference
    time_weights: tuple[float, ...] = (-5.0,)  # w of p(t) ~ exp(w1 t + w2 t^2 + ...); (0.0,) is uniform
    convention: str = choice("meanflow", "released")  # of the direction of time, the identity and the sampler


class OM2P(Algorithm):
    """Independent mean-flow policies and twin critics."""

    name = "om2p"
    title = "OM2P"
    paper = "OM2P: Offline Multi-Agent Mean-Flow Policy, AAMAS 2026"
    source_code = "https://github.com/lizr16/OM2P"
    actions = frozenset({"continuous"})
    Config = Config
    tunes = {"q_weight": (0.01, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0)}
    variants = {
        "released": {
            "convention": "released",
            "fd_step": 1e-12,
            "time_weights": (0.0,),
            "normalise_q": False,
            "layer_norm": False,
        },
    }

    def build(self) -> None:
        """The policy, of observation, noisy action and two times; twin critics and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        n_in = spec.obs + spec.actions + 2
        self.nets["policy"] = AgentNet(streams, spec, config, n_in, spec.actions, config.layer_norm)
        self.nets["critic"] = twin_critic(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        grid = torch.linspace(0, 1, GRID)
        powers = torch.stack([grid ** (k + 1) for k in range(len(config.time_weights))], -1)
        density = torch.exp(powers @ torch.tensor(config.time_weights))
        self.time_cdf = (density.cumsum(0) / density.sum()).to(self.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, mean flow (Eq. 2) and Q maximisation (Eq. 6)."""
        return {
            "critic": self.critic_loss(batch),
            "flow": self.config.bc_weight * self.flow_loss(batch),
            "q": self.config.q_weight * self.policy_loss(batch),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """One pass of the policy: noise minus the displacement over the whole interval (Eq. 3)."""
        return self.sample(obs, self.acting_noise(*obs.shape[1:-1], self.spec.actions)).clamp(-1, 1), memory

    def acting_rule(self) -> str:
        """Each agent acts from noise of its own."""
        return "normal noise"

    def critic_loss(self, batch: Batch) -> Tensor:
        """TD error of each agent on its own reward (Eq. 7)."""
        with torch.no_grad():
            noise = self.streams.normal(*batch.actions.shape[1:])
            next_actions = self.sample(batch.next_obs, noise).clamp(-1, 1)
            next_q = self.nets["target_critic"](batch.next_obs, next_actions)[..., 0].mean(1)
            target = batch.rewards + self.config.discount * (1.0 - batch.done)[..., None] * next_q
        q = self.nets["critic"](batch.obs, batch.actions)[..., 0]  # [S, 2, B, I]
        return (q - target[:, None]).pow(2).mean((2, 3)).sum(1)

    def flow_loss(self, batch: Batch) -> Tensor:
        """The mean-flow identity as a regression: ||u - sg(v - (t - r) du/dt)||^2."""
        data, noise = self.config.action_scale * batch.actions, self.streams.normal(*batch.actions.shape[1:])
        r, t = self.times(*data.shape[1:-1])
        u = self.velocity(batch.obs)
        if self.config.convention == "meanflow":
            path, v = (lambda s: torch.lerp(data, noise, s)), noise - data
            rate = self.rate(u, path, v, r, t)
        else:  # released: from noise at 0 to data at 1
            path, v = (lambda s: torch.lerp(noise, data, s)), data - noise
            rate = -self.rate(u, path, v, r, t)
        target = (v - (t - r) * rate).detach()
        return (u(path(t), r, t) - target).pow(2).flatten(1).mean(1)

    def policy_loss(self, batch: Batch) -> Tensor:
        """Q maximisation, with the critic fixed."""
        actions = self.sample(batch.obs, self.streams.normal(*batch.actions.shape[1:])).clamp(-1, 1)
        with frozen(self.nets["critic"]):
            q = self.nets["critic"](batch.obs, actions)[..., 0].mean(1)
        scale = q.detach().abs().flatten(1).mean(1) if self.config.normalise_q else 1.0
        return -q.flatten(1).mean(1) / scale

    def velocity(self, obs: Tensor) -> Velocity:
        """The average velocity at these observations: z [S,B,I,A], r and t [S,B,I,1] -> [S,B,I,A]."""
        return lambda z, r, t: self.nets["policy"](obs, z, r, t)

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions [..., A] from noise in one pass, before clipping."""
        zero, one = torch.zeros_like(noise[..., :1]), torch.ones_like(noise[..., :1])
        u = self.velocity(obs)(noise, zero, one)
        return (noise - u if self.config.convention == "meanflow" else u) / self.config.action_scale

    def times(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Start r and end t of the intervals [S, *shape, 1]: r and 1 - t are independent draws from p(t)."""
        draws = self.streams.uniform(*shape, 2)
        s = torch.searchsorted(self.time_cdf, draws).clamp(max=GRID - 1) / (GRID - 1)
        return s[..., :1], 1.0 - s[..., 1:]

    @torch.no_grad()
    def rate(self, u: Velocity, path: Callable[[Tensor], Tensor], v: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """du/dt along the path for fixed r: v . grad_z u + d_t u."""
        if self.config.derivative == "fd":
            step = self.config.fd_step
            t = t.clamp(min=step)
            return (u(path(t), r, t) - u(path(t - step), r, t - step)) / step
        if self.config.derivative == "jvp":
            return torch.func.jvp(lambda z, s: u(z, r, s), (path(t), t), (v, torch.ones_like(t)))[1]
        return _by_jacobian(lambda z, s: u(z, r, s), path(t), t, v)


def _by_jacobian(u: Callable[[Tensor, Tensor], Tensor], z: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """The same by the Jacobian of the whole batch, which is mostly zero; memory grows with the square of the batch."""
    by_z, by_t = torch.func.jacrev(u, argnums=(0, 1))(z, t)
    return torch.tensordot(by_z, v, dims=v.ndim) + torch.tensordot(by_t, torch.ones_like(t), dims=t.ndim)
