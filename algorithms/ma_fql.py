"""MA-FQL: independent flow Q-learning.

Papers: MAC-Flow (ICLR 2026), Appendix H.1, as the ablation without joint flow and IGM; OM2P, as the decentralised
baseline (variant `om2p`). Official code: agents/fql.py of lizr16/OM2P; MAC-Flow's is not released. It differs from
`mac_flow` in the settings below: individual flows, and for each agent its own TD error, with the one-step policy's
action in the target, as in FQL (Park et al. 2025).

`om2p` has OM2P's settings: separate networks, batches of 256, a discount of 0.99, and the code's alpha of 10. It gets
layer normalisation in all networks and a normalised Q term, as OM2P does here: the text has the first, FQL advises the
second, and OM2P's code has neither in MA-FQL. flow_steps stays 10, as in FQL; OM2P's code takes a single Euler step.

`as_released` is the ablation of what MAC-Flow's authors ran: beside a MAC-Flow with its released settings, it differs
from that in the mixer alone.
"""

from dataclasses import dataclass

from offmarl.algorithms import mac_flow
from offmarl.algorithms.parts.config import choice


@dataclass(frozen=True)
class Config(mac_flow.Config):
    """Settings of MA-FQL."""

    joint_flow: bool = False
    mixer: str = choice("none", "mean")
    td_action: str = choice("policy", "flow")


class MAFQL(mac_flow.MACFlow):
    """MAC-Flow without the joint flow and without IGM."""

    name = "ma_fql"
    title = "MA-FQL"
    paper = "MAC-Flow, Appendix H.1 (ablation); OM2P (baseline)"
    source_code = "https://github.com/lizr16/OM2P"
    Config = Config
    variants = {
        "om2p": {
            "adam_epsilon": 1e-8,
            "share_parameters": False,
            "batch_size": 256,
            "discount": 0.99,
            "alpha": 10.0,
            "distillation_over": "mean",
            "normalise_q": True,
        },
        "as_released": mac_flow.MACFlow.variant("released", "continuous"),
    }
