import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxmarl.environments.smax.smax_env import State


@functools.cache
def _battle(allies, enemies, corridor):
    from offmarl.benchmarks.smax.battle import make_battle

    roster = {"allies": dict(allies), "enemies": dict(enemies), "starts": [[9, 16], [23, 16]]}
    return make_battle(roster | ({"corridor": corridor} if corridor else {}), 60)._env


@functools.cache
def _loop(battle):
    return jax.jit(battle._world_step), jax.jit(battle._push_units_away)


def _state(battle, kind, at):
    """Everyone unhurt and ready to strike."""
    k = battle.num_agents
    kind, at = jnp.asarray(kind, jnp.uint8), jnp.asarray(at, jnp.float32)
    assert (kind.shape, at.shape) == ((k,), (k, 2))
    smax = State(
        unit_positions=at,
        unit_alive=jnp.ones(k, bool),
        unit_teams=battle.teams,
        unit_health=battle.unit_type_health[kind],
        unit_types=kind,
        unit_weapon_cooldowns=jnp.zeros(k),
        prev_movement_actions=jnp.zeros((k, 2)),
        prev_attack_actions=jnp.zeros(k, jnp.int32),
        step=jnp.array(0),
        done=jnp.array(False),
    )
    return battle.shielded(smax)


class Field:
    """Units where one wants them. One game loop is `step`; orders name the unit to attack."""

    def __init__(self, allies, enemies, at, corridor=None):
        self.battle = _battle(tuple(allies.items()), tuple(enemies.items()), corridor)
        self.n, self.k = self.battle.num_allies, self.battle.num_agents
        self.state = _state(self.battle, self.battle.scenario, at)

    def hurt(self, **units):
        """Set healths with their shields: hurt(u0=20.0); zero kills. Shields are lost before health."""
        health = self.state.unit_health
        for name, value in units.items():
            health = health.at[int(name[1:])].set(value)
        shield = jnp.maximum(health - self.battle.life[self.state.unit_types], 0.0)
        self.state = self.state.replace(unit_health=health, unit_alive=health > 0, unit_shield=shield)
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
            shield=np.asarray(after.unit_shield),
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
    """The `Game` of a task, `start` (a state by unit types and places) and the jitted `see` (its view)."""
    from offmarl.benchmarks.smax.env import Game, Position
    from offmarl.benchmarks.tasks import tasks

    @functools.cache
    def make(name):
        game = Game(tasks()[name])
        see = jax.jit(lambda state, last: game.view(Position(SimpleNamespace(state=state), last)))
        battle = game.env._env
        return SimpleNamespace(
            game=game,
            see=see,
            start=lambda kinds=None, at=None: _state(
                battle,
                battle.scenario if kinds is None else [battle.unit_type_names.index(kind) for kind in kinds],
                np.full((battle.num_agents, 2), 16) if at is None else at,
            ),
        )

    return make


@pytest.fixture(autouse=True)
def no_prey_file(monkeypatch):
    monkeypatch.delenv("OFFMARL_PREY", raising=False)
