"""What the diffusion planners share: they denoise the team's future observations and act by inverse dynamics.

Paper: MADiff (Zhu et al., NeurIPS 2024) and DoF (Li et al., ICLR 2025). Official code: zbzhu99/madiff and
xmu-rl-3dv/DoF; where the papers are silent, the code's configurations decide. A sample is the window of observations
around a transition, one row per agent: `history` slots, the present slot and the future ones. A view says which agents'
observations are given; they stay fixed through the whole chain. Differences from the official code:

* where a dataset has no `return_scale`, returns are scaled by their minimum and maximum in the data, and 1 asks for the
  maximum; suites hold the scales of the codes' files, where 1 asks for the scale;
* `return_to_go` lowers the return that is asked for by the rewards received, as most of the codes' files for StarCraft
  do; each agent then needs its reward at execution;
* observations carry their agent's one-hot id in every task; the code has none in particle worlds;
* a batch of 64 instead of two of 32 with accumulated gradients;
* inverse dynamics learn from the transitions of the batch, and with GELU, as all perceptrons here;
* a guided step is one call on twice the rows, conditioned and unconditioned (the result is the same);
* a denoiser narrower than an observation cannot pass on its noise: profiles that make it so let it predict the clean
  window (`predicts: start`), which MADiff's code can, but its authors' files do not (`predict_epsilon`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch, Data, Window
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.diffusion import SCHEDULES, denoise, diffuse, sampler
from offmarl.algorithms.parts.flow import masked, to_actions
from offmarl.algorithms.parts.nets import AgentNet, polyak, target_copy
from offmarl.algorithms.parts.normalise import Normaliser
from offmarl.algorithms.parts.returns import returns_to_go
from offmarl.algorithms.parts.unet import UNet


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of the planners; defaults are MADiff's on SMAC."""

    hidden: tuple[int, ...] = size((256, 256), tiny=(16, 16))  # of inverse dynamics
    learning_rate: float = 2e-4
    adam_epsilon: float = 1e-8
    share_parameters: bool = True  # of inverse dynamics; denoisers are always shared
    discount: float = 0.99  # of returns-to-go
    width: int = size(128, tiny=8)  # of the U-Net: channels at the first level
    multipliers: tuple[int, ...] = size((1, 4, 8), tiny=(1, 2))  # of the width, one per level
    norm_groups: int = size(8, tiny=2)  # of the group normalisation
    history: int = 20  # slots before the present
    horizon: int = 4  # slots from the present slot on
    diffusion_steps: int = size(200, tiny=4)  # of the forward process
    schedule: str = choice("cosine", "linear")
    sampler: str = choice("ddpm", "ddim")  # ddpm takes every step
    predicts: str = choice("noise", "start")  # of a window: its noise, or the clean window that a chain ends with
    ddim_calls: int = size(15, tiny=2)  # network calls of ddim
    start_temperature: float = 0.5  # of the initial noise of a chain
    step_temperature: float = 1.0  # of the noise that its steps add
    guidance: float = size(1.2, tiny=1.2)  # weight of the conditioned against the unconditioned pass
    condition_dropout: float = 0.25  # probability that training hides the return
    return_scale: float = 0.0  # the return that stands as 1; 0: the data's smallest stands as -1, its largest as 1
    target_return: float = 1.0  # when acting, in that scale
    return_to_go: bool = False  # the target falls by the rewards received
    normaliser: str = choice("cdf", "limits")  # of observations and continuous actions
    ema: float = 0.995  # decay of the averaged weights, which act
    ema_period: int = 10  # updates between two steps of the average
    ema_start: int = 2000  # before this update the average is a copy

    def __post_init__(self) -> None:
        """Check that the U-Net can halve the windows once per level.

        Raises:
            ValueError: naming the settings.
        """
        super().__post_init__()
        length, halvings = self.history + self.horizon, len(self.multipliers) - 1
        if self.horizon < 2 or length % 2**halvings:
            sizes = f"history={self.history} and horizon={self.horizon} make windows of {length} slots"
            rule = f"{len(self.multipliers)} levels need a multiple of {2**halvings}, and a horizon of 2 or more"
            raise ValueError(f"{sizes}; {rule}")
        if self.width % max(self.norm_groups, 4):
            raise ValueError(f"width={self.width}: must be a multiple of 4 and of norm_groups={self.norm_groups}")

    def sizes(self) -> dict[str, tuple[Any, Any]]:
        """The length of windows too, however history and horizon share it."""
        paper = type(self)()
        slots = self.history + self.horizon, paper.history + paper.horizon
        return super().sizes() | {"history+horizon": slots}

    def reduced(self) -> dict[str, Any]:
        """What the network predicts too, where it is the clean window: that is for denoisers of less width."""
        return super().reduced() | ({"predicts": self.predicts} if self.predicts != "noise" else {})

    @property
    def window(self) -> Window:
        """The slots of a row."""
        return Window(self.history, self.horizon)


