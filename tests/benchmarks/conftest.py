import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxmarl.environments.smax.smax_env import State


@functools.cache
def _battle(allies, enemies, corridor):
    from offmarl.benchmarks.smax_battle import make_battle

    roster = {"allies": dict(allies), "enemies": dict(enemies)}
    return make_battle(roster | ({"corridor": corridor} if corridor else {}), 60)._env


@functools.cache
def _loop(battle):
    return jax.jit(battle._world_step), jax.jit(battle._push_units_away)


class Field:
    """Units where one wants them. One game loop is `step`; orders name the unit to attack."""

    def __init__(self, allies, enemies, at, corridor=None):
        self.battle = _battle(tuple(allies.items()), tuple(enemies.items()), corridor)
        self.n, self.k = self.battle.num_allies, self.battle.num_agents
        kind = self.battle.scenario
        self.state = State(
            unit_positions=jnp.array(at, jnp.float32),
            unit_alive=jnp.ones(self.k, bool),
            unit_teams=self.battle.teams,
            unit_health=self.battle.unit_type_health[kind],
            unit_types=kind,
            unit_weapon_cooldowns=jnp.zeros(self.k),
            prev_movement_actions=jnp.zeros((self.k, 2)),
            prev_attack_actions=jnp.zeros(self.k, jnp.int32),
            step=jnp.array(0),
            done=jnp.array(False),
        )
        assert self.state.unit_positions.shape == (self.k, 2)

    def hurt(self, **units):
        """Set healths: hurt(u0=20.0); zero kills."""
        health = self.state.unit_health
        for name, value in units.items():
            health = health.at[int(name[1:])].set(value)
        self.state = self.state.replace(unit_health=health, unit_alive=health > 0)
        return self

    def step(self, attack=None, move=None, seed=0):
        """One game loop; `attack` {unit: target}, `move` {unit: direction}. Returns the state after it."""
        order, way = np.zeros(self.k, np.int32), np.zeros((self.k, 2), np.float32)
        for unit, target in (attack or {}).items():  # each side numbers its foes, the enemy's side from the last
            order[unit] = 5 + (target - self.n if unit < self.n else self.n - 1 - target)
        for unit, direction in (move or {}).items():
            way[unit] = direction
        after = _loop(self.battle)[0](jax.random.PRNGKey(seed), self.state, (jnp.asarray(way), jnp.asarray(order)))
        return SimpleNamespace(
            place=np.asarray(after.unit_positions),
            health=np.asarray(after.unit_health),
            reload=np.asarray(after.unit_weapon_cooldowns),
            raw=after,
        )

    def push(self, state):
        """The end of a game loop: nobody stands in anybody's place."""
        return _loop(self.battle)[1](state)


@pytest.fixture(scope="session")
def field():
    """Make a `Field`."""
    return Field


@pytest.fixture(scope="session")
def game_of():
    """The `Game` of a task, and its jitted `view` of a battle's state."""
    from offmarl.benchmarks.smax import Game, Position
    from offmarl.benchmarks.tasks import tasks

    @functools.cache
    def make(name):
        game = Game(tasks()[name])
        see = jax.jit(lambda state, last: game.view(Position(SimpleNamespace(state=state), last)))
        return SimpleNamespace(game=game, see=see, reset=jax.jit(game.env._env.reset))

    return make
