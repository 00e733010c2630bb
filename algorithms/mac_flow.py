"""MAC-Flow: a joint flow, distilled into one-step policies that also maximise Q.

Paper: Multi-Agent Coordination via Flow Matching (ICLR 2026), Eq. 6-9, Algorithms 1-2, Appendix E.
Official code: DongsuLeeTech/mac-flow. The default settings follow the paper's text, the `released` variant the code:

* Eq. 9 weighs the distillation of all agents and coordinates in sum; the code takes their mean (`distillation_over`),
  so that the same alpha is weaker by their number;
* for continuous actions the code has alpha 1 and divides the Q term by the mean |Q|, and the flow's actions are clipped
  before they are taught; the text has alpha 3 and values as they are. The row of Table 2 is what the authors ran, so
  the suite `continuous` trains `released` where `paper` is asked for; `text` trains the text there;
* the flow of the code is individual (own observation, action and time); Eq. 6 is joint, and so is ours;
* for discrete actions the code's Q term goes through an argmax and has no gradient; ours is the expected Q over the
  legal actions;
* TD targets of the code use the one-step policy without a mask of illegal actions; Algorithm 1 samples the flow;
* the code's discrete critic sums over agents and averages its two members before the error; ours mixes by the mean and
  trains each member (Appendix E);
* the code's recurrent encoder is never trained; neither variant has it.

`released` does not reproduce that sum, which only rescales a loss, nor the missing mask in the code's distillation
labels, which concerns actions that the data never take.
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
    given,
    index_of_both,
    target_copy,
    twin_critic,
)


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of MAC-Flow."""

    flow_steps: int = size(10, tiny=3)  # Euler steps of the teacher
    layer_norm: bool = True  # in the flow and the policy; critics always have it
    action_scale: float = 1.0  # of actions as points of the flow; its noise has unit variance
    alpha: float = 3.0  # weight of the distillation (Eq. 9)
    q_weight: float = 1.0  # of Q maximisation (Eq. 9); 0: distillation only
    acts_by: str = choice("policy", "flow")  # flow: the integrated flow, without distillation
    joint_flow: bool = True  # False: one field per agent on its own observation (released)
    critic: str = choice("individual", "central")  # individual, or of the joint observation and action (no mixer)
    mixer: str = choice("mean", "none")  # none: each agent has its own TD error (no IGM)
    td_action: str = choice("flow", "policy")  # proposes the action of the TD target (flow: Algorithm 1)
    mask_td: bool = True  # only legal actions in TD targets
    q_guidance: str = choice("expected", "straight_through", "argmax")  # of discrete actions; argmax: no gradient
    normalise_q: bool = False  # divide the Q term by the mean |Q| of the batch
    distillation: str = choice("mse", "cross_entropy")  # to the flow (Eq. 7), or to its argmax
    distillation_over: str = choice("sum", "mean")  # agents and coordinates (Eq. 9: their sum)
    clip_teacher: bool = False  # continuous: teach the flow's actions clipped to [-1, 1]


