"""The papers' small experiments: train on a game, and look at joint flow and policies on the way.

A look draws K joint actions of both from the same noise, at some observations of the game's data, and measures them
against each other: return, share of the best joint actions, 2-Wasserstein distance (exact assignment of the samples),
distillation (root of the mean squared distance at equal noise, Proposition 4.2), mutual information of two agents'
actions at a fixed observation, and for continuous actions the value gap beside its bound L_Q W_2 (Proposition 4.3).
L_Q is the largest gradient norm of Q_tot, the mean of the agents' critics, at five points of the way between matched
samples.

Shapes: S seeds, n observations, K samples of each, I agents, O observation, A actions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from offmarl.algorithms import registry
from offmarl.algorithms.parts.flow import euler
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.experiments.grid.config import config_from
from offmarl.experiments.studies.distances import matched, mutual_information, table, table_information, wasserstein
from offmarl.experiments.studies.games import GAMES, Game
from offmarl.experiments.training.machine import Host, code
from offmarl.experiments.training.method import make_trainer

OBSERVATIONS = 6  # of the data, at which a look is taken
POINTS = 5  # on the way between two matched samples, where the gradient of Q_tot is taken
SHOWN = 256  # samples kept for pictures
Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """One experiment, as toy_games.yaml has it."""

    name: str
    title: str
    claim: str
    game: str
    arms: Mapping[str, Mapping[str, Any]]
    picture: str
    rules: list[list[Any]]
    method: str
    config: Mapping[str, Any]
    profiles: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any] | None = None
    note: str = ""

    def variations(self) -> list[dict[str, Any]]:
        """The games' arguments, one for each setting."""
        return [{self.settings["name"]: value} for value in self.settings["values"]] if self.settings else [{}]

    def conduct(self, profile: str, source: str, host: Host, results: Path, workers: int) -> Row:
        """Train and look, in this process. The game is its own source, and nothing is kept but what is returned."""
        work = len(self.arms) * len(self.variations()) * self.profiles[profile]["steps"]
        with tqdm(total=work, desc=self.name, unit="update") as bar:
            return conduct(self, profile, host, bar.update)


@cache
def studies() -> dict[str, Study]:
    """Every experiment by name."""
    entries = yaml.safe_load(resources.files("offmarl.experiments.studies").joinpath("toy_games.yaml").read_text())
    defaults = entries.pop("defaults")
    own = {name: {"config": defaults["config"] | entry.get("config", {})} for name, entry in entries.items()}
    return {name: Study(name, **(defaults | entry | own[name])) for name, entry in entries.items()}


def conduct(study: Study, profile: str, host: Host, progress: Callable[[int], object] = lambda _: None) -> Row:
    """Train every arm on every setting of the game and return what was seen; `progress` is told updates."""
    budget, rows, pictures = study.profiles[profile], [], []
    host.set_up()
    for arguments in study.variations():
        game = GAMES[study.game](np.random.default_rng(0), budget["data"], **arguments)
        setting = next(iter(arguments.values()), None)
        for arm, changes in study.arms.items():
            seen, shown = _train(study, game, changes, budget, host, progress)
            rows += [{"arm": arm, "setting": setting, **row} for row in seen]
            pictures.append({"arm": arm, "setting": setting, **shown})
    facts = {"study": study.name, "title": study.title, "claim": study.claim, "note": study.note, "rules": study.rules}
    facts |= {"picture": study.picture, "settings": study.settings, "profile": profile, "budget": dict(budget)}
    return facts | {
        "config": dict(study.config),
        "machine": host.facts(),
        "code": code(),
        "rows": rows,
        "shown": pictures,
    }


def _train(
    study: Study,
    game: Game,
    changes: Mapping[str, Any],
    budget: Mapping[str, Any],
    host: Host,
    progress: Callable[[int], object],
) -> tuple[list[Row], Row]:
    """One arm on one game: a row for each look and seed, and what pictures show of the last look's first seed."""
    kind = registry()[study.method]
    config = config_from(kind, {**study.config, **changes})
    method = kind(game.spec, config, budget["seeds"], host.device)
    update, rows = make_trainer(method, game.dataset(), host).update, []
    marks = np.linspace(0, budget["steps"], budget["looks"] + 1).astype(int).tolist()
    for step in range(budget["steps"] + 1):
        if step in marks:
            seen = look(method, game, budget["samples"])
            rows += [{"step": step, "seed": seed, **row} for seed, row in zip(budget["seeds"], seen)]
        if step < budget["steps"]:
            update()
            progress(1)
    return rows, _picture(method, game)


