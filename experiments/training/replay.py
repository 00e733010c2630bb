"""Replays: a stored policy on its evaluation episodes, or a recorded episode of its data, as numbers to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from offmarl.algorithms.parts.algorithm import OWN, Algorithm
from offmarl.benchmarks.env import View
from offmarl.benchmarks.frames.film import Film, Take, watched
from offmarl.benchmarks.rollout import Episodes, evaluate, lane_seeds
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.cache import Entry
from offmarl.datasets.embedded.film import film
from offmarl.datasets.embedded.recipes import Recipe
from offmarl.experiments.errors import UserError, check_name, refusing
from offmarl.experiments.grid.code import code_sums
from offmarl.experiments.grid.jobs import Job, stored_job
from offmarl.experiments.store.reading import by_play
from offmarl.experiments.store.store import Record, Store
from offmarl.experiments.training.policy import load_policy
from offmarl.reports.records.replay import Header, Replay, file_name, pack, read

STEP = 0.05  # to which continuous actions are rounded
Files = dict[str, bytes]


@dataclass
class Stored:
    """A finished run and its last evaluation in one play. Raises UserError for a run that has none in it."""

    store: Store
    run_id: str
    record: Record
    play: str | None = None

    def __post_init__(self) -> None:
        plays = by_play(self.record)
        if not plays:
            raise UserError(f"{self.run_id}: has no evaluation ({self.record['status']}), so nothing to watch")
        self.play = check_name("play", self.play or next(iter(plays)), plays)
        with refusing(f"{self.run_id}: its run.json is malformed"):
            seeds = [int(seed) for seed in self.record.get("seeds") or [self.record["cell"]["seed"]]]
            self.job: Job = stored_job(self.record, seeds)
            self.task: Task = self.job.entry.task
            self.looks = plays[self.play]
            self.returns: list[float] = self.looks[-1]["returns"]
            self.lengths: list[int] = [int(length) for length in self.looks[-1]["lengths"]]

    def chosen(self) -> dict[str, int]:
        """The episodes of the lowest, the median and the highest return, by what they are called."""
        return spread(self.returns)

    def decisions(self) -> list[int]:
        """How often policies decided in each evaluation before the last one: the longest episode of all seeds."""
        records = [self.store.peek(run_id) or self.record for run_id in self.job.run_ids()]
        looks = [by_play(record).get(str(self.play), [])[:-1] for record in records]
        return [int(max(max(look["lengths"]) for look in together)) for together in zip(*looks)]


def evenly(returns: Sequence[float], count: int) -> list[int]:
    """Indices of `count` returns in even steps from the lowest to the highest; of one, the median."""
    order, last = np.argsort(returns, kind="stable"), len(returns) - 1
    ranks = np.linspace(0, last, count) if count > 1 else [last / 2] * count
    return [int(order[int(rank)]) for rank in ranks]


def spread(returns: Sequence[float]) -> dict[str, int]:
    """The indices of the lowest, the median and the highest return, by name; one name where they are one."""
    return {name: k for k, name in dict(zip(evenly(returns, 3), ("worst", "median", "best"))).items()}


def replay_run(stored: Stored, episodes: Sequence[int]) -> list[Replay]:
    """These episodes of a run's last evaluation: those that it kept, or else played again.

    All of its episodes are played then, and what the evaluations before drew is drawn again, so that methods that draw
    noise play the stored episodes, too. Raises UserError for an episode that was not evaluated, or a task without
    pictures.
    """
    run, count = stored, len(stored.returns)
    for episode in episodes:
        if not 0 <= episode < count:
            raise UserError(f"--episode {episode}: {run.run_id} was evaluated on episodes 0 to {count - 1}")
    kept = [run.store.runs / run.run_id / file_name(str(run.play), episode) for episode in episodes]
    if all(path.is_file() for path in kept):
        return [read(path) for path in kept]
    method = load_policy(run.store.runs / run.run_id, run.task, run.run_id)
    method.play, seed = str(run.play), int(run.record["cell"]["seed"])
    with refusing(f"{run.run_id}: cannot be watched"):
        camera = Film(watched(run.task, count), episodes)
        if method.play == OWN and method.acting_rule():
            draw_again(method, camera.reset(lane_seeds([seed], camera.lanes)), run.decisions(), camera.lanes)
            camera.waves = 0
        (played,) = evaluate(method, camera, [seed], episodes=count)
        camera.close()
    found = []
    for k in episodes:
        same = (played.returns[k], played.lengths[k]) == (run.returns[k], run.lengths[k])
        facts = facts_of(method, seed, run.run_id, run.record.get("code_sums") or {})
        facts |= {"stored": run.returns[k], "same": same}
        found.append(replay_of(camera.takes[k], run.job.entry, run.job.source, k, facts))
    return found


def facts_of(method: Algorithm, seed: int, run_id: str, sums: Mapping[str, str]) -> dict[str, Any]:
    """What a header says of who plays: a method of a run, in its present play."""
    who = {"title": method.title, "algorithm": method.name, "seed": seed, "play": method.play}
    return {**who, "run": run_id, "code_sums": dict(sums)}


def keep(method: Algorithm, job: Job, camera: Film, look: Sequence[Episodes], count: int) -> list[Files]:
    """The files of some of the episodes that a method of S seeds has just played before a camera, by seed and name.

    They are `count` from the lowest to the highest return, and the first, which every method plays from the same start.
    """
    lanes, sums = camera.lanes // len(look), code_sums(job.algorithm, job.task)
    found: list[Files] = []
    for row, (own, seed, run_id) in enumerate(zip(look, job.seeds, job.run_ids(), strict=True)):
        waves = range(camera.waves)
        takes = [camera.takes[wave * camera.lanes + row * lanes + lane] for wave in waves for lane in range(lanes)]
        takes, files = [take for take in takes if take.end != "broken"], {}
        for k in {*evenly(own.returns, count), 0}:
            facts = facts_of(method, seed, run_id, sums) | {"stored": own.returns[k]}
            facts["same"] = (takes[k].return_, len(takes[k].rewards)) == (own.returns[k], own.lengths[k])
            files[file_name(method.play, k)] = pack(replay_of(takes[k], job.entry, job.source, k, facts))
        found.append(files)
    return found


def draw_again(method: Algorithm, view: View, decisions: Sequence[int], lanes: int) -> None:
    """Draw for acting what a method drew in evaluations of so many decisions, in which it played `lanes` episodes.

    A decision draws for all episodes whichever of them it is made for, so here it is made for one.
    """
    obs = torch.from_numpy(view.obs[None, :1])
    legal = None if view.legal is None else torch.from_numpy(view.legal[None, :1])
    for count in decisions:
        memory = None
        for _ in range(count):
            with method.acting_for(torch.zeros(1, 1, dtype=torch.int64), lanes):
                _, memory = method.act(obs, legal, memory)


def replay_data(entry: Entry, source: str, episodes: Mapping[str, int] | None = None) -> dict[str, Replay]:
    """Recorded episodes by name; None: those of the lowest, median and highest return.

    Raises UserError for data that were not recorded here, or an episode that there is not.
    """
    name = f"{entry.task.name}:{entry.quality}"
    if not isinstance(entry, Recipe):
        reason = f"the data of {source} hold no states of the simulator, and not what decided their episodes"
        raise UserError(f"{name}: {reason}; only what was recorded here (embedded, tuning) can be watched")
    found = {}
    with refusing(f"{name}: cannot be watched"):
        data, _ = entry.load()
        returns = data.returns()
        for label, k in (episodes or spread(returns.tolist())).items():
            take, same = film(entry, data, k)
            facts = {"title": f"data, behaviour {data.behaviour[k]}", "stored": float(returns[k]), "same": same}
            found[label] = replay_of(take, entry, source, k, facts)
    return found


def replay_of(take: Take, entry: Entry, source: str, episode: int, facts: Mapping[str, Any]) -> Replay:
    """A film as a replay; `facts` are further keys of its header."""
    scene, task = take.scene, entry.task
    actions = np.array(take.actions, float).reshape(len(take.actions), task.agents, -1)
    header = {
        **{"task": task.name, "quality": entry.quality, "source": source, "episode": episode},
        **{"return": take.return_, "end": take.end, "kind": scene.kind, "tick": scene.tick, "moves": scene.moves},
        **{"area": list(scene.area), "bodies": [body._asdict() for body in scene.bodies]},
        "columns": [{"name": name, "step": step} for name, step in scene.columns.items()],
        **{"steps": len(actions), "agents": task.agents, "actions": actions.shape[-1]},
        **{"action_step": 1.0 if task.discrete else STEP, **facts},
    }
    if not task.discrete:
        actions = actions.clip(-1, 1)
    returns = np.concatenate([[0.0], np.cumsum(take.rewards)])
    return Replay(Header(**header), np.array(take.frames), returns, actions)
