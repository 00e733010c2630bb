"""Diffusion BC: behavioural cloning with individual diffusion models.

Paper: MAC-Flow (ICLR 2026), Appendix F.1: prediction of the noise, 200 steps, networks of 4 x 512 with a sinusoidal
embedding of the step, one-hot discrete actions. Official code: not released. What the text leaves open is our choice:
cosine schedule (MAC-Flow's repository has `linear`, unused), clipping of the predicted data to [-1, 1], an embedding of
64, no moving average of the weights, and the mask of illegal actions only after sampling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.diffusion import SCHEDULES, denoise, diffuse, embed, sampler
from offmarl.algorithms.parts.flow import to_actions, to_points
from offmarl.algorithms.parts.nets import AgentNet, given

EMBEDDING = 64


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of Diffusion BC."""

    diffusion_steps: int = size(200, tiny=4)  # of the forward process
    schedule: str = choice("cosine", "linear")
    sampler: str = choice("ddpm", "ddim")  # ddpm takes every step
    ddim_calls: int = size(15, tiny=2)  # network calls of ddim


class DiffusionBC(Algorithm):
    """Individual denoisers on local observations."""

    name = "diffusion_bc"
    title = "Diffusion BC"
    paper = "MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/DongsuLeeTech/mac-flow"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    tunes = {"schedule": ("cosine", "linear"), "sampler": ("ddpm", "ddim"), "max_grad_norm": (0.0, 1.0)}

    def build(self) -> None:
        """The denoiser: of observation, noisy action and embedded step."""
        spec, config = self.spec, self.config
        n_in = spec.obs + spec.actions + EMBEDDING
        self.nets["denoiser"] = AgentNet(self.init_streams, spec, config, n_in, spec.actions)
        abar = SCHEDULES[config.schedule](config.diffusion_steps)
        self.chain = sampler(abar, config.sampler, config.ddim_calls, self.device)
        self.abar = abar.float().to(self.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Denoising."""
        return {"denoiser": self.denoiser_loss(batch)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The whole chain of each agent, from its own noise."""
        denoiser = given(self.nets["denoiser"], obs)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            return denoiser(x, embed(time.expand(x.shape[:-1]), EMBEDDING))

        def noise(k: int) -> Tensor:
            return self.acting_noise(*obs.shape[1:-1], self.spec.actions, call=k)

        points = denoise(self.chain, predict, noise)
        return to_actions(self.spec, points, legal), memory

    def acting_rule(self) -> str:
        """Each agent denoises noise of its own."""
        return "normal noise"

    def nfe(self) -> int:
        """One pass for each step of the chain."""
        return len(self.chain.time)

    def denoiser_loss(self, batch: Batch) -> Tensor:
        """Squared error of the predicted noise, with an own step for each agent."""
        target = to_points(self.spec, batch.actions, 1.0)
        noise = self.streams.normal(*target.shape[1:])
        time = self.streams.integers(self.config.diffusion_steps, *target.shape[1:-1])
        noisy = diffuse(target, noise, self.abar[time][..., None])
        predicted = self.nets["denoiser"](batch.obs, noisy, embed(time, EMBEDDING))
        return (predicted - noise).square().flatten(1).mean(1)
