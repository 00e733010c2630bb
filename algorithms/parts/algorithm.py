"""The one interface of every method, and the seed axis.

Every parameter, batch and action carries a leading axis S: the seeds of a cell train in lock step in one process, as
batched matrix products. Losses are per seed and summed, so gradients do not mix; each seed draws from generators of
its own, so its numbers do not depend on which seeds share the process.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from offmarl.algorithms.parts.diffusion import NO_CHAIN, Chain

LARGEST_Q, MEAN_Q = "largest_q", "mean_q"  # metrics of methods with a critic: of the values of its last pass


@dataclass(frozen=True)
class TaskSpec:
    """What a method may know of a task: sizes. `actions` is a count when `discrete`, else a dimension."""

    agents: int
    obs: int
    state: int
    actions: int
    discrete: bool


class Window(NamedTuple):
    """What a method sees of an episode: T = history + horizon steps, the transition's own at number `history`."""

    history: int
    horizon: int


class Data(NamedTuple):
    """A whole dataset on the device: episodes end to end, N transitions, R rows (one more than transitions each).

    What follows transition k of row `rows[k]` is in row `rows[k] + 1`; no transition joins two episodes.
    """

    obs: Tensor  # [R, I, O]
    state: Tensor  # [R, G]
    legal: Tensor | None  # [R, I, A] bool
    actions: Tensor  # [N, I] int64, or [N, I, A]
    rewards: Tensor  # [N, I]
    done: Tensor  # [N] float, as in a batch
    last: Tensor  # [N] bool: the last transition of its episode, whatever ended it
    rows: Tensor  # [N] int64


class Batch(NamedTuple):
    """Transitions of S seeds, B each. Masks are None in continuous tasks, windows where a method wants none."""

    obs: Tensor  # [S, B, I, O]
    actions: Tensor  # [S, B, I] int64, or [S, B, I, A] in [-1, 1]
    rewards: Tensor  # [S, B, I]
    next_obs: Tensor  # [S, B, I, O]
    done: Tensor  # [S, B] float, 1 where nothing follows
    legal: Tensor | None  # [S, B, I, A] bool
    next_legal: Tensor | None  # [S, B, I, A] bool
    state: Tensor  # [S, B, G]
    next_state: Tensor  # [S, B, G]
    next_actions: Tensor  # as actions: the data's next ones; an episode's last transition repeats its own
    number: Tensor  # [S, B] int64: which transitions of the data these are
    window: Tensor | None = None  # [S, B, T, I, O]: an episode is continued by its first and its last observation


def size(paper: Any, tiny: Any) -> Any:
    """A setting that makes a method larger or smaller: the paper's value, and one that tests can afford.

    A run with less than the paper's is marked as reduced wherever it is shown.
    """
    return field(default=paper, metadata={"tiny": tiny})


def choice(*values: str) -> Any:
    """A setting that takes one of these words; the first is the default."""
    return field(default=values[0], metadata={"choices": values})


@dataclass(frozen=True)
class Config:
    """Settings that every method has; defaults are MAC-Flow's (Appendix E and G.4)."""

    hidden: tuple[int, ...] = size((512, 512, 512, 512), tiny=(16, 16))  # widths of the hidden layers
    batch_size: int = 64  # transitions of one update, per seed
    learning_rate: float = 3e-4  # of Adam, for policies and critics alike
    decay_steps: int = 0  # updates in which the learning rate falls to zero, evenly; 0 keeps it
    adam_epsilon: float = 1e-5
    discount: float = 0.995
    polyak: float = 0.005  # how far target networks move in one update
    max_grad_norm: float = 0.0  # of each network of each seed, beyond which a gradient is shortened; 0: no limit
    share_parameters: bool = True  # one network for all agents, told apart by a one-hot id
    eval_noise: str = choice("fresh", "fixed", "zero")  # noise of sampling methods when they act

    def __post_init__(self) -> None:
        """Refuse what no method can run with.

        Raises:
            ValueError: naming the setting.
        """
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: an update needs at least one transition")

    @property
    def window(self) -> Window | None:
        """What batches must show around each transition; None: nothing."""
        return None

    def reduced(self) -> dict[str, Any]:
        """The sizes that fall short of the paper's, by setting."""
        sizes = {f.name: (getattr(self, f.name), f.default) for f in fields(self) if "tiny" in f.metadata}
        return {name: value for name, (value, paper) in sizes.items() if _less(value, paper)}


def _less(value: Any, paper: Any) -> bool:
    if isinstance(paper, tuple):
        return len(value) < len(paper) or any(a < b for a, b in zip(value, paper))
    return value < paper


class SeedStreams:
    """One random generator per seed. Draws have shape [S, *shape].

    Args:
        seeds: the seeds that train together.
        purpose: separates the streams of one seed (initialisation, training, acting, batches).
    """

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.generators = []
        for seed in seeds:
            entropy = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(2, np.uint64)
            self.generators.append(torch.Generator(self.device).manual_seed(int(entropy[0] >> np.uint64(1))))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws."""
        return torch.stack([torch.randn(shape, generator=g, device=self.device) for g in self.generators])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws from [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g, device=self.device) for g in self.generators])

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers from 0 to high - 1."""
        return torch.stack([torch.randint(high, shape, generator=g, device=self.device) for g in self.generators])

    def gumbel(self, *shape: int) -> Tensor:
        """Standard Gumbel draws: the largest of scores plus these is a draw from the scores' softmax."""
        return -torch.log(-torch.log(self.uniform(*shape).clamp(1e-20, 1 - 1e-7)))

    def state_dict(self) -> list[Tensor]:
        """Where each stream stands."""
        return [g.get_state() for g in self.generators]

    def load_state_dict(self, states: Sequence[Tensor]) -> None:
        """Continue where `state_dict` stood."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state.cpu())


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
    Config: ClassVar[type] = Config  # a frozen dataclass, a subclass of the one above
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

    def kind(self) -> Hashable:
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

    def stand_alone(self, agent: int) -> None:
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