def look(method: Any, game: Game, count: int) -> list[Row]:
    """Measure joint flow and policies of every seed."""
    obs = game.obs[: OBSERVATIONS if game.obs.std() > 0 else 1]
    both = sample(method, obs, count)  # [S, n, K, I(, A)]
    values = [{} for _ in method.seeds] if game.spec.discrete else _value_gap(method, obs, *both)
    rows = []
    for k, (joint, policies) in enumerate(zip(*both)):
        row: Row = {}
        paid = {}
        for who, actions in (("joint", joint), ("policies", policies)):
            paid[who] = game.reward(np.repeat(obs, count, 0), actions.reshape(-1, *actions.shape[2:])).reshape(
                -1, count
            )
            row |= {f"{who}_return": float(paid[who].mean()), f"{who}_best": float((paid[who] >= game.good).mean())}
            row[f"{who}_information"] = float(np.mean([_information(game, own) for own in actions]))
        row["return_gap"] = float(abs(paid["joint"].mean(1) - paid["policies"].mean(1)).mean())
        one, other = (actions.reshape(*actions.shape[:2], -1).astype(float) for actions in (joint, policies))
        row["wasserstein"] = float(np.mean([wasserstein(a, b) for a, b in zip(one, other)]))
        row["distillation"] = float(np.sqrt(np.square(one - other).sum(-1).mean()))
        rows.append(row | values[k])
    return rows


@torch.no_grad()
def sample(method: Any, obs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Joint actions of joint flow and policies from the same noise, which is that of every call: [S,n,K,I(,A)]."""
    seen = _seen(method, obs, count)
    streams = SeedStreams(method.seeds, "looking", method.device)
    noise = streams.normal(*seen.shape[1:-1], method.spec.actions)
    points = euler(method.field(seen), noise, method.config.flow_steps), method.nets["policy"](seen, noise)
    joint, policies = (method.decide(x, None).unflatten(1, (len(obs), count)).cpu().numpy() for x in points)
    return joint, policies


def _seen(method: Any, obs: np.ndarray, count: int) -> Tensor:
    """Observations [n,I,O] for every seed, each `count` times: [S, n * count, I, O]."""
    many = torch.from_numpy(obs).to(method.device).repeat_interleave(count, 0)
    return many.expand(len(method.seeds), *many.shape)


def _information(game: Game, actions: np.ndarray) -> float:
    """Of the first two agents' actions at one observation: [K,I(,A)]."""
    if game.spec.discrete:
        return table_information(table(actions))
    return mutual_information(actions[:, 0], actions[:, 1])


def _value_gap(method: Any, obs: np.ndarray, joint: np.ndarray, policies: np.ndarray) -> list[Row]:
    """Value gap and bound of every seed, as means over the observations, and the share of these with the gap below."""
    S, n, K, _, _ = joint.shape
    flat = [x.reshape(S, n, K, -1) for x in (joint, policies)]
    order = np.stack([[matched(a, b) for a, b in zip(*seed)] for seed in zip(*flat)])  # [S, n, K]
    partner = np.take_along_axis(policies, order[..., None, None], 2)
    shares = np.linspace(0, 1, POINTS, dtype=np.float32)[:, None, None]
    ways = joint[:, :, :, None] * (1 - shares) + partner[:, :, :, None] * shares  # [S, n, K, POINTS, I, A]
    actions = torch.from_numpy(ways).to(method.device).flatten(1, 3).requires_grad_()
    value = q_total(method, _seen(method, obs, K * POINTS), actions)
    (slope,) = torch.autograd.grad(value.sum(), actions)
    steepest = slope.flatten(2).norm(dim=-1).unflatten(1, (n, -1)).amax(-1).cpu().numpy()  # [S, n]
    ends = value.detach().unflatten(1, (n, K, POINTS)).cpu().numpy()
    gap = abs(ends[..., -1].mean(-1) - ends[..., 0].mean(-1))  # [S, n]
    apart = np.sqrt(np.square(joint - partner).sum((-1, -2)).mean(-1))  # W_2 [S, n]
    bound = steepest * apart
    return [
        {"gap": float(g.mean()), "bound": float(b.mean()), "below_bound": float((g <= b * (1 + 1e-6)).mean())}
        | {"lipschitz": float(s.mean()), "gaps": g.tolist(), "distances": w.tolist(), "bounds": b.tolist()}
        for g, b, s, w in zip(gap, bound, steepest, apart)
    ]


def q_total(method: Any, obs: Tensor, actions: Tensor) -> Tensor:
    """Q_tot, the mean over agents and both critics: obs [S,B,I,O], actions [S,B,I,A] -> [S,B]."""
    return method.nets["critic"](obs, actions)[..., 0].mean((1, 3))


def _picture(method: Any, game: Game) -> Row:
    """Joint actions of data, joint flow and policies: tables of shares, or samples at the first observation."""
    joint, policies = (x[0, 0] for x in sample(method, game.obs[:1], SHOWN))
    found = {"data": game.actions[:SHOWN], "joint": joint, "policies": policies}
    if game.spec.discrete:
        return {who: table(game.actions if who == "data" else a).round(6).tolist() for who, a in found.items()}
    places = {"starts": game.obs[0, :, :2], "marks": game.obs[0, 0, 2:].reshape(-1, 2)} if game.landmarks else {}
    return {who: a.round(5).tolist() for who, a in {**found, **places}.items()}
