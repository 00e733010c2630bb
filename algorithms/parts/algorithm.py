"""The interface of every method, and the seed axis.

Every parameter, batch and action has a leading axis S: the seeds of a cell train in lock step in one process, as
batched matrix products. Losses are per seed and summed, so gradients do not mix. Each seed draws from its own random
generators, so its numbers do not depend on which seeds share the process.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from offmarl.algorithms.parts.adam import Adam
from offmarl.algorithms.parts.batch import Batch, Data, TaskSpec
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.algorithms.parts.diffusion import NO_CHAIN, Chain
from offmarl.algorithms.parts.nets import index_of_both, polyak
from offmarl.algorithms.parts.streams import LaneStreams, SeedStreams

LARGEST_Q, MEAN_Q = "largest_q", "mean_q"  # metrics of the critic's last forward pass, for methods that have a critic
OWN, ZERO, FIXED = PLAYS = ("own", "zero", "fixed")  # how a trained method plays; see `Algorithm.play`


class Algorithm(ABC):
    """A method of offline multi-agent RL. A subclass sets the class attributes and has `build`, `losses` and `act`.

    Shapes: S seeds, B batch, E parallel episodes, I agents, O observation, A actions. A function `x_loss` returns one
    loss term [S], `x_losses` several of them by name.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # as in the papers' tables
    paper: ClassVar[str]
    source_code: ClassVar[str]
    actions: ClassVar[frozenset[str]]  # a subset of "discrete", "continuous"
    capturable: ClassVar[bool] = True  # False: a gradient step needs the host, so no CUDA graph can capture it
    execution: str = "decentralised"  # or "centralised": acting needs other agents' observations
    Config: ClassVar[type] = BaseConfig  # a frozen dataclass, a subclass of BaseConfig
    chain: Chain = NO_CHAIN  # the network calls of one decision, for methods that denoise
    # Named differences from the paper's settings; those of "name:discrete" or "name:continuous" only for such actions.
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # The settings that `offmarl tune` searches and the values of each: eight combinations, the paper's among them.
    tunes: ClassVar[Mapping[str, Sequence[Any]]] = {}
    play: str = OWN  # its authors' sampling; ZERO: nothing is drawn, FIXED: one draw for all decisions

    def __init__(self, spec: TaskSpec, config: Any, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self.spec, self.config, self.seeds, self.device = spec, config, list(seeds), torch.device(device)
        self.init_streams = SeedStreams(seeds, "initialisation", "cpu")
        self.streams = SeedStreams(seeds, "training", device)
        self.acting = SeedStreams(seeds, "acting", device)
        self.explores = False
        self.updates = 0
        self.nets = nn.ModuleDict()
        self.build()
        self.nets.to(self.device)
        self.watched: dict[str, Tensor] = {}
        if "critic" in self.nets:  # so that a diverging critic of any method is noticed
            self.nets["critic"].register_forward_hook(self._watch)
        own, groups = self.learning_rates(), {config.learning_rate: []}
        for name, net in self.nets.items():
            trained = [p for p in net.parameters() if p.requires_grad]
            groups.setdefault(own.get(name, config.learning_rate), []).extend(trained)
        # The rates as tensors on the device, which a captured graph reads, by what they start from.
        self.rates = {start: torch.tensor(start, device=self.device) for start in groups}
        self.optimiser = Adam(zip(groups.values(), self.rates.values()), config.adam_epsilon)

    @classmethod
    def variant_names(cls) -> list[str]:
        """The variants, without the kinds of actions of their parts."""
        return list(dict.fromkeys(name.partition(":")[0] for name in cls.variants))

    @classmethod
    def variant(cls, name: str, space: str) -> dict[str, Any]:
        """The settings of a variant for "discrete" or "continuous" actions; none where it has no such variant."""
        return {**cls.variants.get(name, {}), **cls.variants.get(f"{name}:{space}", {})}

    @classmethod
    def trials(cls) -> list[dict[str, Any]]:
        """Every combination of the values of `tunes`."""
        return [dict(zip(cls.tunes, values)) for values in itertools.product(*cls.tunes.values())]

    @abstractmethod
    def build(self) -> None:
        """Put the networks into `self.nets`, initialised from `self.init_streams`."""

    def learning_rates(self) -> dict[str, float]:
        """Learning rates of networks that have one of their own, by name; the others have `learning_rate`."""
        return {}

    def prepare(self, data: Data) -> Data:
        """Read the whole dataset once, before the first update; return it as batches shall show it."""
        return data

    @property
    def goes_online(self) -> bool:
        """Whether single transitions are enough, so that it can go on with those of its play."""
        return type(self).prepare is Algorithm.prepare

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss terms [S] by name; one gradient step descends their sum."""

    @abstractmethod
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: Any = None) -> tuple[Tensor, Any]:
        """Joint actions of every episode, and the memory for the next call.

        Args:
            obs: [S,E,I,O].
            legal: [S,E,I,A] bool; None if every action is legal.
            memory: a tensor [S,E,...] that the last call returned; None at the start of an episode.

        Returns:
            [S,E,I] int64, or [S,E,I,A] in [-1, 1]; and the memory.
        """

    def rewarded(self, memory: Any, rewards: Tensor) -> Any:
        """The memory after the last actions were rewarded [S,E,I]; by default unchanged."""
        return memory

    def acting_rule(self) -> str:
        """How `act` draws actions in the method's own play, in a few words for tables; empty: it draws nothing."""
        return ""

    def nfe(self) -> int:
        """Network evaluations, one after the other, that an agent needs for one decision: by default one."""
        return 1

    def after_update(self) -> None:
        """Move target networks: by default Polyak averaging in every update."""
        self.move_targets(self.config.polyak)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step of every seed; returns the loss terms and the metrics of the critic [S]."""
        self.begin_update()
        return self.gradient_step(batch)

    def begin_update(self) -> None:
        """The host's part of an update: count it and set the learning rate. Work between two updates goes here."""
        if self.config.decay_steps:
            for start, rate in self.rates.items():
                rate.fill_(start * max(0.0, 1.0 - self.updates / self.config.decay_steps))
        self.updates += 1

    def step_variant(self) -> Hashable:
        """Which variant of the gradient step the current update takes, for methods whose steps are not all alike.

        Steps of one variant run the same operations with the same numbers from the host, so that a CUDA graph can
        capture them.
        """
        return None

    def gradient_step(self, batch: Batch) -> dict[str, Tensor]:
        """The device's part of an update, which never waits for the host."""
        losses = self.losses(batch)
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        if self.config.max_grad_norm:
            for net in self.nets.values():
                clip_gradients(net, len(self.seeds), self.config.max_grad_norm)
        self.optimiser.step()
        self.after_update()
        return {name: value.detach() for name, value in losses.items()} | self.watched

    def _watch(self, critic: nn.Module, inputs: Any, values: Tensor) -> None:
        values = values.detach().flatten(1)
        self.watched = {LARGEST_Q: values.abs().amax(1), MEAN_Q: values.mean(1)}

    @torch.no_grad()
    def mean_value(self, batch: Batch) -> Tensor | None:
        """The critic's mean value of the data's actions [S], as a team's discounted return; None without a critic."""
        if "critic" not in self.nets:
            return None
        if not self.spec.discrete:
            return self.nets["critic"](batch.obs, batch.actions).flatten(1).mean(1)
        return self.nets["critic"](batch.obs).gather(-1, index_of_both(batch.actions)).flatten(1).mean(1)

    def move_targets(self, rate: float) -> None:
        """Polyak averaging: move every network `target_x` towards `x`; rate 1 copies it."""
        for name, net in self.nets.items():
            if name.startswith("target_"):
                polyak(net, self.nets[name.removeprefix("target_")], rate)

    def keep_agent(self, agent: int) -> None:
        """Become the policy of one agent: `act` then takes obs [S,E,1,O] and returns that agent's actions.

        For acting only: the method cannot be trained any more.

        Raises:
            ValueError: if execution is centralised.
        """
        if self.execution != "decentralised":
            raise ValueError(f"{self.name}: execution is {self.execution}, so no agent can act alone")
        for part in self.nets.modules():
            if keep := getattr(part, "keep_agent", None):
                keep(agent)

    @contextmanager
    def exploring(self, streams: SeedStreams) -> Iterator[None]:
        """Within this context `act` explores: with fresh noise from `streams`, or a sample from its distribution.

        Methods whose actions use neither act as always.
        """
        self.explores, acting, self.acting = True, self.acting, streams
        try:
            yield
        finally:
            self.explores, self.acting = False, acting

    @contextmanager
    def acting_for(self, lanes: Tensor, total: int) -> Iterator[None]:
        """Within this context `act` is given these lanes [S,E] of `total` episodes, and draws for them as for all."""
        acting, self.acting = self.acting, LaneStreams(self.acting, lanes, total)
        try:
            yield
        finally:
            self.acting = acting

    def acting_noise(self, *shape: int, call: int = 0) -> Tensor:
        """Standard normal noise [S, *shape] for acting, by `play`. Exploration always draws its own.

        Args:
            call: numbers the draws of one decision, so that fixed ones differ.
        """
        play = OWN if self.explores else self.play
        if play == ZERO:
            return torch.zeros(len(self.seeds), *shape, device=self.device)
        if play == FIXED:
            draw = SeedStreams(self.seeds, f"fixed noise {call}", self.device).normal(*shape[1:])
            return draw[:, None].expand(-1, *shape)
        return self.acting.normal(*shape)

    def seed_state(self, k: int) -> dict[str, Tensor]:
        """The networks of the k-th seed; a method built for that seed alone loads them with `load_nets`."""
        S = len(self.seeds)
        state = self.nets.state_dict()
        return {n: v.unflatten(0, (S, -1))[k].clone() if v.ndim else v.clone() for n, v in state.items()}

    def load_nets(self, state: Mapping[str, Tensor]) -> None:
        """Load networks, without the optimiser."""
        self.nets.load_state_dict(state)

    def parameters(self) -> int:
        """Number of trainable parameters of one seed."""
        return sum(p.numel() for p in self.nets.parameters() if p.requires_grad) // len(self.seeds)

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact resume needs."""
        return {
            "updates": self.updates,
            "nets": self.nets.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "streams": self.streams.state_dict(),
            "acting": self.acting.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict`."""
        self.updates = state["updates"]
        self.nets.load_state_dict(state["nets"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.streams.load_state_dict(state["streams"])
        self.acting.load_state_dict(state["acting"])


@torch.no_grad()
def clip_gradients(net: nn.Module, seeds: int, limit: float) -> None:
    """Scale the gradient of each seed to the norm `limit` where it is longer."""
    gradients = [p.grad.view(seeds, -1) for p in net.parameters() if p.grad is not None]
    if gradients:
        scale = (limit / (torch.cat(gradients, 1).norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, [scale] * len(gradients))  # pyright: ignore[reportPrivateImportUsage]
