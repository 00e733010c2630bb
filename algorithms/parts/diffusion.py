"""Denoising diffusion: noise schedules, and reverse chains as tables of coefficients.

Steps are numbered t = 0..K-1 from data to noise: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e. A chain has a fixed
length and its tables are on the device, so it runs without synchronising with the host.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # (x, t) -> the noise in x
Noise = Callable[[int], Tensor]  # k -> standard normal draws


def cosine(steps: int) -> Tensor:
    """abar of the squared-cosine schedule (Nichol & Dhariwal 2021): [K], float64."""
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1.0 - (1.0 - f[1:] / f[:-1]).clamp(max=0.999)).cumprod(0)


def linear(steps: int) -> Tensor:
    """abar of the linear schedule (Ho et al. 2020), rescaled from 1,000 steps to K: [K], float64."""
    scale = 1000.0 / steps
    return (1.0 - torch.linspace(1e-4 * scale, 2e-2 * scale, steps, dtype=torch.float64).clamp(max=0.999)).cumprod(0)


SCHEDULES = {"cosine": cosine, "linear": linear}


def vp(time: Tensor, low: float = 0.1, high: float = 20.0) -> Tensor:
    """abar of the variance-preserving process at times in [0, 1] (Song et al. 2021): exp(-integral of beta)."""
    return torch.exp(-low * time - 0.5 * (high - low) * time.square())


def vp_time(abar: Tensor, low: float = 0.1, high: float = 20.0) -> Tensor:
    """The inverse of `vp`: the time at which the process has this abar."""
    rise = high - low
    return ((low**2 - 2.0 * rise * abar.log()).sqrt() - low) / rise


class Chain(NamedTuple):
    """A reverse chain of n network calls; every field [n].

    Each call predicts the noise e in x, and with it the data d = clip(x / sqrt(abar) - noise_part e). With d' of the
    call before and new noise z, x <- from_data (d + extrapolate (d - d')) + from_x x + from_noise e + deviation z.
    """

    time: Tensor  # input of the network, decreasing
    scale: Tensor  # 1 / sqrt(abar)
    noise_part: Tensor
    from_data: Tensor
    from_x: Tensor
    from_noise: Tensor
    deviation: Tensor
    extrapolate: Tensor


NO_CHAIN = Chain(*torch.empty(len(Chain._fields), 0))


def shortened(chain: Chain, calls: int) -> Chain:
    """The first `calls` calls of a chain, for timing only: they do not reach the data."""
    return Chain(*(part[:calls] for part in chain))


def ddpm(abar: Tensor, device: torch.device | str = "cpu") -> Chain:
    """Ancestral sampling through all K steps, with the posterior's variance (Ho et al. 2020, Eq. 6-7)."""
    before = _before(abar)
    alpha = abar / before
    return _chain(
        torch.arange(len(abar)),
        abar,
        device,
        from_data=before.sqrt() * (1 - alpha) / (1 - abar),
        from_x=alpha.sqrt() * (1 - before) / (1 - abar),
        deviation=((1 - alpha) * (1 - before) / (1 - abar)).sqrt(),
    )


def ddim(abar: Tensor, calls: int, device: torch.device | str = "cpu") -> Chain:
    """Deterministic sampling in fewer calls, evenly spaced from step 0 (DDIM, Song et al. 2021, eta = 0)."""
    time = torch.arange(calls) * (len(abar) // calls)
    before = _before(abar[time])
    return _chain(time, abar[time], device, from_data=before.sqrt(), from_noise=(1 - before).sqrt())


def sampler(abar: Tensor, name: str, calls: int, device: torch.device | str = "cpu") -> Chain:
    """The chain of a sampler: "ddpm" takes every step, "ddim" takes `calls` steps, at most all."""
    return ddpm(abar, device) if name == "ddpm" else ddim(abar, min(calls, len(abar)), device)


def solver(calls: int, device: torch.device | str = "cpu", start: float = 1.0, end: float = 1e-3) -> Chain:
    """DPM-Solver++ (2M) on the variance-preserving process (Lu et al. 2022): second order, one call per step.

    Times are evenly spaced in log(signal / noise) from `start` to `end`; the last call steps to the data.
    """
    ends = vp(torch.tensor([end, start], dtype=torch.float64)).logit() / 2  # log(sqrt(abar) / sqrt(1 - abar))
    ratio = torch.linspace(float(ends[0]), float(ends[1]), calls, dtype=torch.float64)
    abar = torch.sigmoid(2 * ratio)
    step = torch.cat([torch.full_like(ratio[:1], torch.inf), -ratio.diff()])  # of the log ratio
    before, zero = _before(abar), torch.zeros_like(abar[:1])
    return _chain(
        vp_time(abar).float(),
        abar,
        device,
        from_data=before.sqrt() * -torch.expm1(-step),
        from_x=((1 - before) / (1 - abar)).sqrt(),
        extrapolate=torch.cat([zero, step[1:-1] / (2 * step[2:]), zero])[:calls],
    )


def _before(abar: Tensor) -> Tensor:
    """abar after each call: that of the next, less noisy time; 1 for the data."""
    return torch.cat([torch.ones_like(abar[:1]), abar[:-1]])


def _chain(time: Tensor, abar: Tensor, device: torch.device | str, **parts: Tensor) -> Chain:
    """The chain of coefficients given for increasing times; missing ones are zero."""
    parts |= {"scale": abar.rsqrt(), "noise_part": (1.0 / abar - 1.0).sqrt()}
    columns = (parts.get(name, torch.zeros_like(abar)).float() for name in Chain._fields[1:])
    return Chain(time.flip(0).to(device), *(column.flip(0).to(device) for column in columns))


def diffuse(x: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """The forward process: x_t of data x; abar_t broadcasts."""
    return abar.sqrt() * x + (1.0 - abar).sqrt() * noise


def denoise(chain: Chain, predict: Predict, noise: Noise, hold: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Run the chain from noise to data.

    Args:
        noise: the noise of call k; call n is the start.
        hold: overwrites the known part of x, before every call and at the end.
    """
    calls = len(chain.time)
    x, last = noise(calls), None
    for k in range(calls):
        x = hold(x)
        e = predict(x, chain.time[k])
        data = (chain.scale[k] * x - chain.noise_part[k] * e).clamp(-1.0, 1.0)
        aim = data if last is None else data + chain.extrapolate[k] * (data - last)
        x = chain.from_data[k] * aim + chain.from_x[k] * x + chain.from_noise[k] * e + chain.deviation[k] * noise(k)
        last = data
    return hold(x)


def embed(time: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of diffusion steps: [...] -> [..., width]."""
    half = width // 2
    rate = torch.exp(torch.arange(half, device=time.device) * (-math.log(10_000.0) / (half - 1)))
    angle = time[..., None].float() * rate
    return torch.cat([angle.sin(), angle.cos()], -1)