class MACFlow(Algorithm):
    """A joint flow as the teacher, twin individual critics with the mean mixer, one-step policies."""

    name = "mac_flow"
    title = "MAC-Flow"
    paper = "Multi-Agent Coordination via Flow Matching, ICLR 2026"
    source_code = "https://github.com/DongsuLeeTech/mac-flow"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"alpha": (0.3, 1.0, 3.0, 10.0), "distillation_over": ("sum", "mean")}  # both readings of Eq. 9
    variants = {
        "released": {
            "layer_norm": False,
            "adam_epsilon": 1e-8,
            "joint_flow": False,
            "td_action": "policy",
            "distillation_over": "mean",
        },
        "released:discrete": {
            "hidden": (256, 256, 256, 256),
            "discount": 0.99,
            "mask_td": False,
            "q_guidance": "argmax",
            "distillation": "cross_entropy",
        },
        "released:continuous": {
            "hidden": (512, 512, 512, 512),
            "discount": 0.995,
            "alpha": 1.0,
            "normalise_q": True,
            "clip_teacher": True,
        },
        "text": {},  # in a suite that trains another variant where `paper` is asked for
        # The ablations of Figures 6 to 9.
        "without_q": {"q_weight": 0.0},
        "without_distillation": {"acts_by": "flow"},
        "without_igm": {"mixer": "none"},
        "central_q": {"critic": "central"},
        "individual_flow": {"joint_flow": False},
    }

    def build(self) -> None:
        """The flow, the policy, twin critics and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        n_in = spec.obs + spec.actions
        if config.joint_flow:
            n_joint, n_out = spec.agents * n_in + 1, spec.agents * spec.actions
            self.nets["flow"] = MLP(streams, n_joint, config.hidden, n_out, config.layer_norm)
        else:
            self.nets["flow"] = AgentNet(streams, spec, config, n_in + 1, spec.actions, config.layer_norm)
        self.nets["policy"] = AgentNet(streams, spec, config, n_in, spec.actions, config.layer_norm)
        critic = central_critic if config.critic == "central" else twin_critic
        self.nets["critic"] = critic(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        self.tabular = spec.discrete and config.critic == "individual"  # one pass gives the values of all actions
        if config.acts_by == "flow" and config.joint_flow:
            self.execution = "centralised"

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error, flow matching, distillation and Q maximisation on the same batch (Algorithm 1)."""
        noise = self.streams.normal(*batch.obs.shape[1:-1], self.spec.actions)
        taught, next_actions = self.teach(batch, noise)
        # [S, 2, B, I, A] if tabular, else the values of the data's actions: [S, 2, B, I or 1, 1]
        q = self.nets["critic"](batch.obs, *([] if self.tabular else [self.weights(batch.actions)]))
        return {
            "critic": self.critic_loss(batch, q, next_actions),
            "flow": self.flow_loss(batch),
            **self.policy_losses(batch, noise, taught, q.detach().mean(1)),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The policy of each agent on its own observation and noise, or the integrated flow."""
        noise = self.acting_noise(*obs.shape[1:-1], self.spec.actions)
        if self.config.acts_by == "flow":
            return self.decide(euler(self.field(obs), noise, self.config.flow_steps), legal), memory
        return self.decide(self.nets["policy"](obs, noise), legal), memory

    def acting_rule(self) -> str:
        """Each agent acts from noise of its own."""
        return "normal noise"

    def nfe(self) -> int:
        """One pass of the policy, or one of the flow for each of its steps."""
        return self.config.flow_steps if self.config.acts_by == "flow" else 1

    def critic_loss(self, batch: Batch, q: Tensor, next_actions: Tensor) -> Tensor:
        """TD error of the mixed value, for each of the twins (Appendix E)."""
        with torch.no_grad():
            if self.tabular:
                next_q = self.nets["target_critic"](batch.next_obs).gather(-1, index_of_both(next_actions))
            else:
                next_q = self.nets["target_critic"](batch.next_obs, self.weights(next_actions))
            not_done = (1.0 - batch.done)[..., None]
            target = self.mix(batch.rewards) + self.config.discount * not_done * self.mix(next_q[..., 0].mean(1))
        chosen = q.gather(-1, index_of_both(batch.actions)) if self.tabular else q
        return (self.mix(chosen[..., 0]) - target[:, None]).pow(2).mean((2, 3)).sum(1)

    def flow_loss(self, batch: Batch) -> Tensor:
        """Flow matching to the data's joint actions (Eq. 6), with one time for the whole team."""
        target = to_points(self.spec, batch.actions, self.config.action_scale)
        noise = self.streams.normal(*target.shape[1:])
        joint = self.config.joint_flow
        time = self.streams.uniform(target.shape[1], 1 if joint else target.shape[2], 1)
        return flow_matching_loss(self.field(batch.obs), target, noise, time.expand(*target.shape[:-1], 1))

    def policy_losses(self, batch: Batch, noise: Tensor, taught: Tensor, q: Tensor) -> dict[str, Tensor]:
        """Distillation and Q maximisation (Eq. 9), with the flow and the critic fixed."""
        out = self.nets["policy"](batch.obs, noise)
        if self.config.distillation == "mse" or not self.spec.discrete:
            limit = self.config.action_scale
            goal = taught.clamp(-limit, limit) if self.config.clip_teacher and not self.spec.discrete else taught
            error = (out - goal).pow(2)
        else:
            labels = decode(taught, batch.legal)
            error = F.cross_entropy(out.flatten(0, 2), labels.flatten(), reduction="none").view(labels.shape)
        error = error.flatten(2).sum(2) if self.config.distillation_over == "sum" else error.flatten(2).mean(2)
        actions = self.action_weights(out, batch.legal) if self.spec.discrete else self.decide(out, None)
        if self.tabular:
            value = (actions * q).sum(-1)  # [S, B, I]
        else:
            with frozen(self.nets["critic"]):
                value = self.nets["critic"](batch.obs, actions)[..., 0].mean(1)
        scale = q.abs().flatten(1).mean(1) if self.config.normalise_q else 1.0
        return {
            "distillation": self.config.alpha * error.mean(1),
            "q": -self.config.q_weight * self.mix(value).flatten(1).mean(1) / scale,
        }

    @torch.no_grad()
    def teach(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The integrated flow [S,B,I,A], as the target of the distillation, and the actions of the TD target."""
        next_noise = self.streams.normal(*noise.shape[1:])
        next_legal = batch.next_legal if self.config.mask_td else None
        if self.config.td_action == "policy":
            taught = euler(self.field(batch.obs), noise, self.config.flow_steps)
            proposed = self.nets["policy"](batch.next_obs, next_noise)
            return taught, self.decide(proposed, next_legal)
        # Both integrations in one: the number of steps costs more than the size of the batch.
        obs, noise = torch.cat([batch.obs, batch.next_obs], 1), torch.cat([noise, next_noise], 1)
        taught, proposed = euler(self.field(obs), noise, self.config.flow_steps).chunk(2, 1)
        return taught, self.decide(proposed, next_legal)

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor | None:
        """Of the central critic, too."""
        if self.tabular:
            return super().mean_value(batch)
        return self.nets["critic"](batch.obs, self.weights(batch.actions)).flatten(1).mean(1)

    def weights(self, actions: Tensor) -> Tensor:
        """Actions as inputs of the critic [S,B,I,A]: one-hot if discrete."""
        return encode(actions, self.spec.actions, 1.0) if self.spec.discrete else actions

    def action_weights(self, out: Tensor, legal: Tensor | None) -> Tensor:
        """Weights of the discrete actions in the Q term [S,B,I,A]."""
        scores = masked(out, legal)
        soft = scores.softmax(-1)
        if self.config.q_guidance == "expected":
            return soft
        hard = encode(scores.argmax(-1), self.spec.actions, 1.0)
        return hard + (soft - soft.detach() if self.config.q_guidance == "straight_through" else 0.0)

    def mix(self, values: Tensor) -> Tensor:
        """The values of a TD error: the team's mean [..., I] -> [..., 1], or every agent's own."""
        return mix(values, "mean" if self.config.critic == "central" else self.config.mixer)

    def decide(self, points: Tensor, legal: Tensor | None) -> Tensor:
        """The actions of points of the flow or of the policy's output."""
        return to_actions(self.spec, points, legal, self.config.action_scale)

    def field(self, obs: Tensor) -> Field:
        """The vector field at these observations: x [S,B,I,A], t [S,B,I,1] -> [S,B,I,A]."""
        if not self.config.joint_flow:
            return given(self.nets["flow"], obs)
        flow = given(self.nets["flow"], obs.flatten(2))
        return lambda x, t: flow(torch.cat([x.flatten(2), t[:, :, 0]], -1)).view(x.shape)
