"""Battles stepped side by side: outcomes, independence, repeatability, compilation."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from offmarl.benchmarks.smax.env import CHUNK, SmaxEnv
from offmarl.benchmarks.tasks import make_env

STOP, NORTH, SOUTH, EAST, WEST, ATTACK = 1, 2, 3, 4, 5, 6


def focus(view):
    """Everyone attacks the first enemy that any of us may attack, or else goes east."""
    attack = view.legal[:, :, ATTACK:]
    shared = np.where(attack.any(1).any(-1), attack.any(1).argmax(-1), -1)
    aimed = (shared[:, None] >= 0) & np.take_along_axis(attack, np.maximum(shared, 0)[:, None, None], 2)[:, :, 0]
    own = attack.any(-1)
    action = np.where(aimed, ATTACK + shared[:, None], np.where(own, ATTACK + attack.argmax(-1), EAST))
    action = np.where(np.take_along_axis(view.legal, action[..., None], 2)[..., 0], action, STOP)
    return np.where(view.legal[:, :, 0], 0, action)


def play(env, seeds, policy=focus, steps=None):
    """Every view, reward, done, timeout and won of battles, stacked by time."""
    view, rows = env.reset(seeds), []
    first = view
    for _ in range(steps or env.task.limit):
        step = env.step(policy(view))
        view = step.view
        rows.append((*step.view, step.reward, step.done, step.timeout, step.won))
    return first, [np.stack(column) for column in zip(*rows)]


@pytest.fixture(scope="module")
def played(battles):
    return play(battles, np.arange(64))


def test_the_rewards_of_a_won_battle_sum_to_twenty(played):
    _, (_, _, _, reward, done, _, won) = played
    end = done.argmax(0)
    returns = np.array([reward[: end[e] + 1, e].sum() for e in range(64)])
    victory = won[end, np.arange(64)]
    assert 10 < victory.sum() < 64
    assert returns[victory] == pytest.approx(20, abs=1e-3)
    assert returns[~victory].max() < 20 * 165 / 365 + 1e-3  # all damage and kills, where the last two die together
    assert returns.min() >= 0


def test_every_battle_ends_within_its_limit_and_stays_over(played, marines):
    _, (_, _, _, _, done, _, _) = played
    assert done[marines.limit - 1].all()
    assert np.array_equal(np.maximum.accumulate(done), done)


def test_a_decided_battle_is_no_timeout(played):
    _, (_, state, _, _, done, timeout, won) = played
    end, lane = done.argmax(0), np.arange(64)
    allies_left = (state[end, lane][:, [0, 4, 8]] > 0).any(1)
    assert np.array_equal(timeout[end, lane], allies_left & ~won[end, lane])
    assert not timeout[end, lane].all()


def test_victory_is_all_enemies_dead_and_an_ally_alive(played):
    _, (_, state, _, _, done, _, won) = played
    allies = (state[:, :, [0, 4, 8]] > 0).any(-1)
    foes = (state[:, :, [12, 15, 18]] > 0).any(-1)
    assert np.array_equal(won, allies & ~foes)
    assert won.any() and (done & ~won).any()


def test_the_clock_alone_ends_a_timeout(battles, marines):
    view = battles.reset(np.arange(64))
    for chunk in battles._battles:
        battle = chunk[1].battle
        late = jnp.full_like(battle.state.step, marines.limit - 2)
        chunk[1] = chunk[1]._replace(battle=battle.replace(state=battle.state.replace(step=late)))
    idle = np.where(view.legal[:, :, 0], 0, STOP)
    before, last = battles.step(idle), battles.step(idle)
    assert not before.done.any() and not before.timeout.any()
    assert last.done.all() and last.timeout.all()
    assert not last.won.any()


def test_seeds_decide_the_battle(battles, played):
    again = play(battles, np.arange(64))
    for one, other in zip(jax.tree.leaves(played), jax.tree.leaves(again), strict=True):
        assert np.array_equal(one, other)
    _, (*_, other_won) = play(battles, 1000 + np.arange(64))
    assert not np.array_equal(other_won, played[1][-1])


def test_a_lanes_battle_is_the_same_whatever_its_neighbours_play(battles, played):
    seeds = np.where(np.arange(64) % 2 == 0, np.arange(64), 5000 + np.arange(64))
    first, columns = play(battles, seeds)
    kept, changed = slice(0, 64, 2), slice(1, 64, 2)
    assert np.array_equal(first.obs[kept], played[0].obs[kept])
    for ours, theirs in zip(columns, played[1], strict=True):
        assert np.array_equal(ours[:, kept], theirs[:, kept])
    assert not np.array_equal(columns[0][:, changed], played[1][0][:, changed])


def test_a_battle_does_not_depend_on_its_lane(battles, played):
    order = np.random.default_rng(0).permutation(64)
    _, columns = play(battles, np.arange(64)[order])
    for ours, theirs in zip(columns, played[1], strict=True):
        assert np.array_equal(ours, theirs[:, order])


def test_there_is_always_a_legal_action(played):
    first, (_, _, legal, *_) = played
    assert first.legal.any(-1).all()
    assert legal.any(-1).all()


@pytest.mark.parametrize(("action", "direction"), [(NORTH, (0, 1)), (SOUTH, (0, -1)), (EAST, (1, 0)), (WEST, (-1, 0))])
def test_moves_go_where_their_names_say(battles, action, direction):
    before = battles.reset(np.arange(64)).state
    after = battles.step(np.full((64, 3), action)).view.state
    moved = np.stack([(after - before)[:, 4 * k + 2 : 4 * k + 4] * 32 for k in range(3)]).mean((0, 1))
    assert moved == pytest.approx(np.array(direction) * 3.15 * 8 / 22.4, abs=0.05)


def test_stop_stays_where_it_is(battles):
    before = battles.reset(np.arange(64)).state
    after = battles.step(np.full((64, 3), STOP)).view.state
    assert np.abs((after - before)[:, [2, 3, 6, 7, 10, 11]]).max() < 0.3 / 32  # a crowd settles


def test_the_state_remembers_the_last_actions(battles):
    view = battles.reset(np.arange(64))
    assert not view.state[:, 21:].any()
    actions = np.tile([NORTH, STOP, SOUTH], (64, 1))
    shown = battles.step(actions).view.state[:, 21:].reshape(64, 3, 9)
    assert np.array_equal(shown, np.eye(9)[actions])


def test_an_attack_order_out_of_range_brings_the_unit_nearer(battles):
    view, ordered = battles.reset(np.arange(64)), 0
    for _ in range(12):
        gap = view.obs[:, :, 4:19].reshape(64, 3, 3, 5)[..., 1] * 9
        far = view.legal[:, :, ATTACK:] & (gap > 5.5)  # beyond a marine's 5, but legal
        target = far.argmax(-1)
        chosen = far.any(-1)
        at = view.state[:, :12].reshape(64, 3, 4)[..., 2:] * 32
        foe = view.state[:, 12:21].reshape(64, 3, 3)[..., 1:] * 32
        actions = np.where(chosen, ATTACK + target, np.where(view.legal[:, :, 0], 0, STOP))
        view = battles.step(actions).view
        walked = view.state[:, :12].reshape(64, 3, 4)[..., 2:] * 32 - at
        way = np.take_along_axis(foe, target[..., None], 1) - at
        along = (walked * way).sum(-1) / np.linalg.norm(way, axis=-1).clip(1e-6)
        survived = view.state[:, :12].reshape(64, 3, 4)[..., 0] > 0
        assert (along[chosen & survived] > 0.2).all()
        ordered += (chosen & survived).sum()
    assert ordered > 20


def test_what_steps_return_is_numpy_of_the_promised_types(battles, marines):
    view = battles.reset(np.arange(64))
    step = battles.step(focus(view))
    for part in (view, step.view):
        assert (part.obs.shape, part.obs.dtype) == ((64, 3, marines.obs), np.float32)
        assert (part.state.shape, part.state.dtype) == ((64, marines.state), np.float32)
        assert (part.legal.shape, part.legal.dtype) == ((64, 3, marines.actions), bool)
    assert all(isinstance(part, np.ndarray) and part.shape == (64,) for part in step[1:-1])
    assert step.void is None
    assert (step.reward.dtype, step.done.dtype, step.timeout.dtype, step.won.dtype) == (np.float32, bool, bool, bool)
    view.obs[:] = 0  # a caller may write into what it was given
    step.view.obs[:] = 0


def test_a_finished_battle_stays_as_it_ended(played):
    _, columns = played
    done = columns[4]
    end, steps = done.argmax(0), np.arange(len(done))[:, None]
    for column in columns[:3] + columns[4:]:
        last = column[np.minimum(steps, end), np.arange(64)]
        assert np.array_equal(column, last)
    assert (columns[3][steps > end] == 0).all()


@pytest.mark.parametrize("lanes", [1, 10, 40])
def test_a_battle_does_not_depend_on_the_number_of_lanes(marines, played, lanes):
    _, columns = play(make_env(marines, lanes), np.arange(lanes))
    for ours, theirs in zip(columns, played[1], strict=True):
        assert np.array_equal(ours, theirs[:, :lanes])


def test_finished_battles_cost_nothing(battles, played):
    done, chunks = played[1][4], []
    view = battles.reset(np.arange(64))
    for _ in range(battles.task.limit):
        view = battles.step(focus(view)).view
        chunks.append(len(battles._battles))
    assert chunks == [-(-(64 - row.sum()) // CHUNK) for row in done]
    assert chunks[0] == 4 and chunks[-1] == 0


def test_one_compilation_serves_every_number_of_lanes(battles, marines):
    battles._reset.clear_cache(), battles._step.clear_cache()
    for env, start in ((battles, 0), (battles, 7), (make_env(marines, 20), 0)):
        view = env.reset(np.arange(start, start + env.lanes))
        for _ in range(60):
            view = env.step(focus(view)).view
    assert (battles._reset._cache_size(), battles._step._cache_size()) == (1, 1)


def test_two_environments_of_a_task_share_one_compilation(battles, marines):
    other = make_env(marines, 64)
    assert other._step is battles._step
    assert other._reset is battles._reset
    assert type(other) is SmaxEnv


def test_jax_runs_on_the_cpu(battles):
    battles.reset(np.arange(64))
    devices = {device.platform for leaf in jax.tree.leaves(battles._battles) for device in leaf.devices()}
    assert devices == {"cpu"}


def test_importing_the_simulator_prints_nothing_and_asks_jax_for_the_cpu():
    code = "import sys, offmarl.benchmarks.smax.env, jax; sys.stderr.write(str(jax.config.jax_platforms))"
    clean = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "cpu"


def test_printing_works_again_after_the_import(capsys):
    print("heard")
    assert capsys.readouterr().out == "heard\n"


def test_the_import_leaves_a_notebooks_output_where_it_was():
    code = "import io, sys; sys.stdout = out = io.StringIO(); sys.stderr = err = io.StringIO()\n"
    code += "import offmarl.benchmarks.smax.env\nassert (sys.stdout, sys.stderr) == (out, err)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_the_tasks_does_not_load_a_simulator():
    code = "import sys; from offmarl.benchmarks.fingerprint import fingerprint; "
    code += "from offmarl.benchmarks.tasks import tasks; fingerprint(tasks()['smac/3m']); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
