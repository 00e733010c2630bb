"""QMIX+CQL: conservative Q-learning of a monotonically mixed value, with memories.

Paper: Formanek et al. 2023 (OG-MARL, arXiv 2302.00521; baseline QMIX+CQL), of QMIX (Rashid et al. 2018) and CQL (Kumar
et al. 2020). Official code: instadeepai/og-marl (Apache-2.0), `tf2_systems/offline/qmix_cql.py`, whose sizes and rates
are the defaults. `algorithms/parts/recurrent.py` says how windows differ. Differences:
* the joint actions whose values are held down are uniform among legal ones (`cql_legal_only`). The code (`released`)
  takes the probabilities of legal actions for logits, so that of 10 actions, 5 of them legal, 45 % are illegal;
* the conservative term leaves out rows at which no transition starts; the code has no such rows;
* GELU for ReLU in the mixer, whose last bias has 64 hidden units for 32; `target_period: 0` is Polyak averaging.
`macql` is independent CQL with feed-forward twin critics.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import size
from offmarl.algorithms.parts.flow import decode
from offmarl.algorithms.parts.recurrent import RecurrentCritic, Steps, ValueConfig, chosen, mean_over


@dataclass(frozen=True)
class Config(ValueConfig):
    """Settings of QMIX+CQL."""

    cql_weight: float = 3.0  # of the conservative term
    cql_actions: int = size(20, tiny=3)  # random joint actions of the conservative term, besides the data's
    cql_legal_only: bool = True  # whether these are legal


class QMIXCQL(RecurrentCritic):
    """A mixed critic with a penalty on the values of joint actions outside the data."""

    name = "qmix_cql"
    title = "QMIX+CQL"
    paper = "Off-the-Grid MARL: Datasets with Baselines for Offline Multi-Agent RL, AAMAS 2023 (baseline)"
    source_code = "https://github.com/instadeepai/og-marl"
    actions = frozenset({"discrete"})
    Config = Config
    tunes = {"cql_weight": (0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)}
    variants = {"released": {"cql_legal_only": False}}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error and conservative term."""
        steps = self.windows.at(batch.number)
        q = self.along("critic", steps)
        value = self.team("mixer", chosen(q, steps.actions), steps.state)
        return {
            "critic": self.critic_loss(steps, q, value),
            "conservative": self.conservative_loss(steps, q, value),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The legal actions of the highest value; to explore, samples of the values' softmax."""
        values, memory = self.step("critic", obs, memory)
        values = values + self.acting.gumbel(*values.shape[1:]) if self.explores else values
        return decode(values, legal), memory

    def critic_loss(self, steps: Steps, q: Tensor, value: Tensor) -> Tensor:
        """TD error of the team's value, by double Q-learning: each agent's best legal action by its own critic."""
        with torch.no_grad():
            target_q = chosen(self.along("target_critic", steps), decode(q, steps.legal))
            following = self.team("target_mixer", target_q, steps.state)[..., 1:]
        return self.td_error(steps, value, following)

    def conservative_loss(self, steps: Steps, q: Tensor, value: Tensor) -> Tensor:
        """Log-sum-exp of the values of random joint actions and the data's, less that of the data's."""
        other = q.gather(-1, self.draws(q, steps.legal)).movedim(-1, 1)  # [S, K, B, T, I]
        every = torch.cat([self.team("mixer", other, steps.state), value[:, None]], 1)
        return self.config.cql_weight * mean_over(every.logsumexp(1) - value, steps.taken)

    @torch.no_grad()
    def draws(self, q: Tensor, legal: Tensor | None) -> Tensor:
        """Random actions of each agent [S,B,T,I,K], for values q and legal actions [S,B,T,I,A]."""
        odds = torch.ones_like(q) if legal is None else legal.to(q.dtype)
        if not self.config.cql_legal_only:
            odds = (odds / odds.sum(-1, keepdim=True)).exp()
        reach = odds.cumsum(-1)
        place = self.streams.uniform(*q.shape[1:-1], self.config.cql_actions) * reach[..., -1:]
        return torch.searchsorted(reach, place, right=True).clamp(max=self.spec.actions - 1)
