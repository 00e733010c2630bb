"""MAC-Flow: a joint flow, factorised into one-step policies that also follow the critic.

Paper: Multi-Agent Coordination via Flow Matching (ICLR 2026), Eq. 6-9, Algorithms 1-2, Appendix E.
Official code: DongsuLeeTech/mac-flow. The `paper` settings follow the text, the `released` variant the code. In which
the two differ:

* the released flow is individual (own observation, own action, own time); Eq. 6 is joint, and so is ours;
* for discrete actions the released Q guidance passes an argmax and has no gradient; ours is the expected Q over the
  legal actions;
* released TD targets take the one-step policy's action, without a legal mask; Algorithm 1 samples the flow;
* the released discrete critic sums over agents and averages its members before the error; ours mixes by the mean and
  trains each member (Appendix E);
* the released recurrent encoder is never trained, so it is left out here in both.

The released critic's sum and the missing mask in its distillation labels are not reproduced by the variant: the first
only rescales a loss, the second concerns actions that the data never take.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.flow import (
    Field,
    decode,
    encode,
    euler,
    flow_matching_loss,
    masked,
    to_actions,
    to_points,
)
from offmarl.algorithms.parts.mixers import mix
from offmarl.algorithms.parts.nets import (
    MLP,
    AgentNet,
    central_critic,
    frozen,
    index_of_both,
    polyak,
    target_copy,
    twin_critic,
)


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MAC-Flow."""

    flow_steps: int = size(10, tiny=3)  # Euler steps of the teacher
    layer_norm: bool = True  # in the flow and the policy; critics always have it
    action_scale: float = 1.0  # of actions as points of the flow, whose noise has unit variance
    alpha: float = 3.0  # weight of the distillation (Eq. 9)
    q_weight: float = 1.0  # of Q maximisation (Eq. 9); 0: the policies only repeat the flow
    acts_by: str = choice("policy", "flow")  # flow: the integrated flow itself, without distillation
    joint_flow: bool = True  # False: one field per agent on its own observation (released)
    critic: str = choice("individual", "central")  # of each agent, or of the joint observation and action (no mixer)
    mixer: str = choice("mean", "none")  # of the critics; none: every agent learns from its own reward (no IGM)
    td_action: str = choice("flow", "policy")  # whose action the TD target takes: Algorithm 1, or released
    mask_td: bool = True  # only legal actions in TD targets
    q_guidance: str = choice("expected", "straight_through", "argmax")  # how -Q reaches the policy; argmax: not at all
    normalise_q: bool = False  # divide the Q term by the mean magnitude of the critic's values on the batch
    distillation: str = choice("mse", "cross_entropy")  # to the integrated flow (Eq. 7), or to its argmax (released)


