"""The papers' experiments on small games: train, and measure joint flow and policies on the way.

An evaluation plays K episodes of each from some first observations of the game's data: return, reward of the last step
(`end`), share of the episodes that end in one of the best joint actions (`best`). It draws K joint actions of both from
the same noise at some observations of the data: 2-Wasserstein distance (exact assignment of the samples), distillation
(root of the mean squared distance at equal noise, Proposition 4.2), mutual information of two agents' actions at a
fixed observation, for discrete actions their correlation (and the data's), and for continuous ones the value gap beside
its bound L_Q W_2 (Proposition 4.3). L_Q is the largest gradient norm of Q_tot, the mean of the agents' critics, at
five points between matched samples.

Shapes: S seeds, n observations, K samples of each, T steps, I agents, O observation, A actions.
"""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from tqdm import tqdm

from offmarl.algorithms import registry
from offmarl.algorithms.parts.flow import euler
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.benchmarks.yaml_files import Strict, packaged
from offmarl.experiments.errors import check_name
from offmarl.experiments.grid.config import resolve
from offmarl.experiments.studies.distances import (
    matched,
    mutual_information,
    table,
    table_correlation,
    table_information,
    wasserstein,
)
from offmarl.experiments.studies.experiment import Experiment, File, Row, Seeds
from offmarl.experiments.studies.games import CONTINUOUS, GAMES, Game
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import make_trainer

OBSERVATIONS = 6  # of the data, at which joint actions are drawn; first ones, from which episodes are played
POINTS = 5  # between two matched samples, where the gradient of Q_tot is taken
SHOWN = 256  # samples kept for figures
PICTURES = ("tables", "scatter", "sweep", "curves", "covering")
BOTH = ("joint", "policies")
QUANTITIES = [f"{who}_{what}" for who in BOTH for what in ("return", "end", "best", "information")]
QUANTITIES += ["return_gap", "wasserstein", "distillation"]
VALUE_QUANTITIES = ["gap", "bound", "below_bound", "lipschitz"]  # of continuous games
TABLE_QUANTITIES = [f"{who}_correlation" for who in ("data", *BOTH)]  # of discrete ones


class Budget(Strict):
    """How much work a profile is."""

    steps: PositiveInt
    seeds: Seeds
    evaluations: PositiveInt = Field(serialization_alias="looks")  # its name in stored records
    samples: int = Field(gt=5)  # more than the neighbours of mutual information
    data: PositiveInt


class Settings(Strict):
    """An argument of the game, and the values at which it is played."""

    name: str
    values: list[int | float] = Field(min_length=1)


class ToyGame(Experiment):
    """One experiment of toy_games.yaml."""

    game: str
    method: str
    config: dict[str, Any]
    arms: dict[str, dict[str, Any]] = Field(min_length=1)  # the settings in which they differ from `config`
    profiles: dict[str, Budget]
    settings: Settings | None = None

    @model_validator(mode="after")
    def _known(self) -> "ToyGame":
        """Every name is one that the harness knows."""
        parameters = inspect.signature(GAMES[check_name("game", self.game, GAMES)]).parameters
        rng, count, *arguments = parameters
        if self.settings:
            check_name(f"argument of {self.game}", self.settings.name, arguments)
        needed = [name for name in arguments if parameters[name].default is inspect.Parameter.empty]
        if needed and not (self.settings and needed == [self.settings.name]):
            raise ValueError(f"the game {self.game} needs settings of {', '.join(needed)}")
        check_name("method", self.method, registry())
        for arm in self.arms:
            self.config_of(arm)
        quantities = [*QUANTITIES, *(VALUE_QUANTITIES if self.game in CONTINUOUS else TABLE_QUANTITIES)]
        self.check(PICTURES, self.arms, quantities, ("trend", "rise") if self.settings else ())
        return self

    def config_of(self, arm: str) -> Any:
        """The method's Config of an arm."""
        method = registry()[self.method]
        return resolve(method, "", "", [], {self.method: self.config | self.arms[arm]})

    def variations(self) -> list[dict[str, Any]]:
        """The game's arguments, one for each setting."""
        return [{self.settings.name: value} for value in self.settings.values] if self.settings else [{}]

    def run(self, profile: str, source: str, host: Host, results: Path, workers: int, again: bool = False) -> Row:
        """Train and evaluate every arm on every setting of the game, in this process; nothing is stored."""
        budget, rows, shown = self.profiles[profile], [], []
        host.set_up()
        total = len(self.arms) * len(self.variations()) * budget.steps
        with tqdm(total=total, desc=self.game, unit="update") as bar:
            for arguments in self.variations():
                game = GAMES[self.game](np.random.default_rng(0), budget.data, **arguments)
                for arm in self.arms:
                    names = {"arm": arm, "setting": next(iter(arguments.values()), None)}
                    found, samples = self._train(game, arm, budget, host, bar)
                    rows += [names | row for row in found]
                    shown.append(names | samples)
        settings = self.settings and self.settings.model_dump()
        facts = {"settings": settings, "budget": budget.model_dump(by_alias=True), "config": self.config}
        return self.record(profile, host, **facts, rows=rows, shown=shown)

    def _train(self, game: Game, arm: str, budget: Budget, host: Host, bar: tqdm) -> tuple[list[Row], Row]:
        """Train an arm on a game: a row for each evaluation and seed, and samples of the trained first seed."""
        method = registry()[self.method](game.spec, self.config_of(arm), budget.seeds, host.device)
        update = make_trainer(method, game.dataset(), host, timeout_bootstrap=True).update
        evaluated = np.linspace(0, budget.steps, budget.evaluations + 1).astype(int).tolist()
        rows = []
        for step in range(budget.steps + 1):
            if step in evaluated:
                found = evaluate(method, game, budget.samples)
                rows += [{"step": step, "seed": seed, **row} for seed, row in zip(budget.seeds, found)]
            if step < budget.steps:
                update()
                bar.update(1)
        return rows, _shown(method, game)


