"""Diffusion BC: every agent's action by denoising, given its own observation.

Paper: MAC-Flow (ICLR 2026), Appendix F.1, which gives the prediction of noise, 200 steps, networks of 4 x 512 with a
sinusoidal embedding of the step, and one-hot vectors for discrete actions. No code is released; what the text leaves
open is chosen here: cosine schedule (`linear` is what MAC-Flow's repository holds unused), clipping of the data's
estimate to [-1, 1], an embedding of 64, no moving average, and the legal mask only after sampling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.config import BaseConfig, choice, size
from offmarl.algorithms.parts.diffusion import SCHEDULES, denoise, diffuse, embed, sampler
from offmarl.algorithms.parts.flow import to_actions, to_points
from offmarl.algorithms.parts.nets import AgentNet

EMBEDDING = 64


@dataclass(frozen=True)
class Config(BaseConfig):
    """Settings of Diffusion BC."""

    diffusion_steps: int = size(200, tiny=4)  # of the forward process
    schedule: str = choice("cosine", "linear")
    sampler: str = choice("ddpm", "ddim")  # ddpm takes every step
    ddim_calls: int = size(15, tiny=2)  # network calls of ddim


class DiffusionBC(Algorithm):
    """Individual denoising policies on local observations."""

    name = "diffusion_bc"
    title = "Diffusion BC"
    paper = "MAC-Flow, Appendix F.1 (baseline)"
    source_code = "https://github.com/DongsuLeeTech/mac-flow"
    actions = frozenset({"discrete", "continuous"})
    Config = Config
    variants = {"quick": {"diffusion_steps": 20}}

    def build(self) -> None:
        """One network for the noise in every agent's action."""
        spec, config = self.spec, self.config
        self.nets["denoiser"] = AgentNet(
            *(self.init_streams, spec.agents, spec.obs + spec.actions + EMBEDDING, config.hidden, spec.actions),
            share_parameters=config.share_parameters,
        )
        abar = SCHEDULES[config.schedule](config.diffusion_steps)
        self.chain = sampler(abar, config.sampler, config.ddim_calls, self.device)
        self.abar = abar.float().to(self.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the predicted noise, every agent at a step of its own."""
        target = to_points(self.spec, batch.actions, 1.0)
        noise = self.streams.normal(*target.shape[1:])
        time = self.streams.integers(self.config.diffusion_steps, *target.shape[1:-1])
        noisy = diffuse(target, noise, self.abar[time][..., None])
        return {"denoiser": (self.predict(batch.obs, noisy, time) - noise).square().flatten(1).mean(1)}

    @torch.no_grad()
    def act(self, obs: Tensor, legal: Tensor | None = None, memory: None = None) -> tuple[Tensor, None]:
        """The whole chain from noise."""

        def predict(x: Tensor, time: Tensor) -> Tensor:
            return self.predict(obs, x, time.expand(x.shape[:-1]))

        def noise(k: int) -> Tensor:
            return self.acting_noise(*obs.shape[1:-1], self.spec.actions, call=k)

        ends = denoise(self.chain, predict, noise)
        return to_actions(self.spec, ends, legal), memory

    def nfe(self) -> int:
        """One pass a step of the chain."""
        return len(self.chain.time)

    def predict(self, obs: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """The noise in noisy actions [S,B,I,A] at steps [S,B,I]."""
        return self.nets["denoiser"](obs, noisy, embed(time, EMBEDDING))
