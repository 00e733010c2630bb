"""ICQ: implicit constraint Q-learning, which evaluates no action outside the data.

Paper: Yang et al. 2021 (ICQ and ICQ-MA). Official code: YiqinYang/ICQ. MAC-Flow reports ICQ without describing its
version. Discrete actions: ICQ-MA with a one-step target, as in og-marl's maicq, but with feed-forward networks on local
observations, without dueling heads, and with Adam for RMSprop. Continuous actions: our combination of the same target
and weights with the Gaussian policy of the single-agent code (squashed mean, log-deviation in [-6, 0], constant in the
observation). Its temperature was chosen for SMAC; for continuous actions it is relative to the mean |Q|, otherwise one
sample would get all the weight of a batch. The team's value is sum_i k_i(s) Q_i with weights k that sum to one (the
official code has its mixer's bias commented out); `mixer: mean` makes them equal. `released` follows ICQ-MA: sizes and
rates, targets copied every 600 critic steps, and returns of lambda 0.75 along the data's episodes (the code's function
overrides its file's 0.8). Its batch is 32 transitions, as in a critic step of the code, which draws 32 episodes and
takes a critic step for each of their times and one step of the policy for all. Recurrent policies, critics that see the
state too, and RMSprop are not built.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data
from offmarl.algorithms.parts.config import BaseConfig, choice
from offmarl.algorithms.parts.flow import decode, masked
from offmarl.algorithms.parts.gaussian import log_normal
from offmarl.algorithms.parts.mixers import StateWeights
from offmarl.algorithms.parts.nets import index_of_both, policy_net, target_copy, twin_critic

LOG_STD = (-6.0, 0.0)


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of ICQ."""

    policy_beta: float = 0.1  # temperature of the weights in the policy's loss
    beta_unit: str = choice("by_space", "reward", "value")  # of policy_beta; value: mean |Q| of the batch
    value_beta: float = 1000.0  # temperature of the weights in the TD target
    mixer: str = choice("state", "mean")  # weights of the agents' values: of the state, or equal
    critic_learning_rate: float = 0.0  # of critics and mixer; 0: as the policy's
    target_period: int = 0  # updates between copies of the targets; 0: Polyak averaging
    td_lambda: float = 0.0  # of returns along the data's episode in the TD target; 0: one step
    lambda_steps: int = 16  # after which such returns are cut
    max_grad_norm: float = 20.0