def toy_games() -> dict[str, ToyGame]:
    """Every experiment by name."""
    return packaged(File[ToyGame], "offmarl.experiments.studies", "toy_games.yaml").experiments


def evaluate(method: Any, game: Game, count: int) -> list[Row]:
    """Measure joint flow and policies of every seed, by `count` episodes and joint actions at each observation."""
    met = game.obs[:, :-1].reshape(-1, *game.obs.shape[2:])
    places = OBSERVATIONS if met.std() > 0 else 1  # the same, everywhere, in games of one joint action for two
    met = met[:: -(-len(met) // places)]
    joint, policies = sample(method, met, count)  # [S, n, K, I(, A)]
    played = zip(*(play(method, game, who, places, count)[1] for who in BOTH))
    values = [{} for _ in method.seeds] if game.spec.discrete else _value_gap(method, met, joint, policies)
    return [
        _returns(game, *rewards) | _compare(game, *pair) | value
        for rewards, *pair, value in zip(played, joint, policies, values)
    ]


@torch.no_grad()
def play(method: Any, game: Game, who: str, places: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations [S,n,K,T+1,I,O] and rewards [S,n,K,T] of episodes that joint flow or policies play."""
    starts = np.repeat(game.obs[:places, 0], count, 0)
    obs, rewards = [np.repeat(starts[None], len(method.seeds), 0)], []
    streams = SeedStreams(method.seeds, "looking", method.device)
    for _ in range(game.actions.shape[1]):
        noise = streams.normal(*starts.shape[:2], method.spec.actions)
        actions = _act(method, who, torch.from_numpy(obs[-1]).to(method.device), noise)
        rewards.append(game.reward(obs[-1], actions))
        obs.append(game.move(obs[-1], actions) if game.move else obs[-1])
    shape = len(method.seeds), places, count
    return np.stack(obs, 2).reshape(*shape, len(obs), *starts.shape[1:]), np.stack(rewards, 2).reshape(*shape, -1)


def _returns(game: Game, joint: np.ndarray, policies: np.ndarray) -> Row:
    """What one seed's episodes paid, from rewards [n,K,T] of joint flow and policies."""
    row: Row = {}
    for who, rewards in zip(BOTH, (joint, policies)):
        last = rewards[..., -1]
        row |= {f"{who}_return": float(rewards.sum(-1).mean()), f"{who}_end": float(last.mean())}
        row[f"{who}_best"] = float((last >= game.good).mean())
    row["return_gap"] = float(abs((joint - policies).sum(-1).mean(1)).mean())
    return row


def _compare(game: Game, joint: np.ndarray, policies: np.ndarray) -> Row:
    """One seed's joint actions [n,K,I(,A)] of joint flow and policies, by themselves and against each other."""
    pair = joint, policies
    row = {f"{who}_information": float(np.mean([_information(game, each) for each in x])) for who, x in zip(BOTH, pair)}
    one, other = (actions.reshape(*actions.shape[:2], -1).astype(float) for actions in pair)
    row["wasserstein"] = float(np.mean([wasserstein(a, b) for a, b in zip(one, other)]))
    row["distillation"] = float(np.sqrt(np.square(one - other).sum(-1).mean()))
    if game.spec.discrete:
        found = zip(TABLE_QUANTITIES, (game.actions[None, :, 0], *pair))
        row |= {name: float(np.mean([table_correlation(table(each)) for each in actions])) for name, actions in found}
    return row


def sample(method: Any, obs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Joint actions [S,n,K,I(,A)] of joint flow and policies, from the same noise in every call."""
    repeated = _repeated(method, obs, count)
    noise = SeedStreams(method.seeds, "looking", method.device).normal(*repeated.shape[1:-1], method.spec.actions)
    joint, policies = (_act(method, who, repeated, noise) for who in BOTH)
    shape = len(method.seeds), len(obs), count
    return joint.reshape(*shape, *joint.shape[2:]), policies.reshape(*shape, *policies.shape[2:])


@torch.no_grad()
def _act(method: Any, who: str, obs: Tensor, noise: Tensor) -> np.ndarray:
    """Joint actions of the joint flow or the policies at obs [S,B,I,O], from noise [S,B,I,A]: [S,B,I(,A)]."""
    if who == "joint":
        points = euler(method.field(obs), noise, method.config.flow_steps)
    else:
        points = method.nets["policy"](obs, noise)
    return method.decide(points, None).cpu().numpy()


def _repeated(method: Any, obs: np.ndarray, count: int) -> Tensor:
    """Observations [n,I,O] for every seed, each `count` times: [S, n * count, I, O]."""
    many = torch.from_numpy(obs).to(method.device).repeat_interleave(count, 0)
    return many.expand(len(method.seeds), *many.shape)


def _information(game: Game, actions: np.ndarray) -> float:
    """Mutual information of the first two agents' actions at one observation: [K,I(,A)]."""
    if game.spec.discrete:
        return table_information(table(actions))
    return mutual_information(actions[:, 0], actions[:, 1])


def _value_gap(method: Any, obs: np.ndarray, joint: np.ndarray, policies: np.ndarray) -> list[Row]:
    """Value gap and bound of every seed, as means over observations, and the share of these with the gap below."""
    S, n, K, _, _ = joint.shape
    flat = [x.reshape(S, n, K, -1) for x in (joint, policies)]
    order = np.stack([[matched(a, b) for a, b in zip(*seed)] for seed in zip(*flat)])  # [S, n, K]
    partner = np.take_along_axis(policies, order[..., None, None], 2)
    shares = np.linspace(0, 1, POINTS, dtype=np.float32)[:, None, None]
    between = joint[:, :, :, None] * (1 - shares) + partner[:, :, :, None] * shares  # [S, n, K, POINTS, I, A]
    actions = torch.from_numpy(between).to(method.device).flatten(1, 3).requires_grad_()
    value = q_total(method, _repeated(method, obs, K * POINTS), actions)
    (slope,) = torch.autograd.grad(value.sum(), actions)
    steepest = slope.flatten(2).norm(dim=-1).unflatten(1, (n, -1)).amax(-1).cpu().numpy()  # [S, n]
    ends = value.detach().unflatten(1, (n, K, POINTS)).cpu().numpy()
    gap = abs(ends[..., -1].mean(-1) - ends[..., 0].mean(-1))  # [S, n]
    distance = np.sqrt(np.square(joint - partner).sum((-1, -2)).mean(-1))  # W_2 [S, n]
    bound = steepest * distance
    return [
        {"gap": float(g.mean()), "bound": float(b.mean()), "below_bound": float((g <= b * (1 + 1e-6)).mean())}
        | {"lipschitz": float(s.mean()), "gaps": g.tolist(), "distances": w.tolist(), "bounds": b.tolist()}
        for g, b, s, w in zip(gap, bound, steepest, distance)
    ]


def q_total(method: Any, obs: Tensor, actions: Tensor) -> Tensor:
    """Q_tot, the mean over agents and both critics: obs [S,B,I,O], actions [S,B,I,A] -> [S,B]."""
    return method.nets["critic"](obs, actions)[..., 0].mean((1, 3))


def _shown(method: Any, game: Game) -> Row:
    """What a figure draws of data, joint flow and policies: the places of agents in one episode [T+1,I,2] from the same
    start, tables of shares, or samples at the first observation."""
    if game.move:
        paths = {"data": game.obs[0]} | {who: play(method, game, who, 1, 1)[0][0, 0, 0] for who in BOTH}
        found = {who: path[..., :2] for who, path in paths.items()} | {"marks": game.obs[0, 0, 0, 2:].reshape(-1, 2)}
        return {who: values.round(5).tolist() for who, values in found.items()}
    joint, policies = (x[0, 0] for x in sample(method, game.obs[:1, 0], SHOWN))
    found = {"data": game.actions[:, 0], "joint": joint, "policies": policies}
    if game.spec.discrete:
        return {who: table(actions).round(6).tolist() for who, actions in found.items()}
    return {who: values[:SHOWN].round(5).tolist() for who, values in found.items()}
