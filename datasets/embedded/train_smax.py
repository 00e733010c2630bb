"""Train the behaviour policies behind the embedded StarCraft data: `offmarl data train-behaviour`.

As OG-MARL did (its dataset cards): several independently trained runs per map, checkpoints at target returns, recorded
greedily with a little noise and joined. Independent runs learn different conventions, which makes the joint action
multi-modal. Runs here are PPO with shared parameters and a central critic on SMAX battles; the actors are small (two
layers of 64), so that all of them fit into the repository.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from offmarl.benchmarks.smax.env import Game
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.embedded.actors import Snapshot, perceptron, save, select
from offmarl.datasets.embedded.recipes import Training

LANES, HORIZON, EPOCHS, MINIBATCHES = 64, 64, 4, 4
GAMMA, LAMBDA, CLIP, ENTROPY, VALUE_WEIGHT = 0.99, 0.95, 0.2, 0.01, 0.5
ACTOR, CRITIC, LEARNING_RATE, MAX_GRADIENT = 64, 128, 3e-4, 0.5
REWARD_SCALE = 0.1
UPDATES_PER_ROUND = 1
EPSILON = 0.05  # of the recordings, so also of the measurement here


def _layer(key: jax.Array, n_in: int, n_out: int, scale: float) -> list[jax.Array]:
    return [jax.nn.initializers.orthogonal(scale)(key, (n_in, n_out)), jnp.zeros(n_out)]


def _init(key: jax.Array, task: Task) -> dict[str, list]:
    k = jax.random.split(key, 6)
    gain = 2**0.5
    actor = [(task.obs + task.agents, ACTOR, gain), (ACTOR, ACTOR, gain), (ACTOR, task.actions, 0.01)]
    critic = [(task.state, CRITIC, gain), (CRITIC, CRITIC, gain), (CRITIC, 1, 1.0)]
    return {
        "actor": sum((_layer(k[i], *shape) for i, shape in enumerate(actor)), []),
        "critic": sum((_layer(k[3 + i], *shape) for i, shape in enumerate(critic)), []),
    }


def train_behaviours(
    task: Task, targets: dict[str, tuple[float, float]], budget: Training, out: Path
) -> dict[str, list]:
    """Train `budget.runs` runs, choose snapshots nearest the target means (not deviations), and write them to `out`.

    Returns for each quality the (run, steps, score) of every chosen snapshot.
    """
    trainer = Trainer(task)
    runs = [trainer.run(budget.seed + run, budget) for run in range(budget.runs)]
    chosen = select(runs, {quality: mean for quality, (mean, _) in targets.items()})
    save(out, chosen)
    return {q: [(run, s.steps, round(s.score, 2)) for run, s in pairs] for q, pairs in chosen.items()}


class Trainer:
    """PPO on one task. Shapes: E lanes, I agents, T horizon."""

    def __init__(self, task: Task):
        self.task, self.game = task, Game(task)
        self.eye = jnp.eye(task.agents)
        self.optimiser = optax.chain(optax.clip_by_global_norm(MAX_GRADIENT), optax.adam(LEARNING_RATE, eps=1e-5))
        self.reset = jax.jit(jax.vmap(self.game.reset))
        self.round = jax.jit(lambda carry: jax.lax.scan(self._update, carry, None, length=UPDATES_PER_ROUND)[0])
        self.measure = jax.jit(self._measure)

    def run(self, seed: int, budget: Training) -> list[Snapshot]:
        """Train one run; returns its snapshots, one a round, the untrained actor first."""
        key = jax.random.PRNGKey(seed)
        params = _init(key, self.task)
        position, view = self.reset(jax.random.split(key, LANES))
        carry = (params, self.optimiser.init(params), position, view, key)
        snapshots: list[Snapshot] = []
        with tqdm(total=budget.steps, desc=f"{self.task.name} run {seed}", unit="step", unit_scale=True) as bar:
            while not snapshots or snapshots[-1].steps < budget.steps:
                steps = len(snapshots) * UPDATES_PER_ROUND * LANES * HORIZON
                score = float(self.measure(carry[0]["actor"], jax.random.PRNGKey(1)))
                weights = [np.asarray(w, np.float16) for w in carry[0]["actor"]]
                snapshots.append(Snapshot(steps, score, np.nan, weights))
                bar.set_postfix(score=f"{score:.2f}")
                if score >= budget.target and len(snapshots) > 1:
                    break
                carry = self.round(carry)
                bar.update(UPDATES_PER_ROUND * LANES * HORIZON)
        return snapshots

    def _logits(self, actor: list, obs: jax.Array, legal: jax.Array) -> jax.Array:
        ids = jnp.broadcast_to(self.eye, (*obs.shape[:-1], self.task.agents))
        return jnp.where(legal, perceptron(actor, jnp.concatenate([obs, ids], -1), jax.nn.relu), -1e9)

    def _measure(self, actor: list, key: jax.Array) -> jax.Array:
        """Mean return of the greedy actor with EPSILON random legal actions, one episode a lane."""

        def step(carry: Any, key: jax.Array) -> Any:
            position, view, total, over = carry
            k_flip, k_random, k_env = jax.random.split(key, 3)
            greedy = self._logits(actor, view.obs, view.legal).argmax(-1)
            chance = jax.random.categorical(k_random, jnp.where(view.legal, 0.0, -1e9))
            action = jnp.where(jax.random.uniform(k_flip, greedy.shape) < EPSILON, chance, greedy)
            position, out = jax.vmap(self.game.step)(jax.random.split(k_env, LANES), position, action)
            return (position, out.view, total + jnp.where(over, 0.0, out.reward), over | out.done), None

        position, view = jax.vmap(self.game.reset)(jax.random.split(key, LANES))
        start = (position, view, jnp.zeros(LANES), jnp.zeros(LANES, bool))
        keys = jax.random.split(key, self.task.limit)
        return jax.lax.scan(step, start, keys)[0][2].mean()

    def _advance(self, key: jax.Array, position: Any, action: jax.Array) -> Any:
        """One step of one battle, which is reset when it ends."""
        k_step, k_reset = jax.random.split(key)
        position, out = self.game.step(k_step, position, action)
        fresh = self.game.reset(k_reset)
        pick: Callable = lambda new, old: jnp.where(out.done, new, old)  # noqa: E731
        position, view = jax.tree.map(pick, fresh, (position, out.view))
        return position, view, REWARD_SCALE * out.reward, out.done

    def _update(self, carry: Any, _: None) -> tuple[Any, None]:
        params, memory, position, view, key = carry
        key, k_roll, k_fit = jax.random.split(key, 3)

        def act(carry: Any, key: jax.Array) -> Any:
            position, view = carry
            k_act, k_env = jax.random.split(key)
            logits = self._logits(params["actor"], view.obs, view.legal)
            action = jax.random.categorical(k_act, logits)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], -1)[..., 0]
            value = perceptron(params["critic"], view.state, jax.nn.relu)[..., 0]
            position, after, reward, done = jax.vmap(self._advance)(jax.random.split(k_env, LANES), position, action)
            return (position, after), (view, action, chosen, value, reward, done)

        (position, view), path = jax.lax.scan(act, (position, view), jax.random.split(k_roll, HORIZON))
        views, action, chosen, value, reward, done = path
        advantage = _gae(reward, value, done, perceptron(params["critic"], view.state, jax.nn.relu)[..., 0])
        rows = (views, action, chosen, advantage, advantage + value)
        rows = jax.tree.map(lambda x: x.reshape(LANES * HORIZON, *x.shape[2:]), rows)

        def epoch(carry: Any, key: jax.Array) -> Any:
            order = jax.random.permutation(key, LANES * HORIZON).reshape(MINIBATCHES, -1)
            return jax.lax.scan(lambda c, rows_of: (self._fit(c, rows, rows_of), None), carry, order)

        (params, memory), _ = jax.lax.scan(epoch, (params, memory), jax.random.split(k_fit, EPOCHS))
        return (params, memory, position, view, key), None

    def _fit(self, carry: Any, rows: Any, index: jax.Array) -> Any:
        params, memory = carry
        view, action, before, advantage, target = jax.tree.map(lambda x: x[index], rows)
        advantage = ((advantage - advantage.mean()) / (advantage.std() + 1e-8))[:, None]

        def loss(params: dict) -> jax.Array:
            log_p = jax.nn.log_softmax(self._logits(params["actor"], view.obs, view.legal))
            ratio = jnp.exp(jnp.take_along_axis(log_p, action[..., None], -1)[..., 0] - before)
            gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage).mean()
            entropy = -(jnp.exp(log_p) * jnp.where(view.legal, log_p, 0.0)).sum(-1).mean()
            error = ((perceptron(params["critic"], view.state, jax.nn.relu)[..., 0] - target) ** 2).mean()
            return -gain - ENTROPY * entropy + VALUE_WEIGHT * error

        step, memory = self.optimiser.update(jax.grad(loss)(params), memory)
        return optax.apply_updates(params, step), memory


def _gae(reward: jax.Array, value: jax.Array, done: jax.Array, last: jax.Array) -> jax.Array:
    """Generalised advantage estimates [T,E] (Schulman et al. 2016)."""

    def back(carry: Any, x: Any) -> Any:
        ahead, next_value = carry
        r, v, d = x
        live = 1.0 - d.astype(jnp.float32)
        ahead = r + GAMMA * live * next_value - v + GAMMA * LAMBDA * live * ahead
        return (ahead, v), ahead

    return jax.lax.scan(back, (jnp.zeros_like(last), last), (reward, value, done), reverse=True)[1]
