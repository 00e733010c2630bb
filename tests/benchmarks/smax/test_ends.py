"""When a battle is over: SMACv2's medivacs do not fight, so a side of them alone has lost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from offmarl.benchmarks.smax.env import Game
from offmarl.benchmarks.tasks import tasks

LIMIT = 5
ROSTER = {"type_bits": 3, "starts": [[9, 16], [23, 16]]}
SIDES = {"allies": {"marine": 1, "medivac": 1}, "enemies": {"marine": 1, "medivac": 1}}


@pytest.fixture(scope="module")
def duel():
    """One step of a battle of a marine and a medivac a side, too far apart to fight, by who is left alive."""
    task = dataclasses.replace(tasks()["smacv2/terran_5_vs_5"], agents=2, limit=LIMIT, roster=ROSTER | SIDES)
    game = Game(task)
    start, _ = jax.jit(game.reset)(jax.random.PRNGKey(0))
    step = jax.jit(game.step)

    def play(alive, at_step=0):
        state = start.battle.state
        health = jnp.where(jnp.array(alive), state.unit_health, 0.0)
        apart = jnp.array([[0.0, 0], [2, 3], [32, 32], [30, 29]])  # walls kill nobody
        state = state.replace(unit_health=health, unit_alive=health > 0, unit_positions=apart, step=jnp.array(at_step))
        _, out = step(jax.random.PRNGKey(1), start._replace(battle=start.battle.replace(state=state)), jnp.ones(2, int))
        return out

    return play


@pytest.mark.parametrize(
    ("alive", "done", "won"),
    [
        ((1, 1, 1, 1), False, False),
        ((1, 0, 1, 0), False, False),
        ((1, 1, 0, 1), True, True),  # their medivac alone
        ((1, 0, 0, 1), True, True),
        ((0, 1, 1, 1), True, False),  # our medivac alone
        ((0, 1, 0, 1), True, False),  # nobody who fights: lost
        ((0, 1, 0, 0), True, False),
        ((0, 0, 0, 0), True, False),
    ],
)
def test_a_side_of_medivacs_alone_has_lost(duel, alive, done, won):
    out = duel(alive)
    assert (bool(out.done), bool(out.won), bool(out.timeout)) == (done, won, False)


def test_a_victory_over_a_medivac_left_pays_the_victory_and_not_the_medivac(duel):
    worth = 45 + 150 + 2 * 10 + 200
    assert float(duel((1, 1, 0, 1)).reward) == pytest.approx(20 * 200 / worth, rel=1e-5)


def test_only_the_clock_makes_a_timeout(duel):
    late = duel((1, 1, 1, 1), LIMIT - 1)
    assert late.done and late.timeout and not late.won
    assert not duel((1, 1, 1, 1), LIMIT - 2).done
    for decided in ((1, 1, 0, 1), (0, 1, 1, 1)):
        assert not duel(decided, LIMIT - 1).timeout
    assert np.isfinite(np.asarray(late.view.obs)).all()