class ICQ(Algorithm):
    """Advantage-weighted policies, twin critics trained on the data's next actions."""

    name = "icq"
    title = "ICQ"
    paper = "Believe What You See, NeurIPS 2021"
    source_code = "https://github.com/YiqinYang/ICQ"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"policy_beta": (0.03, 0.1, 0.3, 1.0), "value_beta": (100.0, 1000.0)}
    variants = {
        "released": {
            "hidden": (256, 256),
            "learning_rate": 5e-4,
            "critic_learning_rate": 1e-4,
            "adam_epsilon": 1e-5,
            "target_period": 600,
            "td_lambda": 0.75,
            "discount": 0.99,
            "batch_size": 32,
            "beta_unit": "reward",
        }
    }

    def build(self) -> None:
        """The policy, twin critics, the mixer's weights and their targets."""
        spec, config, streams = self.spec, self.config, self.init_streams
        self.nets["policy"] = policy_net(streams, spec, config, spec.actions)
        self.nets["critic"] = twin_critic(streams, spec, config)
        self.nets["target_critic"] = target_copy(self.nets["critic"])
        if config.mixer == "state":
            self.nets["mixer"] = StateWeights(streams, spec.agents, spec.state, bias=False)
            self.nets["target_mixer"] = target_copy(self.nets["mixer"])
        if not spec.discrete:
            self.nets["log_std"] = nn.ParameterList([torch.full((len(self.seeds), 1, spec.agents, spec.actions), -1.0)])

    def learning_rates(self) -> dict[str, float]:
        """Those of the critics and the mixer."""
        rate = self.config.critic_learning_rate or self.config.learning_rate
        return {"critic": rate, "mixer": rate}

    def prepare(self, data: Data) -> Data:
        """Keep the data for returns along its episodes."""
        self.data = data
        return data

    @property
    def goes_online(self) -> bool:
        """Unless its targets follow the data's episodes."""
        return not self.config.td_lambda

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """TD error on the data's next actions, and advantage-weighted cloning."""
        weights = self.weights("mixer", batch.state)
        q = self.nets["critic"](batch.obs, *([] if self.spec.discrete else [batch.actions]))
        return {
            "critic": self.critic_loss(batch, self.chosen(q, batch.actions), weights),
            "policy": self.policy_loss(batch, q.detach().mean(1), weights.detach()),
        }

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The most likely legal actions."""
        out = self.nets["policy"](obs)
        return (decode(out, legal) if self.spec.discrete else out.tanh()), memory

    def after_update(self) -> None:
        """Copy the targets now and then, or Polyak averaging."""
        if rate := self.step_variant():
            self.move_targets(rate)

    def step_variant(self) -> float:
        """The rate of the targets in this update: 1 or 0 if they are copied, or the constant of Polyak averaging."""
        if self.config.target_period:
            return float(self.updates % self.config.target_period == 0)
        return self.config.polyak

    def critic_loss(self, batch: Batch, q: Tensor, weights: Tensor) -> Tensor:
        """TD error of the team's value; a softmax over the batch weights the next values (implicit constraint)."""
        with torch.no_grad():
            if self.config.td_lambda:
                target = self.lambda_return(batch.number)
            else:
                next_value = self.next_value(batch.next_obs, batch.next_actions, batch.next_state)
                target = batch.rewards.mean(-1) + self.config.discount * (1.0 - batch.done) * next_value
        value = (weights[:, None] * q).sum(-1)
        return (value - target[:, None]).square().mean(2).sum(1)

    def policy_loss(self, batch: Batch, q: Tensor, weights: Tensor) -> Tensor:
        """Negative log-likelihood of the data, weighted by a softmax of the advantage over the batch."""
        out = self.nets["policy"](batch.obs)
        if self.spec.discrete:
            log_policy = masked(out, batch.legal).log_softmax(-1)
            log_density = log_policy.gather(-1, batch.actions[..., None])[..., 0]
            expected = (log_policy.detach().exp() * q).sum(-1)
            value = q.gather(-1, batch.actions[..., None])[..., 0]
        else:
            log_std = self.nets.get_parameter("log_std.0").clamp(*LOG_STD)
            log_density = log_normal(batch.actions, out.tanh(), log_std)
            with torch.no_grad():
                expected = self.values("critic", batch.obs, out.tanh()).mean(1)
            value = q[..., 0]
        advantage = batch_softmax((value - expected) / (self.config.policy_beta * self.unit(value)))
        return -(weights * advantage * log_density).sum(-1).mean(1)

    def lambda_return(self, number: Tensor) -> Tensor:
        """Lambda-returns of the data from the transitions [S,B] on, to the end of their episodes: [S,B]."""
        data, config = self.data, self.config
        along = [number]  # the transitions after these; at an episode's end its last one again
        for _ in range(config.lambda_steps - 1):
            along.append(along[-1] + (~data.last[along[-1]]).long())
        total = torch.zeros(())
        for k, here in reversed(list(enumerate(along))):
            after = here + (~data.last[here]).long()
            row = data.rows[here] + 1
            value = self.next_value(data.obs[row], data.actions[after], data.state[row])
            if k < len(along) - 1:
                value = torch.where(data.last[here], value, torch.lerp(value, total, config.td_lambda))
            total = data.rewards[here].mean(-1) + config.discount * (1.0 - data.done[here]) * value
        return total

    def next_value(self, obs: Tensor, actions: Tensor, state: Tensor) -> Tensor:
        """The team's target value of the data's next actions, times its weight in the batch: [S,B]."""
        q = self.values("target_critic", obs, actions).mean(1)
        value = (self.weights("target_mixer", state) * q).sum(-1)
        return batch_softmax(value / self.config.value_beta) * value

    def unit(self, q: Tensor) -> Tensor | float:
        """The unit of the policy's temperature: 1, as for SMAC's returns of at most 20, or the mean |Q|."""
        if self.config.beta_unit == "reward" or (self.config.beta_unit == "by_space" and self.spec.discrete):
            return 1.0
        return q.abs().mean((1, 2), keepdim=True)

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor:
        """Of the team: the agents' values by their weights."""
        values = self.values("critic", batch.obs, batch.actions).mean(1)
        return (self.weights("mixer", batch.state) * values).sum(-1).mean(1)

    def values(self, net: str, obs: Tensor, actions: Tensor) -> Tensor:
        """Values of actions by both critics: [S,2,B,I]."""
        return self.chosen(self.nets[net](obs, *([] if self.spec.discrete else [actions])), actions)

    def chosen(self, q: Tensor, actions: Tensor) -> Tensor:
        """The values of actions in a critic's output [S,2,B,I,A], or [S,2,B,I,1] if continuous: [S,2,B,I]."""
        return (q.gather(-1, index_of_both(actions)) if self.spec.discrete else q)[..., 0]

    def weights(self, net: str, state: Tensor) -> Tensor:
        """The weights of the agents' values, which sum to one: [S,B,I]."""
        if self.config.mixer == "mean":
            return torch.full((*state.shape[:2], self.spec.agents), 1.0 / self.spec.agents, device=self.device)
        weights, _ = self.nets[net](state)
        return weights / (weights.sum(-1, keepdim=True) + 1e-8)


def batch_softmax(scores: Tensor) -> Tensor:
    """Softmax over the batch times its size, so that the mean is one: [S,B,...]."""
    return scores.softmax(1) * scores.shape[1]
