"""Network calls of a decision at the papers' number of steps: of planners, and of methods that generate actions."""

import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.nets import AgentNet

CALLS = {  # one decision of one agent: sequential calls, and rows of them for a team of three
    "mac_flow": {"policy": (1, 3)},
    "om2p": {"policy": (1, 3)},
    "bc": {"policy": (1, 3)},
    "flow_bc": {"flow": (10, 3)},
    "diffusion_bc": {"denoiser": (200, 3)},
    "ma_sfbc": {"score": (15, 32 * 3), "critic": (1, 32 * 3)},
    "dof": {"ema_denoiser": (200, 2 * 3), "inverse": (1, 3)},  # both passes of guidance in one call
    "madiff_c": {"ema_denoiser": (200, 2 * 3), "inverse": (1, 3)},
    "madiff_d": {"ema_denoiser": (200, 2 * 9), "inverse": (1, 3)},
}


@pytest.mark.parametrize("name", CALLS)
def test_network_calls_of_a_decision(name, make_spec, tiny, calls_of):
    cls = registry()[name]
    widths = {k: v for k, v in tiny(cls).items() if k in ("hidden", "width", "multipliers", "norm_groups", "widths")}
    spec = make_spec("continuous" if "continuous" in cls.actions else "discrete")
    algorithm = cls(spec, cls.Config(**widths), [0])
    # A call of a network on agents is one of its last layer: the first one may have multiplied in advance.
    parts = {key: net.mlp.layers[-1] if isinstance(net, AgentNet) else net for key, net in algorithm.nets.items()}
    found = {key: calls_of(net) for key, net in parts.items()}
    algorithm.act(torch.randn(1, 1, 3, 5))
    rows = {key: {call[-1].shape[:-1].numel() for call in calls} for key, calls in found.items() if calls}
    if name in ("dof", "madiff_c", "madiff_d"):
        rows["ema_denoiser"] = {call[0].shape[1] for call in found["ema_denoiser"]}
    assert {key: (len(found[key]), *counts) for key, counts in rows.items()} == CALLS[name]
    assert algorithm.nfe() == sum(calls for calls, _ in CALLS[name].values())