class Planner(Algorithm):
    """A diffusion model of windows, and inverse dynamics.

    Shapes: S seeds, B batch, E episodes, I agents, R rows, T slots, N numbers per slot, V views.
    """

    actions = frozenset({"discrete", "continuous"})
    attention: ClassVar[bool]  # between the rows of the agents
    Config = Config
    tunes = {"guidance": (1.2, 1.4, 1.6, 1.8), "target_return": (0.9, 1.0)}

    def views(self) -> Tensor:
        """The views of a joint window: [V, I] bool, which agents' observations are given.

        A decision denoises a copy of the window for each view; agent i follows view i, or the only one. Training draws
        a view for each sample.
        """
        raise NotImplementedError

    def build(self) -> None:
        """The denoiser and its moving average, inverse dynamics, normalisers."""
        spec, config, S = self.spec, self.config, len(self.seeds)
        slot = spec.obs + spec.agents  # an observation and its agent's one-hot id
        self.nets["denoiser"] = self.denoiser(slot)
        self.nets["ema_denoiser"] = target_copy(self.nets["denoiser"])
        self.nets["inverse"] = AgentNet(self.init_streams, spec, config, 2 * slot, spec.actions)
        self.obs_range = Normaliser(S, spec.obs, config.normaliser)
        self.action_range = Normaliser(S, spec.actions, config.normaliser)  # of continuous actions
        self.return_range = ReturnScale(S, config.return_scale)
        self.nets.update({"obs": self.obs_range, "actions": self.action_range, "returns": self.return_range})
        abar = SCHEDULES[config.schedule](config.diffusion_steps)
        self.chain = sampler(abar, config.sampler, config.ddim_calls, self.device)
        self.abar = abar.float().to(self.device)
        self.view = self.views().to(self.device)
        self.ids = torch.eye(spec.agents, device=self.device)
        self.padding = (0, 0)  # agents before and after those that act here; see `keep_agent`

    def prepare(self, data: Data) -> Data:
        """Fit the normalisers and normalise the data; keep the return-to-go of every transition [S,N,I]."""
        self.obs_range.fit(data.obs)
        returns = returns_to_go(data.rewards, data.last, self.config.discount)
        self.return_range.fit(returns)
        self.returns = self.return_range.encode(returns).expand(len(self.seeds), -1, -1)
        data = data._replace(obs=self.obs_range.encode(data.obs))
        if self.spec.discrete:
            return data
        self.action_range.fit(data.actions)
        return data._replace(actions=self.action_range.encode(data.actions))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Denoising, and inverse dynamics."""
        return {"denoiser": self.denoiser_loss(batch), "inverse": self.inverse_loss(batch)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Plan in every step; the memory holds the last observations: [S, E, history + 1, I, N].

        With `return_to_go` each has one more number, the return that the agent asked for at that time.
        """
        now = self.with_ids(self.obs_range.encode(obs))[:, :, None]
        slot = now.shape[-1]
        if self.config.return_to_go:
            asked = torch.full_like(now[..., :1], self.config.target_return)
            now = torch.cat([now, asked if memory is None else memory[:, :, -1:, :, slot:]], -1)
        if memory is None:
            memory = now.expand(-1, -1, self.config.history + 1, -1, -1)
        else:
            memory = torch.cat([memory[:, :, 1:], now], 2)
        seen, asked = memory[..., :slot], memory[:, :, -1, :, slot] if self.config.return_to_go else None
        actions = self.nets["inverse"](seen[:, :, -1], self.plan(seen, asked))
        if not self.spec.discrete:
            actions = self.action_range.decode(actions)
        return to_actions(self.spec, actions, legal), memory

    def rewarded(self, memory: Tensor, rewards: Tensor) -> Tensor:
        """Lower the return that is asked for next: (return - reward) / discount."""
        if not self.config.return_to_go:
            return memory
        left = (self.return_range.decode(memory[:, :, -1, :, -1]) - rewards) / self.config.discount
        memory = memory.clone()
        memory[:, :, -1, :, -1] = self.return_range.encode(left)
        return memory

    def acting_rule(self) -> str:
        """Noise at the start of a chain, and in its steps where the sampler adds some."""
        return f"normal noise, its start times {self.config.start_temperature:g}"

    def nfe(self) -> int:
        """One pass per step of the chain (guidance doubles its rows), and one of inverse dynamics."""
        return len(self.chain.time) + 1

    def keep_agent(self, agent: int) -> None:
        """Keep the agent's own view, or its row of the only view."""
        super().keep_agent(agent)
        self.ids = self.ids[agent : agent + 1]
        if len(self.view) == 1:
            self.view = self.view[:, agent : agent + 1]
        else:
            self.view = self.view[agent : agent + 1]
            self.padding = (agent, self.spec.agents - 1 - agent)

    def after_update(self) -> None:
        """Move the averaged weights."""
        if rate := self.step_variant():
            polyak(self.nets["ema_denoiser"], self.nets["denoiser"], rate)

    def step_variant(self) -> float:
        """The rate of the averaged weights in this update: 0, 1 (a copy) or 1 - ema."""
        if self.updates % self.config.ema_period:
            return 0.0
        return 1.0 if self.updates < self.config.ema_start else 1.0 - self.config.ema

    def denoiser_loss(self, batch: Batch) -> Tensor:
        """The error of the noise, or of the clean window, in the slots that a view does not give."""
        assert batch.window is not None
        x = self.with_ids(batch.window).transpose(2, 3)  # [S, B, I, T, N]
        S, B, I, T, N = x.shape
        given = self.view[self.streams.integers(len(self.view), B)]  # [S, B, I]
        time = self.streams.integers(self.config.diffusion_steps, B)
        noise = self.streams.normal(B, I, T, N)
        keep = (self.streams.uniform(B, I) >= self.config.condition_dropout).float()
        known = self.known(given)
        noisy = diffuse(x, noise, self.abar[time][..., None, None, None])
        noisy = torch.where(known[..., None], x * given[..., None, None], noisy)
        returns = self.returns.take_along_dim(batch.number[..., None], 1)
        rows = (time[..., None].expand(S, B, I), returns, keep)
        predicted = self.nets["denoiser"](noisy.flatten(1, 2), *(part.flatten(1) for part in rows)).view_as(x)
        free = (~known).float()
        target = noise if self.config.predicts == "noise" else x
        error = ((predicted - target).square().mean(-1) * free).flatten(2).sum(2) / free.flatten(2).sum(2)
        return 0.5 * error.mean(1)

    def inverse_loss(self, batch: Batch) -> Tensor:
        """The error of the action predicted from two observations: squared, or cross-entropy over legal actions."""
        out = self.nets["inverse"](self.with_ids(batch.obs), self.with_ids(batch.next_obs))
        if not self.spec.discrete:
            return 0.5 * (out - batch.actions).square().flatten(1).mean(1)
        error = F.cross_entropy(masked(out, batch.legal).flatten(0, 2), batch.actions.flatten(), reduction="none")
        return 0.5 * error.view(len(self.seeds), -1).mean(1)

    def denoiser(self, slot: int) -> UNet:
        """The network of windows with `slot` numbers per slot."""
        config = self.config
        agents = self.spec.agents if self.attention else 1
        return UNet(self.init_streams, slot, config.width, config.multipliers, config.norm_groups, agents)

    def with_ids(self, obs: Tensor) -> Tensor:
        """Normalised observations [..., I, O] as slots of a window [..., I, N], with the agent's one-hot id."""
        return torch.cat([obs, self.ids.expand(*obs.shape[:-1], -1)], -1)

    def known(self, given: Tensor) -> Tensor:
        """Which slots stay fixed in a view: [..., I] bool -> [..., I, T] bool.

        The past of every agent (zero where it is not given), and the present of the given ones.
        """
        slot = torch.arange(sum(self.config.window), device=given.device)
        return torch.where(given[..., None], slot <= self.config.history, slot < self.config.history)

    def plan(self, memory: Tensor, asked: Tensor | None = None) -> Tensor:
        """Every agent's next slot in the plan of its view: [S, E, I, N].

        Args:
            memory: [S, E, history + 1, I, N].
            asked: the agents' target returns [S, E, I]; None: `target_return`. A view of one agent has that agent's.
        """
        S, E, _, acting, N = memory.shape
        T, (V, I) = sum(self.config.window), self.view.shape
        rows = (E, V * I, T, N)
        past = F.pad(memory, (0, 0, *self.padding, 0, self.config.horizon - 1)).transpose(2, 3)  # [S, E, I, T, N]
        fixed = (past[:, :, None] * self.view[..., None, None]).flatten(1, 3)  # [S, R, T, N]
        known = self.known(self.view).expand(E, V, I, T).flatten(0, 2)[..., None]
        if asked is None:
            asked = memory.new_full((S, E, acting), self.config.target_return)
        returns = (asked[..., None] if V > 1 else asked[:, :, None]).expand(S, E, V, I).flatten(1)
        calls = len(self.chain.time)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            found, abar = self.guided(x, time, returns), self.abar.take(time)  # an index would wait for the host
            return found if self.config.predicts == "noise" else (x - abar.sqrt() * found) / (1 - abar).sqrt()

        def noise(k: int) -> Tensor:
            temperature = self.config.start_temperature if k == calls else self.config.step_temperature
            return temperature * self.acting_noise(*rows, call=k).flatten(1, 2)

        ends = denoise(self.chain, predict, noise, lambda x: torch.where(known, fixed, x))
        future = ends[..., self.config.history + 1, :].view(S, E, V, I, N)
        own = torch.arange(acting, device=memory.device)
        return future[:, :, own if V > 1 else 0 * own, self.padding[0] + own]

    def guided(self, x: Tensor, time: Tensor, returns: Tensor) -> Tensor:
        """What the network predicts from x [S,R,T,N] under classifier-free guidance, both passes in one call."""
        time, keep = time.expand(returns.shape), torch.ones_like(returns)
        if self.config.guidance == 1.0:  # the unconditioned pass cancels out
            return self.nets["ema_denoiser"](x, time, returns, keep)
        parts = ((x, x), (time, time), (returns, returns), (keep, self.null_keep(returns)))
        conditioned, null = self.nets["ema_denoiser"](*(torch.cat(part, 1) for part in parts)).chunk(2, 1)
        return null + self.config.guidance * (conditioned - null)

    def null_keep(self, returns: Tensor) -> Tensor:
        """`keep` of the unconditioned pass: 0, without the return."""
        return torch.zeros_like(returns)


class ReturnScale(nn.Module):
    """A line through returns: 0 and `scale` become 0 and 1, or the data's smallest and largest -1 and 1."""

    def __init__(self, copies: int, scale: float):
        super().__init__()
        self.scale = scale
        self.zero: Tensor
        self.unit: Tensor
        self.register_buffer("zero", torch.zeros(copies, 1))  # the return that becomes 0
        self.register_buffer("unit", torch.full((copies, 1), scale or 1.0))  # the distance that becomes 1

    def fit(self, returns: Tensor) -> None:
        """Fit the line to the data, unless a scale is given."""
        if not self.scale:
            low, high = returns.aminmax()
            self.zero.copy_(0.5 * (low + high))
            self.unit.copy_((0.5 * (high - low)).clamp(min=1e-6))

    def encode(self, returns: Tensor) -> Tensor:
        """Returns as the networks see them."""
        return (returns - self.zero[0]) / self.unit[0]

    def decode(self, values: Tensor) -> Tensor:
        """The returns of encoded ones."""
        return self.zero[0] + self.unit[0] * values