class MACFlow(Algorithm):
    """Joint flow teacher, twin individual critics under the mean mixer, one-step policies."""

    name = "mac_flow"
    title = "MAC-Flow"
    paper = "Multi-Agent Coordination via Flow Matching, ICLR 2026"
    source_code = "https://github.com/DongsuLeeTech/mac-flow"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    variants = {
        "released": {
            "hidden": (256, 256, 256, 256),
            "layer_norm": False,
            "discount": 0.99,
            "adam_epsilon": 1e-8,
            "joint_flow": False,
            "td_action": "policy",
            "mask_td": False,
            "q_guidance": "argmax",
            "distillation": "cross_entropy",
        },
        "quick": {"flow_steps": 5, "action_scale": 4.0, "alpha": 0.3, "normalise_q": True},
        # The ablations of Figures 6 to 9.
        "without_q": {"q_weight": 0.0},
        "without_distillation": {"acts_by": "flow"},
        "without_igm": {"mixer": "none"},
        "central_q": {"critic": "central"},
        "individual_flow": {"joint_flow": False},
    }

    def build(self) -> None:
        """Teacher, policies, critics and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        shared = {"share_parameters": config.share_parameters}
        if config.joint_flow:
            width = spec.agents * spec.actions
            n_in = spec.agents * spec.obs + width + 1
            self.nets["flow"] = MLP(streams, n_in, config.hidden, width, config.layer_norm)
        else:
            n_in = spec.obs + spec.actions + 1
            self.nets["flow"] = AgentNet(
                streams, spec.agents, n_in, config.hidden, spec.actions, config.layer_norm, **shared
            )
        self.nets["policy"] = AgentNet(
            streams,
            spec.agents,
            spec.obs + spec.actions,
            config.hidden,
            spec.actions,
            config.layer_norm,
            **shared,
        )
        self.nets["critic"] = (central_critic if config.critic == "central" else twin_critic)(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        self.tabular = spec.discrete and config.critic == "individual"  # one pass values every action
        if config.acts_by == "flow" and config.joint_flow:
            self.execution = "centralised"

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """All three networks learn from the same batch (Algorithm 1)."""
        noise = self.streams.normal(*batch.obs.shape[1:-1], self.spec.actions)
        taught, next_actions = self.teach(batch, noise)
        # [S, 2, B, I, A], or with a last axis of 1 for the data's actions, and without agents for a central critic
        q = self.nets["critic"](batch.obs, *([] if self.tabular else [self.weights(batch.actions)]))
        return {
            "critic": self.critic_loss(batch, q, next_actions),
            "flow": self.flow_loss(batch),
            **self.policy_losses(batch, noise, taught, q.detach().mean(1)),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """One pass of each agent's policy on its own observation and noise, or the integrated flow."""
        noise = self.acting_noise(*obs.shape[1:-1], self.spec.actions)
        if self.config.acts_by == "flow":
            return self.decide(euler(self.field(obs), noise, self.config.flow_steps), legal), memory
        return self.decide(self.nets["policy"](obs, noise), legal), memory

    def nfe(self) -> int:
        """One pass of the policy, or one of the flow for each of its steps."""
        return self.config.flow_steps if self.config.acts_by == "flow" else 1

    def after_update(self) -> None:
        """Polyak averaging of the critics."""
        polyak(self.nets["target_critic"], self.nets["critic"], self.config.polyak)

    @torch.no_grad()
    def teach(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The flow's end points at this batch [S,B,I,A], and the actions of the TD target."""
        next_noise = self.streams.normal(*noise.shape[1:])
        next_legal = batch.next_legal if self.config.mask_td else None
        if self.config.td_action == "policy":
            taught = euler(self.field(batch.obs), noise, self.config.flow_steps)
            proposed = self.nets["policy"](batch.next_obs, next_noise)
            return taught, self.decide(proposed, next_legal)
        # Both integrations in one pass: the step count, not the batch, is what costs.
        obs, noise = torch.cat([batch.obs, batch.next_obs], 1), torch.cat([noise, next_noise], 1)
        taught, proposed = euler(self.field(obs), noise, self.config.flow_steps).chunk(2, 1)
        return taught, self.decide(proposed, next_legal)

    def critic_loss(self, batch: Batch, q: Tensor, next_actions: Tensor) -> Tensor:
        """TD error of the mixed value, for each member of the ensemble (Appendix E)."""
        with torch.no_grad():
            if self.tabular:
                next_q = self.nets["target_critic"](batch.next_obs).gather(-1, index_of_both(next_actions))
            else:
                next_q = self.nets["target_critic"](batch.next_obs, self.weights(next_actions))
            live = (1.0 - batch.done)[..., None]
            target = self.mix(batch.rewards) + self.config.discount * live * self.mix(next_q[..., 0].mean(1))
        chosen = q.gather(-1, index_of_both(batch.actions)) if self.tabular else q
        return (self.mix(chosen[..., 0]) - target[:, None]).pow(2).mean((2, 3)).sum(1)

    def flow_loss(self, batch: Batch) -> Tensor:
        """Flow matching to the data's joint action (Eq. 6): one time for the whole team."""
        target = to_points(self.spec, batch.actions, self.config.action_scale)
        noise = self.streams.normal(*target.shape[1:])
        joint = self.config.joint_flow
        time = self.streams.uniform(target.shape[1], 1 if joint else target.shape[2], 1)
        return flow_matching_loss(self.field(batch.obs), target, noise, time.expand(*target.shape[:-1], 1))

    def policy_losses(self, batch: Batch, noise: Tensor, taught: Tensor, q: Tensor) -> dict[str, Tensor]:
        """Distillation and Q maximisation (Eq. 9), teacher and critic held fixed."""
        out = self.nets["policy"](batch.obs, noise)
        if self.config.distillation == "mse" or not self.spec.discrete:
            error = (out - taught).pow(2).mean(-1)
        else:
            labels = decode(taught, batch.legal)
            error = F.cross_entropy(out.flatten(0, 2), labels.flatten(), reduction="none").view(labels.shape)
        actions = self.action_weights(out, batch.legal) if self.spec.discrete else self.decide(out, None)
        if self.tabular:
            value = (actions * q).sum(-1)  # [S, B, I]
        else:
            with frozen(self.nets["critic"]):
                value = self.nets["critic"](batch.obs, actions)[..., 0].mean(1)
        scale = q.abs().flatten(1).mean(1) if self.config.normalise_q else 1.0
        return {
            "distillation": self.config.alpha * error.flatten(1).mean(1),
            "q": -self.config.q_weight * self.mix(value).flatten(1).mean(1) / scale,
        }

    def weights(self, actions: Tensor) -> Tensor:
        """Actions as the critics take them [S,B,I,A]: discrete ones as weights of all actions."""
        return encode(actions, self.spec.actions, 1.0) if self.spec.discrete else actions

    def action_weights(self, out: Tensor, legal: Tensor | None) -> Tensor:
        """Weights of the actions [S,B,I,A] through which the Q term reaches the policy."""
        scores = masked(out, legal)
        soft = scores.softmax(-1)
        if self.config.q_guidance == "expected":
            return soft
        hard = encode(scores.argmax(-1), self.spec.actions, 1.0)
        return hard + (soft - soft.detach() if self.config.q_guidance == "straight_through" else 0.0)

    def mix(self, values: Tensor) -> Tensor:
        """What one TD error is about: the team [..., I] -> [..., 1], or every agent apart."""
        return mix(values, "mean" if self.config.critic == "central" else self.config.mixer)

    def decide(self, points: Tensor, legal: Tensor | None) -> Tensor:
        """The actions that points of the flow or the policy stand for."""
        return to_actions(self.spec, points, legal, self.config.action_scale)

    def field(self, obs: Tensor) -> Field:
        """The vector field at these observations: x [S,B,I,A], t [S,B,I,1] -> [S,B,I,A]."""
        if not self.config.joint_flow:
            return lambda x, t: self.nets["flow"](obs, x, t)
        flat_obs = obs.flatten(2)
        return lambda x, t: self.nets["flow"](torch.cat([flat_obs, x.flatten(2), t[:, :, 0]], -1)).view(x.shape)
