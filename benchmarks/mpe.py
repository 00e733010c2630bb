"""OMAR's multi-agent particle worlds, thousands of episodes at once.

`mpe2` (PettingZoo's MPE) is not used, because OMAR's data come from a fork with other physics and rewards: there the
new velocity moves an agent (mpe2: the old one), acceleration is applied twice, an action is two forces (mpe2: five),
Spread pays min(1 / distance, 10) for every landmark, distances shape the rewards of a chase, and World is three
predators against one prey with nothing hidden (mpe2: four against two).

Source: OMAR's multiagent/{core,environment}.py and scenarios/simple_{spread,tag,world}.py. Operations are in the same
order, so that trajectories agree to the last bits although contacts magnify round-off.
Shapes: E episodes, I agents (the prey is the last one), L landmarks, O_i observation of agent i.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offmarl.benchmarks.env import Step, View
from offmarl.benchmarks.tasks import Task

DT, DAMPING, CONTACT_FORCE, CONTACT_MARGIN = 0.1, 0.25, 100.0, 1e-3
LEARNERS = 3  # in every scenario


@dataclass(frozen=True)
class Rules:
    """The differences between the scenarios. The force of an action is accel * (sensitivity * action)."""

    radii: tuple[float, ...]  # of the agents
    landmarks: tuple[float, ...]  # their radii
    solid: int  # how many landmarks, from the first, agents collide with
    field: float  # landmarks start within +-field, agents within +-1
    sensitivity: tuple[float, ...] = (3.0, 3.0, 3.0, 4.0)
    accel: tuple[float, ...] = (3.0, 3.0, 3.0, 4.0)
    top_speed: tuple[float, ...] = (1.0, 1.0, 1.0, 1.3)
    hit: float = 0.0  # reward of a predator that touches the prey
    fence: float = 0.0  # cost of the prey for leaving the field


RULES = {
    "spread": Rules((0.15,) * 3, (0.05,) * 3, 0, 1.0, (5.0,) * 3, (1.0,) * 3, (np.inf,) * 3),
    "tag": Rules((0.075, 0.075, 0.075, 0.05), (0.2, 0.2), 2, 0.9, hit=10.0, fence=1.0),
    "world": Rules((0.075, 0.075, 0.075, 0.045), (0.2, 0.03, 0.03, 0.3, 0.3), 1, 0.9, hit=5.0, fence=2.0),
}
FOOD, FORESTS = slice(1, 3), slice(3, 5)  # among World's landmarks, after its obstacle


def length(vectors: np.ndarray) -> np.ndarray:
    """Euclidean length over the last axis."""
    return np.sqrt(np.square(vectors).sum(-1))


class ParticleWorld:
    """E episodes of spread, tag or world, in float64 and without a time limit; `prey` is a path for `load_prey`."""

    def __init__(self, scenario: str, episodes: int, prey: str | Path | None = None):
        self.scenario, self.episodes, self.rules = scenario, episodes, RULES[scenario]
        self.I, self.L = len(self.rules.radii), len(self.rules.landmarks)
        self.prey = load_prey(scenario, prey) if self.I > LEARNERS else None
        columns = (self.rules.accel, self.rules.sensitivity, self.rules.top_speed)
        self._accel, self._sensitivity, self._top_speed = (np.array(column)[:, None] for column in columns)
        radii = np.array(self.rules.radii + self.rules.landmarks)
        self._touching = radii[: self.I, None] + radii  # [I, I + L]: distances of contact

    def reset(self, seeds: np.ndarray) -> None:
        """Draw the start of every episode from its own seed: [E]."""
        streams = (np.random.default_rng(int(seed) % 2**32) for seed in seeds)
        places = np.stack([stream.uniform(-1, 1, (self.I + self.L, 2)) for stream in streams])
        agents, landmarks = np.split(places, [self.I], 1)
        self.set_state(agents, np.zeros_like(agents), landmarks * self.rules.field)

    def set_state(self, agents: np.ndarray, velocities: np.ndarray, landmarks: np.ndarray) -> None:
        """Place everything: agents [E,I,2], velocities [E,I,2], landmarks [E,L,2]."""
        self.agents = _shaped("agents", agents, (self.episodes, self.I, 2))
        self.velocities = _shaped("velocities", velocities, (self.episodes, self.I, 2))
        self.landmarks = _shaped("landmarks", landmarks, (self.episodes, self.L, 2))

    def observe(self) -> list[np.ndarray]:
        """Every agent's observation [E,O_i]: 18 in spread, 16 (prey 14) in tag, 24 (prey 22) in world."""
        return [self.observe_one(i) for i in range(self.I)]

    def observe_one(self, i: int) -> np.ndarray:
        """Agent i's velocity and position, landmarks and other agents relative to it, and more by scenario: [E,O_i].

        Spread adds four zeros (unused messages), the others the prey's velocity for predators; world then adds +1 or -1
        for each forest that the agent is inside of or not.
        """
        here = self.agents[:, i : i + 1]
        parts = [self.velocities[:, i], here, self.landmarks - here, np.delete(self.agents, i, 1) - here]
        if self.prey is None:
            parts.append(np.zeros((self.episodes, 4)))
        elif i < LEARNERS:
            parts.append(self.velocities[:, -1])
        if self.scenario == "world":
            covered = length(here - self.landmarks[:, FORESTS]) < self._touching[i, self.I :][FORESTS]
            parts.append(np.where(covered, 1.0, -1.0))
        return np.concatenate([part.reshape(self.episodes, -1) for part in parts], -1)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Rewards [E,I] after actions [E,I,2], which are not clipped; with [E,3,2], `self.prey` chooses the prey's."""
        if self.prey is not None and np.shape(actions) == (self.episodes, LEARNERS, 2):
            actions = np.concatenate([actions, self.prey(self.observe_one(self.I - 1))[:, None]], 1)
        force = self._accel * (self._sensitivity * _shaped("actions", actions, self.agents.shape))
        for contact in np.moveaxis(self._contacts(), 2, 0):
            force = force + contact
        velocity = self.velocities * (1 - DAMPING) + force * DT
        speed = length(velocity)[..., None]
        fast = speed > self._top_speed
        self.velocities = velocity / np.where(fast, speed, 1.0) * np.where(fast, self._top_speed, 1.0)
        self.agents = self.agents + self.velocities * DT
        return self._spread_reward() if self.prey is None else self._chase_reward()

    def _contacts(self) -> np.ndarray:
        """Forces on every agent from every solid entity: [E,I,J,2]; 0 between coincident ones (NaN in the source)."""
        bodies = np.concatenate([self.agents, self.landmarks[:, : self.rules.solid]], 1)
        offset = self.agents[:, :, None] - bodies[:, None]
        distance = length(offset)[..., None]
        overlap = self._touching[:, : bodies.shape[1], None] - distance
        penetration = np.logaddexp(0, overlap / CONTACT_MARGIN) * CONTACT_MARGIN
        return CONTACT_FORCE * offset / np.where(distance > 0, distance, 1.0) * penetration

    def _spread_reward(self) -> np.ndarray:
        """The sum of min(1 / distance, 10) over landmarks and their nearest agents, less 5 for every overlap."""
        nearest = length(self.agents[:, :, None] - self.landmarks[:, None]).min(1)
        between = length(self.agents[:, :, None] - self.agents[:, None])
        overlapped = (between < self._touching[:, : self.I]).sum(-1) - 1  # less oneself
        return (1 / np.maximum(nearest, 0.1)).sum(-1, keepdims=True) - 5.0 * overlapped

    def _chase_reward(self) -> np.ndarray:
        """Predators share hits and closeness; the prey loses as much, pays outside the field, and eats in World."""
        prey = self.agents[:, -1]
        gap = length(self.agents[:, :-1] - prey[:, None])
        caught = self.rules.hit * (gap < self._touching[-1, :LEARNERS]).sum(-1) - 0.1 * gap.sum(-1)
        x = np.abs(prey)
        beyond = np.where(x < 0.9, 0.0, np.where(x < 1, (x - 0.9) * 10, np.minimum(np.exp(2 * x - 2), 10)))
        escaped = -caught - self.rules.fence * beyond.sum(-1)
        if self.scenario == "world":
            food = length(self.landmarks[:, FOOD] - prey[:, None])
            escaped += 2.0 * (food < self._touching[-1, self.I :][FOOD]).sum(-1) + 0.05 * food.min(-1)
        return np.stack([caught] * LEARNERS + [escaped], -1)


