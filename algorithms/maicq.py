"""MAICQ: implicit constraint Q-learning with memories and a monotonic mixer.

Paper: Yang et al. 2021 (ICQ-MA), as OG-MARL's baseline (Formanek et al. 2023, arXiv 2302.00521). Official code:
instadeepai/og-marl (Apache-2.0), `tf2_systems/offline/maicq.py`, whose sizes and rates are the defaults.
`algorithms/parts/recurrent.py` says how windows differ. Differences:
* the agents' shares of the mixed value weigh their losses as constants, as in the paper (`detach_shares`). In the code
  (`released`) the policies' loss moves the mixer too, towards agents that are cloned well already;
* log-probabilities of masked logits, where the code takes the logarithm of a probability that may be zero;
* softmaxes over the batch leave out the rows of a time at which no transition starts; the code has no such rows;
* GELU for ReLU in the mixer, whose last bias has 64 hidden units for 32; `target_period: 0` is Polyak averaging.
`icq` is the feed-forward form, with twin critics and a linear mixer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.mixers import Monotonic
from offmarl.algorithms.parts.recurrent import AgentGRU, RecurrentCritic, Steps, ValueConfig, chosen, mean_over


@dataclass(frozen=True)
class Config(ValueConfig):
    """Settings of MAICQ."""

    policy_beta: float = 0.1  # temperature of the weights in the policy's loss
    value_beta: float = 1000.0  # temperature of the weights in the TD target
    detach_shares: bool = True  # whether the policies' loss leaves the mixer alone


class MAICQ(RecurrentCritic):
    """Advantage-weighted policies and critics with memories, trained on the data's next actions."""

    name = "maicq"
    title = "MAICQ"
    paper = "Believe What You See, NeurIPS 2021; Off-the-Grid MARL, AAMAS 2023 (baseline)"
    source_code = "https://github.com/instadeepai/og-marl"
    actions = frozenset({"discrete"})
    Config = Config
    tunes = {"policy_beta": (0.03, 0.1, 0.3, 1.0), "value_beta": (100.0, 1000.0)}
    variants = {"released": {"detach_shares": False}}

    def build(self) -> None:
        """The policy beside the critic, the mixer and their targets."""
        self.nets["policy"] = AgentGRU(self.init_streams, self.spec, self.config, self.spec.actions)
        super().build()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error on the data's next actions, and advantage-weighted cloning."""
        steps = self.windows.at(batch.number)
        q = self.along("critic", steps)
        return {"critic": self.critic_loss(steps, q), "policy": self.policy_loss(steps, q.detach())}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The most likely legal actions."""
        out, memory = self.step("policy", obs, memory)
        return decode(out, legal), memory

    def critic_loss(self, steps: Steps, q: Tensor) -> Tensor:
        """TD error of the team's value; a softmax over the batch weights the next values (implicit constraint)."""
        with torch.no_grad():
            target_q = chosen(self.along("target_critic", steps), steps.actions)
            value = self.team("target_mixer", target_q, steps.state)[..., 1:]
            following = weights(value / self.config.value_beta, steps.followed) * value
        return self.td_error(steps, self.team("mixer", chosen(q, steps.actions), steps.state), following)

    def policy_loss(self, steps: Steps, q: Tensor) -> Tensor:
        """Negative log-likelihood of the data, weighted by a softmax of the advantage over the batch."""
        log_policy = masked(self.along("policy", steps), steps.legal).log_softmax(-1)
        expected = (log_policy.detach().exp() * q).sum(-1)
        advantage = (chosen(q, steps.actions) - expected) / self.config.policy_beta
        shares = self.shares(steps.state)
        shares = shares.detach() if self.config.detach_shares else shares
        counts = steps.taken[..., None]
        log_density = torch.where(counts, chosen(log_policy, steps.actions), 0.0)  # elsewhere it may be infinite
        return mean_over(-shares * weights(advantage, counts) * log_density, steps.taken)

    def shares(self, state: Tensor) -> Tensor:
        """The agents' shares of the mixed value, which sum to one: [S,B,T,I]."""
        mixer, flat = self.nets["mixer"], state.flatten(1, 2)
        assert isinstance(mixer, Monotonic)
        first = mixer.first(flat).abs().unflatten(-1, (self.spec.agents, -1))
        shares = (first * mixer.last(flat).abs()[..., None, :]).sum(-1).unflatten(1, state.shape[1:3])
        return shares / (shares.sum(-1, keepdim=True) + 1e-10)


def weights(scores: Tensor, counts: Tensor) -> Tensor:
    """Softmax over the windows that count at each time, times their number, so that its mean is one: [S,B,...]."""
    inside = scores.masked_fill(~counts, torch.finfo(scores.dtype).min)
    return inside.softmax(1) * counts.sum(1, keepdim=True)
