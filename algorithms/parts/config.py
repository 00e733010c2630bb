"""Settings that every method has, and how settings are declared."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from offmarl.algorithms.parts.batch import Window


def size(paper: Any, tiny: Any) -> Any:
    """A setting that makes a method larger or smaller: the paper's value, and a small one for tests.

    Reports mark runs with less than the paper's value as reduced.
    """
    return field(default=paper, metadata={"tiny": tiny})


def choice(*values: str) -> Any:
    """A setting that takes one of these values; the first is the default."""
    return field(default=values[0], metadata={"choices": values})


@dataclass(frozen=True)
class BaseConfig:
    """Settings that every method has; defaults are MAC-Flow's (Appendix E and G.4)."""

    hidden: tuple[int, ...] = size((512, 512, 512, 512), tiny=(16, 16))  # widths of the hidden layers
    batch_size: int = size(64, tiny=8)  # transitions per seed in one update
    learning_rate: float = 3e-4  # of Adam, for all networks without one of their own
    decay_steps: int = 0  # updates over which the learning rate falls linearly to zero; 0: constant
    adam_epsilon: float = 1e-5  # 1e-8 in methods whose own source leaves it at the library's default
    discount: float = 0.995
    polyak: float = 0.005  # rate of the target networks
    max_grad_norm: float = 0.0  # of one network of one seed; 0: gradients are not clipped
    share_parameters: bool = True  # one network for all agents, with their one-hot id as an input

    def __post_init__(self) -> None:
        """Check the settings that all methods share.

        Raises:
            ValueError: naming the setting.
        """
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: an update needs at least one transition")

    @property
    def window(self) -> Window | None:
        """The window that batches show around each transition; None: no window."""
        return None

    def sizes(self) -> dict[str, tuple[Any, Any]]:
        """What makes the method larger or smaller, by setting: the value here, and the paper's.

        A setting that a base class declares by `size` is one, also where a subclass has another default.
        """
        bases = [base for base in type(self).__mro__ if is_dataclass(base)]
        names = {f.name for base in bases for f in fields(base) if "tiny" in f.metadata}
        return {f.name: (getattr(self, f.name), f.default) for f in fields(self) if f.name in names}

    def reduced(self) -> dict[str, Any]:
        """The sizes that are below the paper's, by setting."""
        return {name: value for name, (value, paper) in self.sizes().items() if _less(value, paper)}


def _less(value: Any, paper: Any) -> bool:
    if isinstance(paper, tuple):
        return len(value) < len(paper) or any(a < b for a, b in zip(value, paper))
    return value < paper