def _shaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A float64 copy of the array, which must have that shape."""
    array = np.array(array, np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: shape {array.shape}, should be {shape}")
    return array


class ScriptedPrey:
    """Flees from predators within `sight`, and is drawn to the centre; beyond |p| = 1 / home the centre outweighs them.

    About as easy to catch as OMAR's: random and chasing predators get about the returns that they get against that.
    """

    name = "scripted"
    speed, sight, home = 0.92, 0.2, 1.2

    def __init__(self, landmarks: int):
        self._predators = slice(4 + 2 * landmarks, 10 + 2 * landmarks)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The prey's observation [E,O] -> the action [E,2] towards its desired velocity."""
        threats = obs[:, self._predators].reshape(-1, LEARNERS, 2)
        gap = np.maximum(length(threats), 1e-6)[..., None]
        away = -(threats / gap * np.maximum(self.sight - gap, 0)).sum(1)
        wish = away / np.maximum(length(away), 1e-6)[:, None] - self.home * obs[:, 2:4]
        wish = self.speed * wish / np.maximum(length(wish), 1.0)[:, None]
        return np.clip((wish - (1 - DAMPING) * obs[:, :2]) / (RULES["tag"].accel[-1] ** 2 * DT), -1, 1)


class PretrainedPrey:
    """OMAR's prey, a MADDPG policy: batch normalisation (eval) -> 64 relu -> 64 relu -> 2 tanh."""

    def __init__(self, weights: dict[str, np.ndarray], name: str):
        self.name, w = name, {key: value.astype(np.float64) for key, value in weights.items()}
        self.scale = w["in_fn.weight"] / np.sqrt(w["in_fn.running_var"] + 1e-5)
        self.shift = w["in_fn.bias"] - w["in_fn.running_mean"] * self.scale
        self.layers = [(w[f"fc{k}.weight"].T, w[f"fc{k}.bias"]) for k in (1, 2, 3)]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The prey's observation [E,O] -> its action [E,2]."""
        (first, one), (second, two), (last, three) = self.layers
        hidden = np.maximum((obs * self.scale + self.shift) @ first + one, 0)
        return np.tanh(np.maximum(hidden @ second + two, 0) @ last + three)


