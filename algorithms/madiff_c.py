"""MADiff-C: one plan for the whole team, from all observations.

Paper: MADiff: Offline Multi-agent Learning with Diffusion Models (NeurIPS 2024), centralised execution. Official code:
zbzhu99/madiff (`SharedConvAttentionDeconv` with the "all" mask). Differences: those of `planner`. An upper bound for
decentralised methods, since agents act on each other's observations.
"""

import torch
from torch import Tensor

from offmarl.algorithms.parts.planner import Planner


class MADiffC(Planner):
    """A single view with all agents' observations, and attention between agents."""

    name = "madiff_c"
    title = "MADiff-C"
    paper = "MADiff: Offline Multi-agent Learning with Diffusion Models, NeurIPS 2024"
    source_code = "https://github.com/zbzhu99/madiff"
    execution = "centralised"
    attention = True

    def views(self) -> Tensor:
        """[1, I]: all agents."""
        return torch.ones(1, self.spec.agents, dtype=torch.bool)
