"""An environment with every trap that a ParallelEnv may set, and a switch for each fault that is refused."""

import numpy as np
from gymnasium import spaces

NAMES = ("scout", "tank", "flyer")
FAULTS = {  # to what is said of each
    "unbounded": "scout acts in Box.*without bounds",
    "mixed": "some agents act in discrete, others in continuous",
    "text": "scout acts in Text.*can be used",
    "whole numbers": "scout acts in Box.*can be used",
    "joint": "tank acts in .* 729 joint choices",
    "image": "30,000 numbers looks like an image",
    "graph": "scout observes Sequence.*no fixed number",
    "no space": "scout observes 3, which has no fixed number",
    "aec": "AEC environment",
    "reset": r"reset\(\) failed: RuntimeError: no screen$",
    "crash": r"step\(\) failed: ZeroDivisionError",
    "vanishes": "step 3: flyer vanished",
    "returns": r"step 3: scout came \(back\)",
    "reward": "step 1: tank's reward is no number",
    "state grows": "the state has 4 numbers at first, 5 at step 1",
    "state error": "no state today",
    "state NaN": "step 1: the state has something that is no number",
    "NaN": "step 1: scout's observation has something that is no number",
    "grows": "step 1: scout",
    "no action": "step 1: tank's mask allows no action",
    "short mask": "step 1: tank's mask has 2 entries for 4 actions",
    "blind": "step 1: flyer plays, but has no observation",
}


class Trap:
    """Three unequal agents in a game that is known in full.

    scout observes 3 numbers and has the actions 1 to 3; it dies at step 2. tank observes a Dict with its mask and acts
    in MultiDiscrete [2,2], whose last joint choice is never legal. flyer observes a MultiDiscrete, and has its mask in
    info. The clock ends the episode after 4 steps, which the environment calls a termination. The state has 4 numbers,
    and is gone with the last agent. Agent i is paid i + 1 a step.
    """

    possible_agents = list(NAMES)
    observing = {
        "scout": spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "tank": spaces.Dict({"observation": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.MultiBinary(4)}),
        "flyer": spaces.MultiDiscrete([2, 3]),
    }
    acting = {"scout": spaces.Discrete(3, start=1), "tank": spaces.MultiDiscrete([2, 2]), "flyer": spaces.Discrete(2)}

    def __init__(self, fault="", length=4):
        self.fault, self.length, self.sent = fault, length, []
        self.acting = self.acting | {
            "unbounded": {"scout": spaces.Box(-np.inf, 1, (1,), np.float32)},
            "mixed": {"scout": spaces.Box(-1, 1, (1,), np.float32)},
            "text": {"scout": spaces.Text(3)},
            "whole numbers": {"scout": spaces.Box(0, 9, (1,), np.int64)},
            "joint": {"tank": spaces.MultiDiscrete([9, 9, 9])},
        }.get(fault, {})
        odd = {"image": spaces.Box(0, 255, (100, 100, 3), np.uint8), "graph": spaces.Sequence(spaces.Discrete(2))}
        odd |= {"no space": 3}
        self.observing = self.observing | ({"scout": odd[fault]} if fault in odd else {})
        if fault == "aec":
            self.agent_iter = None

    def observation_space(self, agent):
        return self.observing[agent]

    def action_space(self, agent):
        return self.acting[agent]

    def reset(self, seed):
        if self.fault == "reset":
            raise RuntimeError("no screen\nat all")
        self.rng, self.t, self.agents = np.random.default_rng(seed), 0, list(NAMES)
        return self._seen()

    def step(self, actions):
        self.t += 1
        self.sent.append(actions)
        if self.fault == "crash" and self.t == 3:
            raise ZeroDivisionError("division by zero")
        players = list(self.agents)
        ended = {name: self.t == self.length or (name, self.t) == ("scout", 2) for name in players}
        lost = {"vanishes": ("flyer",)}.get(self.fault, ()) if self.t == 3 else ()
        self.agents = [name for name in players if not ended[name] and name not in lost]
        if self.fault == "returns" and self.t == 3:
            self.agents = list(NAMES)
        obs, infos = self._seen(players)
        rewards = {name: float(NAMES.index(name) + 1) for name in players}
        if self.fault == "reward":
            rewards["tank"] = float("nan")
        return obs, rewards, ended, dict.fromkeys(players, False), infos

    def state(self):
        if not self.agents:
            raise AttributeError("the bodies are gone")
        if self.fault == "state error" and self.t == 1:
            raise AttributeError("no state today")
        holes = {0: np.nan} if self.fault == "state NaN" and self.t else {}
        return np.array([holes.get(k, k) for k in range(4 + (self.fault == "state grows") * self.t)], float)

    def close(self):
        self.agents = []

    def _seen(self, players=NAMES):
        scout = np.array([self.t, self.rng.random(), 1], np.float32)
        mask = np.array([1, 1, 1, 0], np.int8)
        if self.t == 1:
            scout = {"NaN": scout * [np.nan, 1, 1], "grows": np.ones(4, np.float32)}.get(self.fault, scout)
            mask = {"no action": mask * 0, "short mask": mask[:2]}.get(self.fault, mask)
        tank = {"observation": np.full(2, 0.5, np.float32), "action_mask": mask}
        obs = {"scout": scout, "tank": tank, "flyer": np.array([1, 2])}
        if self.fault == "blind" and self.t == 1:
            del obs["flyer"]
        infos = {name: {} for name in players} | {"flyer": {"action_mask": [False, True]}}
        return {name: obs[name] for name in players if name in obs}, infos