class PreyError(ValueError):
    """A file has no prey that can be used: which, why, and what to do."""

    in_a_line = True  # for the command line


def load_prey(scenario: str, path: str | Path | None = None) -> ScriptedPrey | PretrainedPrey:
    """OMAR's prey from `path`, by default $OFFMARL_PREY; the scripted one where neither is set.

    `path` is pretrained_adv_model.pt (og-marl's or OMAR's), an npz of the prey's policy in it, or a folder that has
    `simple_<scenario>/pretrained_adv_model.pt` or `prey_<scenario>.npz`. `name` distinguishes preys in fingerprints.
    Raises PreyError: which file is wrong, how, and what to do, in one line.
    """
    path, landmarks = path or os.environ.get("OFFMARL_PREY"), len(RULES[scenario].landmarks)
    if not path:
        return ScriptedPrey(landmarks)
    file = Path(path).expanduser()
    if file.is_dir():
        files = [file / f"simple_{scenario}/pretrained_adv_model.pt", file / f"prey_{scenario}.npz"]
        file = next(filter(Path.is_file, files), files[0])
    advice = f"give the prey of simple_{scenario}, or unset OFFMARL_PREY to play against the scripted one"
    sees = 10 + 2 * landmarks + 2 * (scenario == "world")
    try:
        if file.suffix == ".npz":
            weights = dict(np.load(file, allow_pickle=False))
        else:
            import torch

            agents = torch.load(file, map_location="cpu", weights_only=True)["agent_params"]
            weights = {name: weight.numpy() for name, weight in agents[LEARNERS]["policy"].items()}
        prey = PretrainedPrey(weights, f"pretrained {hashlib.sha256(file.read_bytes()).hexdigest()[:8]}")
        if prey.scale.shape != (sees,) or not np.isfinite(prey(np.zeros((1, sees))).reshape(1, 2)).all():
            raise ValueError(f"it should make 2 finite numbers of {sees}, and takes {prey.scale.size}")
    except Exception as error:  # whatever np.load and torch.load raise over a file that is something else
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise PreyError(f"{file}: not a pretrained prey ({reason}); {advice}") from error
    return prey


class MpeEnv:
    """`lanes` episodes of the three learners, a `BatchEnv`. The prey is part of it; episodes end at the time limit."""

    def __init__(self, task: Task, lanes: int, prey: str | Path | None = None):
        self.task, self.lanes = task, lanes
        self.world = ParticleWorld(task.short, lanes, prey or task.roster.get("weights"))

    def reset(self, seeds: np.ndarray) -> View:
        """Start an episode in every lane, each from its own seed: [E]."""
        self.world.reset(seeds)
        self._clock = 0
        return self._view()

    def step(self, actions: np.ndarray) -> Step:
        """The learners' actions [E,3,2], clipped to [-1,1]."""
        reward = self.world.step(np.clip(actions, -1, 1))[:, :LEARNERS].astype(np.float32)
        self._clock += 1
        over = np.full(self.lanes, self._clock >= self.task.limit)
        return Step(self._view(), reward, over, over.copy(), None)

    def _view(self) -> View:
        """Observations [E,3,O]; the state [E,3*O] joins them."""
        obs = np.stack([self.world.observe_one(i) for i in range(LEARNERS)], 1).astype(np.float32)
        return View(obs, obs.reshape(self.lanes, -1).copy(), None)

    def close(self) -> None:
        """Nothing to release."""
