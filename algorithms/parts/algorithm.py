"""The one interface of every method, and the seed axis.

Every parameter, batch and action carries a leading axis S: the seeds of a cell train in lock step in one process, as
batched matrix products. Losses are per seed and summed, so gradients do not mix; each seed draws from generators of
its own, so its numbers do not depend on which seeds share the process.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from offmarl.algorithms.parts.batch import Batch, Data, TaskSpec
from offmarl.algorithms.parts.config import BaseConfig
from offmarl.algorithms.parts.diffusion import NO_CHAIN, Chain
from offmarl.algorithms.parts.streams import SeedStreams

LARGEST_Q, MEAN_Q = "largest_q", "mean_q"  # metrics of methods with a critic: of the values of its last pass


class Algorithm(ABC):
    """A method of offline multi-agent RL. Subclasses state their facts and fill in four functions.

    Shapes: S seeds, B batch, E parallel episodes, I agents, O observation, A actions.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # as the papers' tables print it
    paper: ClassVar[str]
    source_code: ClassVar[str]
    actions: ClassVar[frozenset[str]]  # of "discrete", "continuous"
    capturable: ClassVar[bool] = True  # False: a gradient step asks the host something, so no CUDA graph can hold it
    execution: str = "decentralised"  # or "centralised": acting needs other agents' observations
    Config: ClassVar[type] = BaseConfig  # a frozen dataclass, a subclass of the one above
    chain: Chain = NO_CHAIN  # of methods that denoise: the network calls of a decision
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # named differences from the paper's settings

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
        if "critic" in self.nets:  # so that a diverging one is caught, whatever the method
            self.nets["critic"].register_forward_hook(self._watch)
        self.learning_rate = torch.tensor(config.learning_rate, device=self.device)
        self.optimiser = torch.optim.Adam(
            [p for p in self.nets.parameters() if p.requires_grad],
            lr=self.learning_rate,
            eps=config.adam_epsilon,
            fused=True,
            capturable=self.device.type == "cuda",
        )

    @abstractmethod
    def build(self) -> None:
        """Put the networks into `self.nets`, initialised from `self.init_streams`."""

    def prepare(self, data: Data) -> Data:
        """See the whole dataset once, before the first update; return it as batches shall show it."""
        return data

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss terms [S] whose sum one gradient step descends."""

    @abstractmethod
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: Any = None) -> tuple[Tensor, Any]:
        """Joint actions of every episode: obs [S,E,I,O], legal [S,E,I,A] -> [S,E,I] or [S,E,I,A]."""

    @abstractmethod
    def nfe(self) -> int:
        """Network evaluations, one after the other, that an agent needs for one decision."""

    def after_update(self) -> None:  # noqa: B027 - optional
        """Move target networks."""

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step of every seed; returns the loss terms [S]."""
        self.begin_update()
        return self.gradient_step(batch)

    def begin_update(self) -> None:
        """The host's part of an update: it counts, and whatever happens between two gradient steps happens here."""
        if self.config.decay_steps:
            self.learning_rate.fill_(self.config.learning_rate * max(0.0, 1.0 - self.updates / self.config.decay_steps))
        self.updates += 1

    def step_variant(self) -> Hashable:
        """Which gradient step the update that has begun takes, of methods whose steps are not all alike.

        Steps of one kind do the same operations with the same numbers from the host, so that they can be captured.
        """
        return None

    def gradient_step(self, batch: Batch) -> dict[str, Tensor]:
        """The device's part of an update, without a question to the host."""
        losses = self.losses(batch)
        self.optimiser.zero_grad(set_to_none=True)
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

    def keep_agent(self, agent: int) -> None:
        """Become one agent on a device of its own: `act` then takes obs [S,E,1,O] and gives that agent's actions.

        For acting only: what remains cannot be trained.

        Raises:
            ValueError: where an agent needs what its teammates observe.
        """
        if self.execution != "decentralised":
            raise ValueError(f"{self.name}: execution is {self.execution}, so no agent can act alone")
        for part in self.nets.modules():
            if keep := getattr(part, "keep_agent", None):
                keep(agent)

    @contextmanager
    def exploring(self, streams: SeedStreams) -> Iterator[None]:
        """Within this, `act` plays to learn: with fresh noise from these streams, or a draw from its distribution.

        Methods that act without either play as ever.
        """
        self.explores, acting, self.acting = True, self.acting, streams
        try:
            yield
        finally:
            self.explores, self.acting = False, acting

    def acting_noise(self, *shape: int, call: int = 0) -> Tensor:
        """Noise [S, *shape] for acting, by `eval_noise`: fresh each time, one fixed draw, or zero; fresh to explore.

        Args:
            call: tells the draws of one decision apart, so that fixed ones are not all the same.
        """
        kind = "fresh" if self.explores else self.config.eval_noise
        if kind == "zero":
            return torch.zeros(len(self.seeds), *shape, device=self.device)
        if kind == "fixed":
            draw = SeedStreams(self.seeds, f"fixed noise {call}", self.device).normal(*shape[1:])
            return draw[:, None].expand(-1, *shape)
        return self.acting.normal(*shape)

    def seed_state(self, k: int) -> dict[str, Tensor]:
        """The networks of the k-th seed alone; a method built for that one seed loads them with `load_nets`."""
        S = len(self.seeds)
        state = self.nets.state_dict()
        return {n: v.unflatten(0, (S, -1))[k].clone() if v.ndim else v.clone() for n, v in state.items()}

    def load_nets(self, state: Mapping[str, Tensor]) -> None:
        """Take over networks, not the optimiser."""
        self.nets.load_state_dict(state)

    def parameters(self) -> int:
        """Trainable parameters of one seed."""
        return sum(p.numel() for p in self.nets.parameters() if p.requires_grad) // len(self.seeds)

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs."""
        return {
            "updates": self.updates,
            "nets": self.nets.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "streams": self.streams.state_dict(),
            "acting": self.acting.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` stood."""
        self.updates = state["updates"]
        self.nets.load_state_dict(state["nets"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.optimiser.param_groups[0]["lr"] = self.learning_rate
        self.streams.load_state_dict(state["streams"])
        self.acting.load_state_dict(state["acting"])


@torch.no_grad()
def clip_gradients(net: nn.Module, seeds: int, limit: float) -> None:
    """Shorten the gradient of each seed to `limit` where it is longer."""
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    squares = [g.view(seeds, -1).square().sum(1) for g in gradients]
    if squares:
        scale = (limit / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.view(seeds, -1).mul_(scale[:, None])
