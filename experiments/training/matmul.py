"""Which library multiplies float32 matrices on a CPU: MKL, or oneDNN where it is faster and as exact.

MKL uses half of some processors' width. PyTorch gives products to oneDNN where it may multiply in bfloat16, on
processors with AVX-512. Most multiply in float32 all the same; those with instructions for such products (AMX) really
round, and are recognised by the error.
"""

import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from offmarl.experiments.errors import UserError
from offmarl.experiments.grid.jobs import Job

MKL, ONEDNN = LIBRARIES = ("mkl", "onednn")
PRECISIONS = {MKL: "highest", ONEDNN: "medium"}  # what torch may round to, which decides who multiplies
Shape = tuple[int, int, int]  # rows, inputs, outputs of a layer
CHECKED: Shape = 256, 512, 256
FASTER = 0.8  # oneDNN is used where it takes at most this share of MKL's time: noise alone must not choose
ROUNDS = 7


def use(library: str) -> None:
    """Multiply with this library from now on, in this process."""
    torch.set_float32_matmul_precision(PRECISIONS[library])


def onednn_is_asked() -> bool:
    """Whether PyTorch gives products to oneDNN here: where it was built with it, and the processor knows bfloat16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def choose(shapes: Iterable[Shape], threads: int) -> str:
    """The faster library for the median of these layers; oneDNN must win by a margin, and be exact."""
    found = sorted(shapes, key=lambda shape: shape[0] * shape[1] * shape[2])
    if not found or not onednn_is_asked():
        return MKL
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        spent = _compare(found[len(found) // 2])
        return ONEDNN if spent[ONEDNN] < FASTER * spent[MKL] and exact(ONEDNN) else MKL
    finally:
        torch.set_num_threads(before)


def shapes_of(jobs: Iterable[Job]) -> list[Shape]:
    """A hidden layer of each job's networks, with the rows of a batch."""
    deep = [job for job in jobs if len(job.config.hidden) > 1]
    return [(job.config.batch_size * job.entry.task.agents, *job.config.hidden[:2]) for job in deep]


def check(library: str) -> None:
    """Refuse a library whose products are not float32's. Raises UserError naming the other one."""
    if library == ONEDNN and not (onednn_is_asked() and exact(ONEDNN)):
        raise UserError("--matmul onednn: PyTorch has no oneDNN for this processor, or it rounds products; use mkl")


def exact(library: str) -> bool:
    """Whether this library's products here are float32's."""
    use(library)
    try:
        return within_float32(torch.bmm)
    finally:
        use(MKL)


def within_float32(multiply: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether products of random numbers, forward and backward through a layer, err as little as float32 may.

    Errors of n rounded additions grow as sqrt(n) (Higham and Mary 2019, SIAM J. Sci. Comput. 41(5)): the bound is
    2 sqrt(n) roundings of the sum of absolute terms, a hundredth of what bfloat16 or TF32 give.
    """
    rounding = torch.finfo(torch.float32).eps / 2
    for a, b in _products(CHECKED):
        wide, long = a.double(), b.double()
        allowed = 2 * a.shape[-1] ** 0.5 * rounding * (wide.abs() @ long.abs())
        if ((multiply(a, b) - wide @ long).abs() > allowed).any():
            return False
    return True


def _compare(shape: Shape) -> dict[str, float]:
    """Seconds of a layer's products by library, in turns: the medians."""
    pairs = _products(shape)
    spent: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    for _ in range(1 + ROUNDS):
        for library in LIBRARIES:
            use(library)
            began = time.perf_counter()
            for a, b in pairs:
                torch.bmm(a, b)
            spent[library].append(time.perf_counter() - began)
    use(MKL)
    return {library: statistics.median(times[1:]) for library, times in spent.items()}  # the first ones prepare


def _products(shape: Shape) -> list[tuple[Tensor, Tensor]]:
    """The three products of a layer in an update: forward, and the gradients of its inputs and of its weights."""
    rows, n_in, n_out = shape
    draws = torch.Generator().manual_seed(0)
    x, weight, g = (torch.randn(1, *size, generator=draws) for size in ((rows, n_in), (n_in, n_out), (rows, n_out)))
    return [(x, weight), (g, weight.mT), (x.mT, g)]
